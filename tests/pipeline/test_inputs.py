"""What is remembered of data files: found again exactly when nothing that it depends on changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.pipeline import inputs
from koinize.pipeline.inputs import Inputs, survey
from koinize.spec import load
from tests.pipeline.conftest import SPEC, Small

KEYED = SPEC.replace("    labels", "    key: product\n    labels")


def surveyed(small: Small) -> Inputs:
    return survey(load(small.root / "koinize.yaml"), small.root, small.root / "memory.json")


def leak(small: Small) -> str:
    with pytest.raises(InputError) as caught:
        surveyed(small)
    return str(caught.value)


def write(small: Small, place: str, rows: list[dict[str, object]]) -> Path:
    path = small.root / "data" / f"{place}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def keyed(small: Small) -> None:
    small.spec(KEYED)
    for language in ("de", "en"):
        for split in ("train", "dev", "test"):
            row = {"text": f"{language} {split}", "label": "good", "product": f"{language}{split}"}
            write(small, f"{language}.{split}", [row])


def test_a_key_that_is_corrected_is_seen(small: Small) -> None:
    keyed(small)
    before = surveyed(small)
    row = {"text": "en test", "label": "good", "product": "entrain"}
    write(small, "en.test", [row])

    assert leak(small) == (
        "data/en.test.jsonl:1 leaks from data/en.train.jsonl:1: the same product, 'entrain'; "
        "keep it in one of the splits only"
    )
    write(small, "en.test", [{**row, "product": "other"}])
    assert surveyed(small) == before


@pytest.mark.parametrize(
    ("one", "other"), [(17, 17.0), (17, "17"), ("17.50", 17.5), ("caf\u00e9 ", "cafe\u0301")]
)
def test_keys_that_are_written_in_two_ways_are_one(
    small: Small, one: object, other: object
) -> None:
    keyed(small)
    write(small, "en.train", [{"text": "a", "label": "good", "product": one}])
    write(small, "de.test", [{"text": "b", "label": "good", "product": other}])

    assert "data/de.test.jsonl:1 leaks from data/en.train.jsonl:1: the same product" in leak(small)


@pytest.mark.parametrize(("one", "other"), [("007", "7"), ("17", "17.5"), ("a", "A"), ("-1", "1")])
def test_keys_that_differ_are_two(small: Small, one: object, other: object) -> None:
    keyed(small)
    write(small, "en.train", [{"text": "a", "label": "good", "product": one}])
    write(small, "de.test", [{"text": "b", "label": "good", "product": other}])

    assert surveyed(small).findings == ()


def test_a_warning_names_the_lines_of_today(small: Small) -> None:
    rows = [{"text": text, "label": "good"} for text in ("x", "y", "y")]
    write(small, "en.train", rows)
    (first,) = surveyed(small).findings
    write(small, "en.train", rows[1:] + rows[:1])
    (second,) = surveyed(small).findings

    assert first == "mood: data/en.train.jsonl:3 repeats data/en.train.jsonl:2: 'y'"
    assert second == "mood: data/en.train.jsonl:2 repeats data/en.train.jsonl:1: 'y'"


def new_times(path: Path) -> None:
    status = path.stat()
    content = path.read_text().replace("de train 0", "de train X")
    path.write_text(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_edit_that_keeps_size_and_time_is_seen(small: Small) -> None:
    """As rsync --times --inplace leaves one."""
    before = surveyed(small)
    new_times(small.root / "data" / "de.train.jsonl")

    assert surveyed(small).splits["mood", "de", "train"] != before.splits["mood", "de", "train"]


@pytest.mark.parametrize("what", ["READING", "__version__"])
def test_another_koinize_reads_again(
    small: Small, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    read = counted(monkeypatch)
    surveyed(small)
    surveyed(small)
    assert len(read) == 6
    monkeypatch.setattr(inputs, what, 99)
    surveyed(small)
    assert len(read) == 12


def test_two_tasks_over_one_file_are_both_remembered(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = SPEC.partition("  mood:\n")[2].partition("training:")[0]
    small.spec(SPEC.replace("training:", f"  other:\n{again}training:"))
    read = counted(monkeypatch)
    surveyed(small)
    surveyed(small)

    assert len(read) == 12


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are read from now on."""
    read: list[str] = []
    original: Callable[[str, Path], object] = inputs.read_rows

    def noted(source: str, root: Path) -> object:
        read.append(source)
        return original(source, root)

    monkeypatch.setattr(inputs, "read_rows", noted)
    return read

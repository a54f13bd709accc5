"""The paper's studies: their rows, their tables, and one of them on the generated base."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from koinize.errors import InputError
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.systems import distinct
from koinize.spec import load as load_spec
from koinize.spec.grid import PAPERS_EIGHT

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDER = EXAMPLES / "paper"
MODULES = {path.stem for path in FOLDER.glob("*.py")}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A module of the example by its name; other examples have modules of that name, too."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.mark.parametrize(
    "path",
    [*EXAMPLES.rglob("koinize.yaml"), *(FOLDER / "llama").glob("*.yaml")],
    ids=lambda path: str(path.relative_to(EXAMPLES)),
)
def test_every_specification_of_the_examples_is_read(path: Path) -> None:
    assert len(load_spec(path).languages) == 5


def test_six_configurations_are_the_papers_eight(load) -> None:
    ours = [MergeSettings.model_validate(one) for one in load("studies").DISTINCT.values()]
    eight = [MergeSettings.model_validate(one) for one in PAPERS_EIGHT]
    assert distinct(ours).keys() == distinct(eight).keys()
    assert len(ours) == 6


def test_generated_rows_are_the_same_for_every_length_and_in_one_split(load) -> None:
    generated = load("generated")
    few, many = (generated.rows("topic", "ja", "train", count, 3) for count in (6, 30))
    assert many[:6] == few
    splits = [generated.rows("topic", "ja", split, 30, 3) for split in ("train", "dev", "test")]
    assert len({row["text"] for rows in splits for row in rows}) == 90
    assert generated.rows("topic", "ja", "test", 5, 0) == generated.rows(
        "topic", "ja", "test", 5, 1
    )
    assert generated.rows("topic", "ja", "train", 5, 0) != generated.rows(
        "topic", "ja", "train", 5, 1
    )
    row = generated.rows("choice", "zh", "train", 2, 0)[1]
    assert row["title"] in row["options"]


def test_related_languages_share_half_of_their_words(load) -> None:
    generated = load("generated")

    def words(language: str) -> set[str]:
        rows = generated.rows("topic", language, "train", 300, 0)
        return {word for row in rows for word in row["text"].split()[1:]}

    assert len(words("de")) == 12  # four for each of three themes
    assert len(words("de") & words("fr")) == 6
    assert not words("de") & words("ja")
    assert len(set(generated.codes(50))) == 50


def test_a_table_says_the_mean_and_the_deviation_over_seeds(load) -> None:
    tables = load("tables")
    table = tables.Table("a title")
    for seed, value in enumerate((70.0, 72.0, 74.0)):
        table.add("ties", "de", seed, value)
    table.add("mean", "en", 0, 50.0)
    assert table.markdown() == (
        "**a title**\n\n|  | de | en |\n| --- | --- | --- |\n"
        "| ties | 72.0 ± 2.0 |  |\n| mean |  | 50.0 |\n"
    )


def test_data_that_is_not_there_is_one_message(load, tmp_path: Path) -> None:
    bench = load("projects").Bench(tmp_path, "gemma", 4, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"examples/debian/build\.py"):
        bench.run(0, "topic", ["ties"])


@pytest.mark.slow
def test_a_study_runs_on_the_generated_base_and_is_resumed(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, projects = load("study"), load("projects")
    monkeypatch.setitem(projects.EPOCHS, "tiny", 1)
    arguments = ["clusters", str(tmp_path), "--rows", "6", "--seeds", "0"]
    assert study.main(arguments) == 0
    written = (tmp_path / "clusters-tiny-6.md").read_text(encoding="utf-8")
    assert "knots-ties 0.5, de en fr, ja zh" in written
    ledger = tmp_path / "tiny-6" / "seed-0" / ".koinize" / "ledger.jsonl"
    before = ledger.read_bytes()
    capsys.readouterr()
    assert study.main(arguments) == 0
    assert (tmp_path / "clusters-tiny-6.md").read_text(encoding="utf-8") == written
    assert ledger.read_bytes() == before  # nothing was done again

"""`koinize export rows`: each answer once, as it was given, in CSV and in Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from koinize.tracking.rows import COLUMNS
from tests.cli.conftest import Call
from tests.pipeline.conftest import Small
from tests.release.releasing import ONE_MERGE, finish

SYSTEMS = {"BASE", "INDV", "COMB", "MEAN", "knots-ties density 1"}


@pytest.fixture
def done(small: Small) -> Small:
    finish(small, {"de": 3})
    return small


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_answer_is_there_once(koinize: Call, done: Small) -> None:
    code, out, err = koinize("export", "rows", "rows.csv", "small")
    found = table("rows.csv")
    assert (code, out, err) == (0, f"wrote {len(found)} rows to rows.csv\n", "")
    assert list(found[0]) == [*COLUMNS, "accuracy"]
    assert len({(one["system"], one["split"], one["key"]) for one in found}) == len(found)
    tested = Counter(one["system"] for one in found if one["split"] == "test")
    assert tested == {**dict.fromkeys(SYSTEMS, 800), "de only": 400, "en only": 400}
    assert {one["system"] for one in found if one["chosen"] == "true"} == {"knots-ties density 1"}
    wrong = [
        one
        for one in found
        if (one["system"], one["language"], one["split"]) == ("COMB", "de", "test")
    ]
    assert Counter(one["gold"] for one in wrong) == {"good": 200, "bad": 200}
    right = Counter((one["gold"] == one["prediction"], one["accuracy"]) for one in wrong)
    assert right == {(True, "100.0"): 397, (False, "0.0"): 3}
    assert {(one["tokens"], one["option_scores"]) for one in wrong} == {("", "")}


@pytest.mark.slow
def test_what_was_written_freely(koinize: Call, small: Small) -> None:
    small.spec(ONE_MERGE.replace("[accuracy]", "[accuracy, parsed]\n    free: true"))
    finish(small, {"de": 3})
    assert koinize("export", "rows", "rows.csv", "small")[0] == 0
    found = table("rows.csv")
    assert list(found[0]) == [*COLUMNS, "accuracy", "written", "answer", "parsed"]
    assert {(one["written"], one["parsed"]) for one in found if one["split"] == "dev"} == {("", "")}
    tested = [one for one in found if (one["system"], one["split"]) == ("COMB", "test")]
    said = Counter((one["written"], one["answer"], one["parsed"]) for one in tested)
    assert said.pop(("so so", "", "0.0")) == 3
    assert sum(said.values()) == 797
    assert set(said) == {("good", "good", "100.0"), ("bad", "bad", "100.0")}
    assert koinize("export", "rows", "rows.parquet", "small")[0] == 0
    schema = pyarrow.parquet.read_table("rows.parquet").schema
    assert [schema.field(one).type for one in ("written", "answer", "parsed")] == [
        pyarrow.string(),
        pyarrow.string(),
        pyarrow.float64(),
    ]


@pytest.mark.slow
def test_parquet_has_the_same(koinize: Call, done: Small) -> None:
    assert koinize("export", "rows", "rows.csv", "small")[0] == 0
    code, out, _ = koinize("export", "rows", "rows.parquet", "small")
    found = pyarrow.parquet.read_table("rows.parquet")
    assert (code, out) == (0, f"wrote {found.num_rows} rows to rows.parquet\n")
    plain = [
        {key: "" if value is None else str(value) for key, value in one.items()}
        for one in found.to_pylist()
    ]
    wanted = [{**one, "chosen": one["chosen"].capitalize()} for one in table("rows.csv")]
    assert plain == wanted
    assert found.schema.field("option_scores").type == pyarrow.list_(pyarrow.float64())


def test_scores_of_options_and_odd_texts(
    koinize: Call, done: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers to the last bit; in CSV nothing that a spreadsheet would compute."""
    row = {
        "key": '=2+3,"x"',
        "language": "de",
        "gold": "good",
        "prediction": "good",
        "scores": [-0.1, -1 / 3],
        "lengths": [1, 2],
    }
    monkeypatch.setattr("koinize.pipeline.judging.read_result_rows", lambda _: [row])
    assert koinize("export", "rows", "rows.csv", "small")[0] == 0
    assert koinize("export", "rows", "rows.parquet", "small")[0] == 0
    first = table("rows.csv")[0]
    assert (first["key"], first["option_tokens"]) == ('\'=2+3,"x"', "[1, 2]")
    assert json.loads(first["option_scores"]) == [-0.1, -1 / 3]
    (kept,) = pyarrow.parquet.read_table("rows.parquet").slice(0, 1).to_pylist()
    assert (kept["key"], kept["option_scores"]) == ('=2+3,"x"', [-0.1, -1 / 3])


@pytest.mark.slow
def test_its_own_file_is_replaced_and_no_other(koinize: Call, done: Small) -> None:
    for name in ("rows.csv", "rows.parquet"):
        assert koinize("export", "rows", name, "small")[0] == 0
        before = Path(name).read_bytes()
        assert koinize("export", "rows", name, "small")[0] == 0
        assert Path(name).read_bytes() == before
    Path("mine.csv").write_text("a,b\n1,2\n")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), "mine.parquet")
    Path("broken.parquet").write_text("PAR1")
    for name in ("mine.csv", "mine.parquet", "broken.parquet"):
        before = Path(name).read_bytes()
        assert koinize("export", "rows", name, "small") == (
            2,
            "",
            f"koinize: {name} is there already, and is no table of rows that koinize wrote; "
            "remove it or choose another name\n",
        )
        assert Path(name).read_bytes() == before


def test_bad_input(koinize: Call, small: Small) -> None:
    assert koinize("export", "rows", "rows.csv", "small") == (
        2,
        "",
        "koinize: task 'mood' has no rows to export: 'evaluate/mood/mean/de/dev' is missing; run "
        "`koinize run` first\n",
    )
    assert koinize("export", "rows", "rows.xlsx", "small") == (
        2,
        "",
        "koinize: 'rows.xlsx' is neither CSV nor Parquet; expected a name that ends in .csv or "
        ".parquet\n",
    )
    assert koinize("export", "rows", "rows.csv", "small", "--task", "modo")[2] == (
        "koinize: unknown task 'modo'; did you mean 'mood'?\n"
    )


def test_parquet_without_pyarrow(
    koinize: Call, done: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert koinize("export", "rows", "rows.parquet", "small") == (
        2,
        "",
        "koinize: writing Parquet needs pyarrow, which is not installed; pip install "
        "'koinize[parquet]', or write .csv\n",
    )

"""How fast each system was on test, by arithmetic on paper."""

from dataclasses import replace

from koinize.report import Evaluation, results
from koinize.report.render import sections
from tests.report.test_results import LEDGER, TASK, rows, source, work


def of(found, system):
    return [one for one in found["tasks"][0]["inference"] if one["system"] == system]


def written(system, language, tokens):
    answers = [{**row, "tokens": some} for row, some in zip(rows(language, 2), tokens, strict=True)]
    return Evaluation("t", system, language, "test", answers, "s")


SCORED = [
    *(one for one in LEDGER if not one.step.startswith("evaluate/t/m/en/test")),
    work("evaluate/t/m/en/test", 71, 1, group="g"),
]


def test_rows_and_seconds_of_all_languages():
    current = {one.address: one.artifact for one in SCORED}
    found = results(source(intervals=SCORED, current=current))
    # Four rows in each of two languages; 3 s in German, and 1 s in English.
    assert of(found, "m") == [
        {"system": "m", "rows": 8, "tokens": None, "seconds": 4.0, "shared": True}
    ]
    assert of(found, "COMB") == []  # nobody knows what its English took
    assert of(found, "twin") == []
    _, table = sections.get("inference").data(found)
    (row,) = table.rows
    assert [one.text for one in row] == ["m", "8", "8", "4.00 s", "2.0", "–"]
    assert row[3].below == "a part of the time of several systems"


def test_tokens_that_were_written():
    evaluations = [written("m", "de", [5, 6, 7, 2]), written("m", "en", [0, 1, 2, 3])]
    current = {one.address: one.artifact for one in SCORED}
    task = replace(TASK, labels=(), evaluations=evaluations)
    found = results(source(tasks=[task], intervals=SCORED, current=current))
    assert of(found, "m")[0]["tokens"] == 26
    _, table = sections.get("inference").data(found)
    assert table.rows[0][-1].text == "6.5"


def test_work_that_the_ledger_lacks_is_not_shown():
    found = results(source())  # English was interrupted
    assert of(found, "m") == []
    assert sections.get("inference").data(found) == []

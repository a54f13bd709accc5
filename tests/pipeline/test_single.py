"""The baseline of one language's adapter for all: chosen on dev, and nothing trained for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinize.pipeline import report_input
from koinize.pipeline.systems import only
from koinize.report import results
from koinize.report.blocks import Paragraph
from koinize.report.render import sections
from tests.pipeline.conftest import SPEC, Small
from tests.release.releasing import ONE_MERGE, finish, prepared

ALL = "baselines: [base, indv, cross, comb, mean]\n"
WITH_SINGLE = "baselines: [base, indv, cross, single, comb, mean]\n"


def test_it_adds_scores_on_dev_a_choice_and_scores_on_test_and_changes_nothing_else(
    small: Small,
) -> None:
    small.spec(SPEC + ALL)
    before = {name: step.id for name, step in small.steps().items()}
    small.spec(SPEC + WITH_SINGLE)
    steps = small.steps()
    after = {name: step.id for name, step in steps.items()}
    assert before == {name: after[name] for name in before}
    assert after.keys() - before.keys() == {
        *(
            f"evaluate/mood/{owner} only/{language}/dev/single"
            for owner in ("de", "en")
            for language in ("de", "en")
        ),
        "select/mood/single",
        "evaluate/mood/SINGLE/de/test",
        "evaluate/mood/SINGLE/en/test",
    }
    choice = steps["select/mood/single"]
    assert choice.uses.candidates == {
        only(one): steps[f"train/mood/{one}"].id for one in ("de", "en")
    }
    by_id = {step.id: step for step in steps.values()}
    assert {by_id[one].split for one in choice.uses.scores.values()} == {"dev"}
    tested = [step for step in steps.values() if step.split == "test"]
    assert all(choice.id in step.needs for step in tested)  # no test score comes before the choice


@pytest.mark.slow
def test_the_report_says_whose_adapter_it_is_and_compares_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_input, "interference", lambda *_: None)  # of adapters that are none
    monkeypatch.setattr("koinize.model.base.identity", lambda *_: "b" * 64)
    small = prepared(tmp_path)
    small.spec(ONE_MERGE + WITH_SINGLE)
    found = results(report_input.gather(finish(small)))
    (task,) = found["tasks"]
    (single,) = (one for one in task["systems"] if one["kind"] == "single")
    assert (single["name"], single["settings"]) == ("SINGLE", {"adapter": "de"})
    compared = [row for row in task["verdicts"] if row["reference"] == "SINGLE"]
    assert {(row["system"], row["language"]) for row in compared} == {
        (task["chosen"], "de"),
        (task["chosen"], "en"),
    }
    said = [one.text for one in sections.get("summary").data(found) if isinstance(one, Paragraph)]
    assert (
        "On test against SINGLE, the adapter of de for every language, with a margin of 2 points: "
        "not worse in every language."
    ) in said
    assert "accuracy: knots-ties density 1 minus SINGLE, on test, in points" in str(
        sections.get("verdicts").html(found)
    )

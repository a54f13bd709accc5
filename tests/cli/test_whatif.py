"""`koinize whatif`: the steps, the figures and the messages, with the model's work faked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from koinize.errors import InputError
from koinize.merge.recipe import MergeSettings
from koinize.pipeline import Project, work
from koinize.pipeline.systems import system_of
from koinize.pipeline.whatif import Question, changed, inquire, leave_one_out
from koinize.pipeline.work import Job
from koinize.release import garbage
from koinize.store import Draft, Store
from tests.cli.conftest import Call
from tests.pipeline.conftest import Small, done_by
from tests.release.releasing import ONE_MERGE, answers, finish, prepared

ROWS = 400
TWO_MERGES = ONE_MERGE.replace("[knots-ties]", "[knots-ties, ties]")  # the first one is chosen


@pytest.fixture
def small(tmp_path: Path) -> Small:
    project = prepared(tmp_path)
    project.spec(TWO_MERGES)
    for language in ("de", "en"):
        project.rows(language, "dev", [f"{language} dev {n}" for n in range(ROWS)])
    return project


@pytest.fixture
def call(call: Call, small: Small, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Every merge without de is wrong on 40 of the 400 German rows; the others are right."""

    def merge(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
        (draft.folder / "adapter_model.safetensors").write_text(" ".join(job.step.uses.adapters))
        return {}

    def evaluate(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
        merged = store.open(job.step.uses.adapter)
        without_de = "de" not in merged.path("adapter_model.safetensors").read_text().split()
        project = Project.at(small.root / "koinize.yaml")
        rows = answers(project, job.step.languages[0], "dev", {"de": 40} if without_de else {})
        (draft.folder / "rows.jsonl").write_text(rows)
        return {}

    monkeypatch.setattr(work, "_load_first", lambda job: 0.0)
    monkeypatch.setattr("koinize.pipeline.kinds.merge.perform", merge)
    monkeypatch.setattr("koinize.pipeline.kinds.evaluate.perform", evaluate)
    done_by(monkeypatch, work.perform)
    return call


@pytest.mark.slow
def test_a_language_left_out(call: Call, small: Small) -> None:
    finish(small)
    before = len(json.loads(call("plan", "--json")[1])["missing"])
    code, out, err = call("whatif", "--without", "de")
    assert err == ""
    assert (code, before) == (0, 0)
    lines = out.splitlines()
    assert lines[0].startswith("3 steps and no training: about ")
    assert lines[4] == "mood: knots-ties density 1, without de"
    assert lines[5] == (
        "accuracy on dev in points, against knots-ties density 1, the merge chosen on dev"
    )
    table = [line.split() for line in lines[6:]]
    assert table[0][:5] == ["language", "now", "then", "change", "95"]
    assert table[1][:6] == ["de", "left", "out", "100.00", "90.00", "-10.00"]
    assert table[1][-1] == "worse"
    assert table[2][:4] == ["en", "100.00", "100.00", "+0.00"]
    assert table[3][:5] == ["mean", "of", "the", "others", "+0.00"]
    # Asked again, it costs nothing; and no plan of the project knows of it.
    assert call("whatif", "--without", "de")[1].splitlines() == lines[4:]
    assert json.loads(call("plan", "--json")[1])["missing"] == []


@pytest.mark.slow
def test_the_matrix(call: Call, small: Small) -> None:
    finish(small)
    code, out, _ = call("whatif", "--each")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("6 steps and no training: about ")
    table = [line.split() for line in lines[-6:-2]]
    assert table == [
        ["left", "out", "de", "en", "mean", "of", "the", "others"],
        ["de", "(-10.00*)", "+0.00", "+0.00"],
        ["en", "+0.00", "(+0.00", ")", "+0.00"],
        ["rows", "400", "400"],
    ]


@pytest.mark.slow
def test_json_has_every_figure(call: Call, small: Small) -> None:
    finish(small)
    told = json.loads(call("whatif", "--weight", "en=2", "--without", "de", "--json")[1])
    assert (told["task"], told["metric"], told["split"]) == ("mood", "accuracy", "dev")
    assert told["changed"] == told["compared_with"] == "knots-ties density 1"
    [answer] = told["answers"]
    assert answer["question"] == "without de, en=2"
    assert (answer["without"], answer["weights"]) == (["de"], {"en": 2.0})
    german, english = answer["languages"]
    assert (german["language"], german["left_out"], german["n"]) == ("de", True, ROWS)
    assert (german["before"], german["after"], german["difference"]) == (100.0, 90.0, -10.0)
    assert german["low"] < -10 < german["high"] < 0
    assert not english["left_out"]
    assert answer["mean"]["value"] == 0
    assert answer["mean"]["n"] == ROWS
    assert len(told["done"]["missing"]) == 3


@pytest.mark.slow
def test_a_candidate_without_a_rival_is_scored_on_dev_when_asked(call: Call, small: Small) -> None:
    small.spec(ONE_MERGE)
    project = finish(small)
    evaluated = {(one.system.title, one.split) for one in project.steps if one.kind == "evaluate"}
    assert ("knots-ties density 1", "test") in evaluated
    assert ("knots-ties density 1", "dev") not in evaluated
    code, out, _ = call("whatif", "--without", "de")
    assert code == 0
    assert out.startswith("5 steps and no training: about ")
    table = [line.split() for line in out.splitlines()[-4:]]
    assert table[1][:6] == ["de", "left", "out", "100.00", "90.00", "-10.00"]
    assert call("whatif", "--without", "de")[1].startswith("mood: knots-ties")


def test_only_dev_is_scored(call: Call, small: Small) -> None:
    project = finish(small)
    inquiry = inquire(project, "mood", [Question(without=("de",))])
    [variant] = inquiry.variants
    steps = [variant.merge, *variant.evaluations.values()]
    assert {step.split for step in variant.evaluations.values()} == {"dev"}
    assert {step.kind for step in steps} == {"merge", "evaluate"}
    assert all(step.name.startswith("whatif/") for step in steps)
    assert set(variant.merge.uses.adapters) == {"en"}


def test_the_merge_is_the_one_of_a_project_without_the_language(call: Call, small: Small) -> None:
    project = finish(small)
    [variant] = inquire(project, "mood", [Question(without=("de",))]).variants
    small.spec(TWO_MERGES.replace("[en, de]", "[en]"))
    after = {step.name: step.id for step in Project.at(small.root / "koinize.yaml").steps}
    assert variant.merge.id == after["merge/mood/knots-ties density 1"]
    english = variant.evaluations["en"].id
    assert english == after["evaluate/mood/knots-ties density 1/en/dev"]


@pytest.mark.slow
def test_nothing_is_pinned(call: Call, small: Small) -> None:
    finish(small)
    call("whatif", "--without", "de")
    project = Project.at(small.root / "koinize.yaml")
    assert {one.name for one in garbage(project)} == {
        "whatif/merge/mood/knots-ties density 1, without de",
        "whatif/evaluate/mood/knots-ties density 1, without de/de/dev",
        "whatif/evaluate/mood/knots-ties density 1, without de/en/dev",
    }
    call("gc", "--delete")
    assert not garbage(project)
    assert call("whatif", "--without", "de")[1].startswith("3 steps and no training")


@pytest.mark.slow
def test_another_candidate_is_also_shown_as_it_is(call: Call, small: Small) -> None:
    small.spec(ONE_MERGE.replace("[knots-ties]", "[knots-ties, {recipe: ties, density: [0.3, 1]}]"))
    finish(small)
    code, out, _ = call("whatif", "--recipe", "ties density 0.3", "--without", "de")
    assert code == 0
    heads = [line for line in out.splitlines() if line.startswith("mood: ")]
    assert heads == ["mood: ties density 0.3, as it is", "mood: ties density 0.3, without de"]
    assert "against knots-ties density 1, the merge chosen on dev" in out
    assert call("whatif", "--recipe", "ties", "--without", "de") == (
        2,
        "",
        "koinize: 2 candidates have the recipe 'ties'; expected one of: ties density 0.3, ties "
        "density 1\n",
    )
    told = json.loads(call("whatif", "--recipe", "knots-ties", "--without", "de", "--json")[1])
    assert len(told["answers"]) == 1  # it is the chosen one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is asked; expected --without LANGUAGE, --weight LANGUAGE=NUMBER or --each"),
        (["--without", "dee"], "unknown language 'dee'; did you mean 'de'?"),
        (["--weight", "fr=2"], "unknown language 'fr'; choose one of: de, en"),
        (
            ["--weight", "de=much"],
            "--weight 'de=much' has no number; expected LANGUAGE=NUMBER, such as ja=2",
        ),
        (
            ["--weight", "de"],
            "--weight 'de' has no number; expected LANGUAGE=NUMBER, such as ja=2",
        ),
        (
            ["--weight", "de=2", "--weight", "de=3"],
            "'de' is given twice; expected each once, as --weight LANGUAGE=NUMBER",
        ),
        (["--weight", "de=nan"], "weights['de'] is nan; expected a finite number"),
        (
            ["--without", "de", "--without", "en"],
            "every language is left out, so there is nothing to merge",
        ),
        (["--without", "de", "--weight", "de=2"], "'de' is left out, so it has no weight"),
        (
            ["--each", "--without", "de"],
            "--each leaves out one language after the other; give it alone",
        ),
        (
            ["--recipe", "knots-tie"],
            "there is no candidate 'knots-tie'; did you mean 'knots-ties density 1'?",
        ),
        (["--each", "--task", "food"], "unknown task 'food'; did you mean 'mood'?"),
    ],
)
def test_bad_inputs(call: Call, small: Small, arguments: list[str], message: str) -> None:
    finish(small)
    assert call("whatif", *arguments) == (2, "", f"koinize: {message}\n")


def test_one_branch_alone_cannot_be_left_out() -> None:
    """The project may have more languages: those that are still in the trunk."""
    with pytest.raises(InputError, match="only 'ja' is merged, so it cannot be left out"):
        leave_one_out(["ja"])


def test_nothing_is_trained_yet(call: Call) -> None:
    assert call("whatif", "--each") == (
        2,
        "",
        "koinize: task 'mood' has no merge to ask about: 'select/mood' is missing; run `koinize "
        "run` first\n",
    )


def test_two_tasks_have_to_be_told_apart(call: Call, small: Small) -> None:
    block = ONE_MERGE[ONE_MERGE.index("  mood:") : ONE_MERGE.index("training:")]
    small.spec(ONE_MERGE.replace(block, block + block.replace("mood", "more")))
    assert call("whatif", "--each") == (
        2,
        "",
        "koinize: the project has 2 tasks; expected --task with one of: mood, more\n",
    )


def test_a_failure_is_exit_code_1(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(small)
    monkeypatch.setattr("koinize.pipeline.kinds.merge.perform", lambda *_: 1 / 0)
    code, _, err = call("whatif", "--without", "de")
    assert code == 1
    assert err.startswith("koinize: whatif/merge/mood/knots-ties density 1, without de failed")


def test_ctrl_c_is_exit_code_130(call: Call, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    finish(small)
    monkeypatch.setattr("koinize.pipeline.kinds.merge.perform", stop)
    code, _, err = call("whatif", "--without", "de")
    assert (code, err) == (130, "koinize: stopped; finished steps are kept, run again to go on\n")


def test_settings_name_nobody_who_is_left_out() -> None:
    settings = MergeSettings(
        recipe="ties",
        density=0.5,
        weights={"de": 3, "ja": 2},
        overrides={"a.*": {"weights": {"ja": 4}}, "b.*": {"density": 0.1, "weights": {"de": 2}}},
    )
    left = changed(
        settings, Question(without=("ja",), weights={"de": 1.0, "en": 5.0}), ("de", "en")
    )
    assert left == MergeSettings(
        recipe="ties",
        density=0.5,
        weights={"en": 5},
        overrides={"b.*": {"density": 0.1, "weights": {"de": 2}}},
    )
    assert system_of(changed(settings, Question(), ("de", "ja"))) == system_of(settings)

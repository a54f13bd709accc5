"""Structures: groups of languages that are merged first, and tasks that share one adapter."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from koinize.cli import application
from koinize.digest import digest
from koinize.errors import InputError
from koinize.merge.division import divided
from koinize.merge.recipe import MergeSettings
from koinize.metrics import metrics
from koinize.pipeline.across import spelled_out
from koinize.pipeline.experience import learn
from koinize.pipeline.plan import plan
from koinize.pipeline.systems import among
from koinize.pipeline.whatif import Question, changed
from koinize.release.archive import Releases
from koinize.spec.edit import add_language, remove_language
from koinize.spec.splice import YamlText
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small
from tests.pipeline.ledgers import interval
from tests.pipeline.test_plan import PRICE, commit
from tests.test_end_to_end import artifacts

GROUPED = SPEC.replace("languages: [en, de]", "languages: [en, de, ja]").replace(
    "candidates: [paper]", "candidates: [mean, {recipe: mean, groups: [[de, en]]}]"
)


@pytest.fixture
def grouped(small: Small) -> Small:
    """German and English are merged first; Japanese is in no group."""
    for split in ("train", "dev", "test"):
        small.rows("ja", split, [f"ja {split} {n}" for n in range(4)])
    small.spec(GROUPED)
    return small


@pytest.mark.parametrize(
    ("groups", "merged", "expected"),
    [
        ([["de", "en"], ["ja"]], ("de", "en", "ja"), [["de", "en"], ["ja"]]),
        ([["de", "en"]], ("de", "en", "ja"), [["de", "en"], ["ja"]]),  # its own group
        ([["de", "en"], ["ja"]], ("de", "ja"), []),  # every group has one name
        ([["de", "en"], ["ja"]], ("de", "en"), []),  # there is one group
        ([], ("de", "en"), []),
    ],
)
def test_what_is_merged_is_divided(groups, merged, expected) -> None:
    stated = MergeSettings(recipe="mean", groups=groups).groups
    assert divided(stated, merged) == tuple(map(tuple, expected))
    assert among(MergeSettings(recipe="mean", groups=groups), merged).groups == divided(
        stated, merged
    )


def test_groups_are_a_candidate_beside_others(grouped: Small) -> None:
    steps = grouped.steps()
    apart, first = (steps[f"merge/mood/mean{one}"] for one in ("", " groups de+en,ja"))
    assert first.merge
    assert first.merge.groups == (("de", "en"), ("ja",))
    assert first.uses == apart.uses
    assert first.id != apart.id


def test_the_order_of_groups_is_no_part_of_an_identity(grouped: Small) -> None:
    before = {step.id for step in grouped.steps().values()}
    grouped.spec(GROUPED.replace("[[de, en]]", "[[ja], [en, de]]"))
    assert {step.id for step in grouped.steps().values()} == before


def test_groups_that_divide_nothing_are_the_merge_without_them(grouped: Small) -> None:
    grouped.spec(GROUPED.replace("[[de, en]]", "[[ja], [en], [de]]"))
    merges = {one.id for one in grouped.steps().values() if one.kind == "merge"}
    grouped.spec(GROUPED.replace(", {recipe: mean, groups: [[de, en]]}", ""))
    assert merges == {one.id for one in grouped.steps().values() if one.kind == "merge"}


def test_a_group_whose_weights_are_0_is_refused_before_anything_is_trained(grouped: Small) -> None:
    text = GROUPED.replace("[[de, en]]", "[[de, en]], weights: {de: 0, en: 0}")
    grouped.spec(text)
    with pytest.raises(InputError) as caught:
        grouped.steps()
    assert str(caught.value) == (
        "merge.candidates 'mean weights de=0,en=0 groups de+en' gives every language of a group "
        "the weight 0: de, en; give one of them a weight"
    )


def test_languages_come_and_go(grouped: Small) -> None:
    for split in ("train", "dev", "test"):
        grouped.rows("sw", split, [f"sw {split} {n}" for n in range(4)])
    grouped.spec(add_language(YamlText(GROUPED, "koinize.yaml"), "sw", {}).file.text)
    assert "merge/mood/mean groups de+en,ja,sw" in grouped.steps()
    grouped.spec(remove_language(YamlText(GROUPED, "koinize.yaml"), "ja").file.text)
    assert {one for one in grouped.steps() if one.startswith("merge")} == {
        "merge/mood/mean",
        "merge/mood/mean scale 2",
    }


def test_of_branches_only_those_are_grouped(grouped: Small) -> None:
    settings = MergeSettings(recipe="sum", groups=(("de", "en"), ("ja",)))
    assert among(settings, ["de", "en", "ja"]) == settings
    assert among(settings, ["de", "ja"]) == MergeSettings(recipe="sum")


def test_a_question_leaves_a_language_out_of_its_group() -> None:
    settings = MergeSettings(recipe="mean", groups=(("de", "en", "fr"), ("ja",)))
    left = changed(settings, Question(without=("fr",)), ["de", "en", "ja"])
    assert left.groups == (("de", "en"), ("ja",))


SECOND = """  tone:
    kind: classify
    data: tone/{language}.{split}.jsonl
    labels: [good, bad]
    prompt: "{text} :"
    metrics: [accuracy]
    margins: {accuracy: 4}
"""
SHARED = SPEC.replace("training:", SECOND + "training:").replace(
    "candidates: [paper]", "across: [tone, mood], candidates: [mean, {recipe: sum, scale: 0.5}]"
)
PARTS = ["mood.de", "mood.en", "tone.de", "tone.en"]


@pytest.fixture
def shared(small: Small) -> Small:
    """Two tasks whose adapters are merged into one."""
    (small.root / "tone").mkdir()
    for path in (small.root / "data").iterdir():
        text = path.read_text(encoding="utf-8").replace("de ", "Ton de ").replace("en ", "Tone ")
        (small.root / "tone" / path.name).write_text(text, encoding="utf-8")
    small.spec(SHARED)
    return small


def test_an_adapter_for_two_tasks_is_made_and_chosen_once(shared: Small) -> None:
    steps = shared.steps()
    for what in ("merge/{}/mean", "merge/{}/sum scale 0.5", "select/{}"):
        assert steps[what.format("mood")].id == steps[what.format("tone")].id
    merge = steps["merge/mood/mean"]
    assert sorted(merge.uses.adapters) == PARTS
    assert merge.uses.adapters["tone.de"] == steps["train/tone/de"].id
    assert {place for _, place in steps["select/mood"].uses.scores} == set(PARTS)


def test_each_task_has_baselines_and_scores_of_its_own(shared: Small) -> None:
    steps = shared.steps()
    assert sorted(steps["merge/mood/mean/mean"].uses.adapters) == ["de", "en"]
    assert steps["evaluate/tone/mean/de/test"].uses.adapter == steps["merge/mood/mean"].id
    assert steps["evaluate/tone/MEAN/de/test"].uses.choice == steps["select/tone/mean"].id
    both = {steps["select/mood"].id, steps["select/tone/mean"].id}
    assert both <= set(steps["evaluate/tone/mean/de/test"].after)


def test_every_step_comes_after_its_needs_across_tasks(shared: Small) -> None:
    seen: set[str] = set()
    for step in shared.steps().values():
        assert set(step.needs) <= seen
        seen.add(step.id)


def test_tasks_that_share_nothing_are_what_they_were(shared: Small) -> None:
    before = shared.steps()
    shared.spec(SHARED.replace("across: [tone, mood], ", ""))
    after = shared.steps()
    same = {name for name in after if name in before and after[name].id == before[name].id}
    assert {name for name in after if name.startswith(("train/", "evaluate/mood/INDV"))} <= same
    metric = after["select/mood"].inputs["metric"]
    assert metric == digest(["macro-f1", ["good", "bad"]])  # as it always was


def test_one_language_changed_trains_one_adapter_of_one_task(shared: Small) -> None:
    before = {name: step.id for name, step in shared.steps().items()}
    shared.rows("de", "train", [f"de train {n}" for n in range(6)])
    after = shared.steps()
    changed = {name for name, step in after.items() if step.id != before[name]}
    assert {name for name in changed if name.startswith("train/")} == {
        "train/mood/de",
        "train/mood/comb",  # which is kept where it was made before
    }
    assert {"merge/mood/mean", "merge/tone/mean", "evaluate/tone/mean/en/test"} <= changed


@pytest.mark.parametrize(("task", "folder"), [("mood", "data"), ("tone", "tone")])
def test_an_update_of_one_task_is_tested_and_chosen_in_both(
    task: str, folder: str, shared: Small, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home")
    for one in shared.steps().values():
        commit(store, one)
    rows = shared.root / folder / "de.train.jsonl"
    rows.write_text(rows.read_text() + '{"text": "one more", "label": "bad"}\n')
    steps = shared.steps()
    took = {"train": "1", "merge": "5", "select": "2"}
    history = [*(interval(kind, took[kind], 1) for kind in took), interval("evaluate", "1", 10)]
    found = plan(list(steps.values()), store, learn(history), 1, PRICE).comparison
    assert found is not None
    assert found.tasks == (task,)

    def scoring(split: str, *systems: str) -> float:
        names = product(("mood", "tone"), systems, ("de", "en"))
        return sum(steps[f"evaluate/{t}/{s}/{one}/{split}"].units / 10 for t, s, one in names)

    # The first candidate stands for the one that is released: it serves both tasks.
    trained = steps[f"train/{task}/de"].units + 5
    tested = trained + scoring("test", "mean")
    chosen = tested + 5 + scoring("dev", "mean", "sum scale 0.5") + 2
    assert [one.update.machine.value for one in found.scopes] == pytest.approx(
        [trained, tested, chosen]
    )
    comb = steps[f"train/{task}/comb"].units
    own = sum(steps[f"evaluate/{task}/COMB/{one}/test"].units / 10 for one in ("de", "en"))
    assert [one.retrain.machine.value for one in found.scopes] == pytest.approx(
        [comb, comb + own, comb + own]
    )


def test_a_task_that_joins_another_is_set_up_with_the_merges_of_both(
    shared: Small, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home")
    steps = shared.steps()
    for one in (one for one in steps.values() if (one.kind, one.task) == ("train", "mood")):
        commit(store, one)
    history = [interval("train", "1", 1), interval("merge", "5", 1)]
    found = plan(list(steps.values()), store, learn(history), 1, PRICE).set_up
    assert found is not None
    assert found.tasks == ("tone",)
    trained = sum(steps[f"train/tone/{one}"].units for one in ("de", "en"))
    merges = {one.id for one in steps.values() if (one.kind, one.task) == ("merge", "tone")}
    assert steps["merge/mood/mean"].id in merges
    assert found.merged.machine.value == pytest.approx(trained + 5 * len(merges))


def test_a_margin_weighs_a_task_in_the_choice(shared: Small) -> None:
    before = shared.steps()
    shared.spec(SHARED.replace("accuracy: 4", "accuracy: 2"))
    after = shared.steps()
    changed = {name for name, step in after.items() if step.id != before[name].id}
    tests = {name for name in changed if name.startswith("evaluate")}
    assert changed - tests == {"select/mood", "select/tone"}
    assert tests == set()  # they only come after it


@pytest.mark.parametrize(
    ("stated", "weights"),
    [
        ({"de": 2.0}, {"mood.de": 2.0, "tone.de": 2.0}),
        ({"tone": 3.0}, {"tone.de": 3.0, "tone.en": 3.0}),
        ({"de": 2.0, "tone": 3.0}, {"mood.de": 2.0, "tone.de": 6.0, "tone.en": 3.0}),
        ({"tone": 2.0, "tone.de": 0.5}, {"tone.en": 2.0}),
    ],
)
def test_a_weight_may_name_a_task_a_language_or_one_of_both(stated, weights) -> None:
    assert spelled_out(MergeSettings(recipe="sum", weights=stated), PARTS).weights == weights


@pytest.mark.parametrize(
    ("stated", "groups"),
    [
        ([["mood"], ["tone"]], [["mood.de", "mood.en"], ["tone.de", "tone.en"]]),
        ([["de"], ["en"]], [["mood.de", "tone.de"], ["mood.en", "tone.en"]]),
        ([["mood.de", "tone"]], [["mood.de", "tone.de", "tone.en"]]),
    ],
)
def test_a_group_may_name_them_too(stated, groups) -> None:
    found = spelled_out(MergeSettings(recipe="mean", groups=stated), PARTS).groups
    assert [list(group) for group in found] == groups


def test_overrides_name_every_part_that_they_change() -> None:
    """Also where that is a weight of 1, which takes the one for all modules back."""
    overrides = {"q_proj": {"weights": {"mood": 1.0, "de": 2.0}, "scale": 2.0}}
    found = spelled_out(MergeSettings(recipe="sum", overrides=overrides), PARTS).overrides
    assert found["q_proj"]["weights"] == {"mood.de": 2.0, "mood.en": 1.0, "tone.de": 2.0}
    assert found["q_proj"]["scale"] == 2.0


def test_a_part_in_two_groups_is_refused() -> None:
    with pytest.raises(InputError, match=r"'mood.de' stands 2 times in the groups"):
        spelled_out(MergeSettings(recipe="mean", groups=(("mood",), ("de",))), PARTS)


def test_a_removed_language_leaves_weights_and_groups_of_every_task() -> None:
    stated = "{recipe: mean, weights: {tone.de: 2, tone: 3}, groups: [[mood.de, en], [tone.de]]}"
    text = SHARED.replace("{recipe: sum, scale: 0.5}", stated)
    left = remove_language(YamlText(text, "koinize.yaml"), "de").file.text
    assert "{recipe: mean, weights: {tone: 3}, groups: [[en]]}" in left


def test_a_question_is_asked_of_a_language_in_every_task() -> None:
    settings = MergeSettings(recipe="sum", weights={"tone.de": 2.0})
    found = changed(settings, Question(weights={"en": 3.0}), ["mood.en", "tone.en"])
    assert found.weights == {"mood.en": 3.0, "tone.en": 3.0}


TONE = """  tone:
    kind: classify
    labels: [good, bad]
    verbalizers: {good: "1", bad: "0"}
    prompt: "{text} # "
    metrics: [accuracy]
lora:"""
CANDIDATES = "across: [mood, tone]\n  candidates: [mean, {recipe: mean, groups: [[mood], [tone]]}]"


@pytest.mark.slow
def test_two_tasks_with_one_adapter_from_the_rows_to_a_release(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    koinize("init", "--example", "tiny", "project")
    project = tmp_path / "project"
    monkeypatch.chdir(project)
    file = project / "koinize.yaml"
    text = file.read_text().replace("lora:", TONE, 1).replace("epochs: 4", "epochs: 2")
    before, _, rest = text.partition("candidates:")
    after = rest[rest.index("  mean_scales") :] + "baselines: [base, comb, mean]\n"
    file.write_text(f"{before}{CANDIDATES}\n{after}machine: {{executor: inline}}\n")
    koinize("run")
    made = artifacts(project)
    assert made["select/mood"]["id"] == made["select/tone"]["id"]
    means = made["select/mood"]["facts"]["means"]
    assert sorted(means) == [
        "mean",
        "mean groups mood.de+mood.en+mood.ja,tone.de+tone.en+tone.ja",
    ]
    assert means["mean"] == pytest.approx(sum(in_margins(project, made, "mean")))
    shared = "One adapter serves mood, tone, so the choice is one for all of them"
    assert shared in " ".join(koinize("report").split())
    for task, other in (("mood", "tone"), ("tone", "mood")):
        koinize("promote", "--task", task)
        release = Releases(project / ".koinize", task).open(1)
        assert release.record["adapter"] == made["select/mood"]["facts"]["adapter"]
        assert 'language: ["de", "en", "ja"]' in (release.folder / "README.md").read_text()
        data = release.read_json("evidence/evidence.json")["data"]
        assert {"train rows ja", f"{other}: train rows ja"} <= data.keys()
    asked = koinize("whatif", "--without", "ja", "--task", "tone", "--json")
    assert json.loads(asked)
    koinize("language", "remove", "ja")
    plan = json.loads(koinize("plan", "--json"))
    why = {one["step"]: one["why"] for one in plan["missing"]}
    assert "train/mood/comb" in why  # COMB of two languages; no other training
    assert not {one for one in why if one.startswith("train/") and not one.endswith("/comb")}
    merges = {one for one in why if one.startswith("merge/") and not one.endswith("/mean/mean")}
    assert len(merges) == 1  # of the two candidates the question has made one, for both tasks


def koinize(*arguments: str) -> str:
    """What the command prints, in this process."""
    done = CliRunner().invoke(application(), arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def in_margins(project: Path, made: dict[str, dict[str, Any]], title: str) -> list[float]:
    """The means over languages on dev, in margins of their metrics, from the rows themselves."""
    found = []
    for task, name in (("mood", "macro-f1"), ("tone", "accuracy")):
        metric = metrics.get(name).over(("good", "bad"))
        scores = []
        for language in ("de", "en", "ja"):
            one = made[f"evaluate/{task}/{title}/{language}/dev"]["id"]
            lines = (project / ".koinize" / "artifacts" / one / "rows.jsonl").read_text()
            rows = [json.loads(line) for line in lines.splitlines()]
            scores.append(metric.aggregate(metric.statistics(rows).sum(axis=0)))
        found.append(sum(scores) / 3 / metric.margin)
    return found

"""Further seeds: what they repeat, under which names and identities, and when it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.pipeline.seeds import further_of
from koinize.pipeline.step import SEED, Step
from koinize.settings import LoraSpec, TrainingSpec
from koinize.spec import load
from tests.pipeline.conftest import SPEC, Small, done_by
from tests.pipeline.test_tries import BADLY, BRIEF, Tried, koinize

SEEDS = "{epochs: 2, seeds: 3}"
TWO = BRIEF.replace("candidates: [sum]", "candidates: [sum, ties]")


def with_seeds(text: str, training: str = SEEDS) -> str:
    return text.replace("{epochs: 2}", training)


def further(steps: dict[str, Step]) -> dict[str, Step]:
    return {name: step for name, step in steps.items() if step.seed}


@pytest.fixture
def tried(small: Small, monkeypatch: pytest.MonkeyPatch) -> Tried:
    small.spec(with_seeds(BRIEF))
    found = Tried(small)
    done_by(monkeypatch, found.perform)
    return found


def test_the_first_seed_is_what_it_was_without_any(small: Small) -> None:
    small.spec(BRIEF)
    alone = {name: step.id for name, step in small.steps().items()}
    small.spec(with_seeds(BRIEF))
    steps = small.steps()
    assert {name: step.id for name, step in steps.items() if not step.seed} == alone
    assert set(further(steps)) == {
        name
        for number in (1, 2)
        for name in (
            *(f"train/mood/seed {number}/{one}" for one in ("de", "en", "comb")),
            f"merge/mood/seed {number}/sum",
            *(
                f"evaluate/mood/seed {number}/{system}/{one}/test"
                for system in ("sum", "COMB")
                for one in ("de", "en")
            ),
        )
    }
    assert len({step.id for step in steps.values()}) == len(steps)


def test_seeds_and_tries_never_meet() -> None:
    trainings = [TrainingSpec(seed=7).of_try(t, s).seed for t in range(1, 22) for s in range(20)]
    assert len(set(trainings)) == 21 * 20
    assert TrainingSpec(seed=7).of_try(2, 3).seed == 3008
    assert LoraSpec().of_try(1, 2).seed == 2000
    assert TrainingSpec(seeds=5).identity == TrainingSpec().identity


def test_that_the_seed_is_another_is_said_once(small: Small) -> None:
    small.spec(with_seeds(BRIEF))
    steps = small.steps()
    first, other = steps["train/mood/de"], steps["train/mood/seed 2/de"]
    assert {**other.inputs} == {**first.inputs, SEED: other.inputs[SEED]}
    assert [further_of(one) for one in (first, other)] == [0, 2]
    merge, again = steps["merge/mood/sum"], steps["merge/mood/seed 2/sum"]
    assert merge.inputs == again.inputs
    assert again.uses.adapters["de"] == other.id
    score = steps["evaluate/mood/seed 2/sum/de/test"]
    assert score.uses.adapter == again.id
    assert set(score.after) == set(steps["evaluate/mood/sum/de/test"].after)


def test_until_dev_has_chosen_the_merge_waits(tried: Tried) -> None:
    tried.small.spec(with_seeds(TWO))
    planned = further(tried.steps)
    assert {name for name, one in planned.items() if one.waits} == {
        f"{kind}/mood/seed {number}/sum{rest}"
        for number in (1, 2)
        for kind, rest in (("merge", ""), ("evaluate", "/de/test"), ("evaluate", "/en/test"))
    }
    done = tried.finish()
    (chosen,) = {name for name in done if name.startswith("merge/mood/seed 1")}
    title = chosen.rpartition("/")[2]
    choice = tried.store.manifest(tried.steps["select/mood"].id)
    assert choice is not None
    assert choice.facts["chosen"] == title
    assert sorted(tried.trained) == sorted(["comb 1", "de 1", "en 1"] * 3)
    assert not any(one.waits for one in tried.steps.values())


def test_baselines_that_were_chosen_are_repeated_as_chosen(tried: Tried) -> None:
    text = BRIEF.replace("[base, comb]", "[base, comb, indv, single, mean]")
    tried.small.spec(with_seeds(text).replace("[sum]", "[sum], mean_scales: [1.0, 2.0]"))
    tried.finish()
    tests = {name for name in tried.steps if name.startswith("evaluate/mood/seed 1")}
    assert tests == {
        f"evaluate/mood/seed 1/{system}/{one}/test"
        for system in ("sum", "COMB", "INDV", "SINGLE", "MEAN")
        for one in ("de", "en")
    }
    single = tried.steps["evaluate/mood/seed 1/SINGLE/de/test"].uses.adapter
    assert single in {tried.steps[f"train/mood/seed 1/{one}"].id for one in ("de", "en")}


def test_seeds_that_are_asked_for_later_redo_nothing(small: Small, tried: Tried) -> None:
    small.spec(BRIEF)
    before = set(tried.finish())
    small.spec(with_seeds(BRIEF))
    done = tried.finish()
    assert not before.intersection(done)
    assert set(done) == set(further(tried.steps))
    small.spec(with_seeds(BRIEF, "{epochs: 2, seeds: 2}"))
    assert tried.missing() == []


def test_a_changed_language_is_trained_with_every_seed(small: Small, tried: Tried) -> None:
    tried.finish()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    tried.finish()
    assert sorted(tried.trained) == ["de 1"] * 3  # COMB is kept with every seed
    steps = tried.steps
    assert steps["train/mood/seed 1/comb"].uses == steps["train/mood/comb"].uses
    fresh = small.steps(tried.store, retrain_comb=True)
    trained = {name for name, one in fresh.items() if one.id not in tried.store.ids()}
    assert {"train/mood/comb", "train/mood/seed 1/comb", "train/mood/seed 2/comb"} <= trained


def test_a_kept_comb_that_has_one_seed_is_refused(small: Small, tried: Tried) -> None:
    small.spec(BRIEF)
    tried.finish()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    small.spec(with_seeds(BRIEF))
    with pytest.raises(InputError, match=r"train/mood/comb was trained before the rows of de") as e:
        tried.missing()
    assert "`koinize run --retrain-comb`" in str(e.value)
    assert small.steps(tried.store, retrain_comb=True)


def test_a_trunk_and_its_branches_have_seeds(small: Small, tried: Tried) -> None:
    text = BRIEF.replace("candidates: [sum]", "candidates: [average]")
    small.spec(with_seeds(text, "{epochs: 2, trunk: joint, seeds: 2}"))
    tried.finish()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    tried.finish()
    assert sorted(tried.trained) == ["branch 1", "branch 1"]
    steps = tried.steps
    branch = steps["branch/mood/seed 1/de"]
    assert branch.uses.trunk != steps["branch/mood/de"].uses.trunk
    assert branch.uses.anchors == steps["anchors/mood/seed 1"].id
    small.spec(with_seeds(text, "{epochs: 2, trunk: joint, seeds: 3}"))
    with pytest.raises(InputError, match="run --new-generation` trains it anew with every seed"):
        tried.missing()


def test_each_seed_has_tries_of_its_own(small: Small, tried: Tried) -> None:
    small.spec(with_seeds(BRIEF, "{epochs: 2, seeds: 2, retries: 1}"))
    tried.finish(comb_1=BADLY)
    assert sorted(tried.trained) == sorted(["comb 1", "comb 2", "de 1", "en 1"] * 2)
    steps = tried.steps
    assert tried.stands("train/mood/seed 1/comb") == 2
    assert further_of(steps["train/mood/seed 1/try 1/comb"]) == 1


def test_what_keeps_its_recipe_repeats_it_of_todays_adapters(small: Small, tried: Tried) -> None:
    text = TWO.replace("candidates: [sum, ties]", "candidates: [sum, ties], update: keep")
    small.spec(with_seeds(text))
    tried.finish()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    done = tried.finish()
    merges = [name for name in done if name.startswith("merge")]
    assert len(merges) == 3, "the chosen recipe, with each seed"
    assert {name.rpartition("/")[2] for name in merges} == {
        tried.store.open(tried.steps["select/mood"].id).facts["chosen"]
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: with_seeds(text, "{seeds: 0}"),
            "training.seeds: expected a number from 1 up, not 0",
        ),
        (
            lambda text: with_seeds(text, "{seeds: 21}"),
            "training.seeds: expected a number up to 20, not 21",
        ),
        (
            lambda text: with_seeds(text, "{seeds: 2, update: {mode: continue}}"),
            "an adapter that is trained on has one history",
        ),
        (
            lambda text: with_seeds(text, "{seeds: 2, trunk: {adapter: there}}"),
            "a trunk from elsewhere was trained with one seed",
        ),
        (
            lambda text: with_seeds(text) + "adapters: {mood: {de: there}}\n",
            "'adapters' is of one seed alone",
        ),
        (
            lambda text: with_seeds(text) + "baselines: [comb, comb-continued]\n",
            "'comb-continued' is of one seed alone",
        ),
    ],
)
def test_what_has_one_seed_is_refused(
    small: Small, change: Callable[[str], str], said: str
) -> None:
    small.spec(change(SPEC))
    with pytest.raises(InputError, match=said):
        load(small.root / "koinize.yaml")


@pytest.mark.slow
def test_a_comparison_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way on the tiny example: plan, run, report, update, and what is released."""
    monkeypatch.chdir(tmp_path)
    koinize("init", "--example", "tiny", "project")
    monkeypatch.chdir(tmp_path / "project")
    text = Path("koinize.yaml").read_text().replace("[de, en, ja]", "[de, en]")
    text += "baselines: [base, comb]\nmachine: {executor: inline, together: 6}\n"
    Path("koinize.yaml").write_text(text)
    koinize("run", "--json")
    alone = json.loads(koinize("report", "--json"))["tasks"][0]
    Path("koinize.yaml").write_text(text.replace("batch_size: 4", "batch_size: 4, seeds: 3"))
    assert "repeat the comparison with further seeds (training.seeds: 3)" in " ".join(
        koinize("plan").split()
    )
    done = json.loads(koinize("run", "--json"))["done"]
    assert all("/seed " in one for one in done)
    found = json.loads(koinize("report", "--json"))["tasks"][0]
    assert found["scores"] == alone["scores"], "those of the seed that is released"
    for before, after in zip(alone["pooled"], found["pooled"], strict=True):
        assert before["by_seed"] == []
        over = after["system"] in (found["chosen"], "BASE")
        assert len(after["by_seed"]) == (3 if over else 0)
        if over:
            assert after["by_seed"][0] == pytest.approx(before["difference"])
            assert after["difference"] == pytest.approx(sum(after["by_seed"]) / 3)
    said = " ".join(koinize("report").split())
    assert "made with 3 seeds" in said
    assert "over 3 seeds" in said
    digests = {
        json.loads(one.read_text())["files"]["adapter_model.safetensors"]["sha256"]
        for one in Path(".koinize").rglob("manifest.json")
        if json.loads(one.read_text())["name"].startswith("train/")
    }
    assert len(digests) == 9, "each seed made another adapter"
    assert not json.loads(koinize("run", "--json"))["done"]

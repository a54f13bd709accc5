"""The graph: which steps there are, and which of them a change touches."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from koinize.digest import digest
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.experience import Experience
from koinize.pipeline.graph import refuse_two_of_one_name
from koinize.pipeline.plan import plan
from koinize.pipeline.systems import distinct, system_of
from koinize.pipeline.wording import unfair_combs
from koinize.spec.grid import PAPERS_EIGHT
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small

CANDIDATES = 6  # the paper's eight are six distinct merges
MEANS = 2


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in after if name not in before or before[name].id != after[name].id}


def families(names: set[str]) -> set[str]:
    """train/mood/de -> train de; evaluate/mood/X/de/test -> evaluate de."""
    kept = set()
    for name in names:
        parts = name.split("/")
        kept.add(f"{parts[0]} {parts[3]}" if parts[0] == "evaluate" else " ".join(parts[::2][:2]))
    return kept


def test_counts_follow_from_the_spec(small: Small) -> None:
    kinds = [step.kind for step in small.steps().values()]
    # Two languages and COMB; six distinct candidates and two scales of MEAN, each scored on dev in
    # two languages; one choice for each; on test BASE, COMB, MEAN and six candidates in two
    # languages, two INDV, and each adapter on the other language.
    assert kinds.count("train") == 3
    assert kinds.count("merge") == CANDIDATES + MEANS
    assert kinds.count("select") == 2
    assert kinds.count("evaluate") == (CANDIDATES + MEANS) * 2 + (3 + CANDIDATES) * 2 + 2 + 2


def test_every_step_comes_after_its_needs(small: Small) -> None:
    seen: set[str] = set()
    for step in small.steps().values():
        assert set(step.needs) <= seen
        seen.add(step.id)


def test_no_two_steps_have_one_name(small: Small) -> None:
    steps = list(small.steps().values())
    refuse_two_of_one_name([*steps, steps[-1]])
    with pytest.raises(AssertionError, match=f"two steps are called '{steps[-1].name}'"):
        refuse_two_of_one_name([*steps, replace(steps[-1], inputs={})])


def test_no_test_score_comes_before_the_choice(small: Small) -> None:
    steps = small.steps()
    choice = steps["select/mood"].id
    on_test = [s for s in steps.values() if s.kind == "evaluate" and s.split == "test"]
    assert on_test
    assert all(choice in step.needs for step in on_test)


def test_the_same_project_has_the_same_ids(small: Small) -> None:
    assert not changed(small.steps(), small.steps())


def test_one_language_changed_trains_one_adapter(small: Small) -> None:
    before = small.steps()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    touched = changed(before, small.steps())
    assert {name for name in touched if name.startswith("train")} == {
        "train/mood/de",
        "train/mood/comb",
    }
    assert "evaluate/mood/INDV/en/test" not in touched
    assert "evaluate/mood/BASE/de/test" not in touched
    assert "evaluate/mood/en only/de/test" not in touched
    assert "evaluate/mood/de only/en/test" in touched
    merges = {name for name in touched if name.startswith("merge")}
    assert len(merges) == CANDIDATES + MEANS


def test_row_order_and_unused_columns_change_nothing(small: Small) -> None:
    before = small.steps()
    path = small.root / "data" / "de.train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps({**row, "note": "unused"}) for row in reversed(rows)]
    path.write_text("\n".join(lines) + "\n")
    assert not changed(before, small.steps())


def test_a_test_row_retrains_nothing(small: Small) -> None:
    before = small.steps()
    small.rows("de", "test", ["de test 0", "de test 1", "de test 2", "de test 9"])
    assert families(changed(before, small.steps())) == {"evaluate de"}


def test_a_setting_at_its_default_changes_nothing(small: Small) -> None:
    before = small.steps()
    small.spec(SPEC.replace("{epochs: 2}", "{epochs: 2, warmup_ratio: 0.05}"))
    assert not changed(before, small.steps())


def test_a_language_override_touches_that_language(small: Small) -> None:
    before = small.steps()
    small.spec(SPEC + "lora: {overrides: {de: {r: 4}}}\n")
    trained = {name for name in changed(before, small.steps()) if name.startswith("train")}
    assert trained == {"train/mood/de"}


def test_an_added_candidate_touches_only_itself_and_the_choice(small: Small) -> None:
    before = small.steps()
    small.spec(SPEC.replace("[paper]", "[paper, sum]"))
    touched = changed(before, small.steps())
    assert {name for name in touched if not name.startswith("evaluate/mood/sum/")} == {
        "merge/mood/sum",
        "select/mood",
    }


def test_a_candidate_without_a_rival_is_not_scored_on_dev(small: Small) -> None:
    small.spec(SPEC.replace("[paper]", "[sum]"))
    steps = small.steps()
    assert not [name for name in steps if name.startswith("evaluate/mood/sum/") and "/dev" in name]
    assert steps["select/mood"].uses.labelled() == {"sum|adapter": steps["merge/mood/sum"].id}


def test_dev_rows_matter_to_training_only_with_early_stopping(small: Small) -> None:
    before = small.steps()
    small.rows("de", "dev", ["de dev 0", "de dev 7"])
    assert "train/mood/de" not in changed(before, small.steps())
    small.spec(SPEC.replace("{epochs: 2}", "{epochs: 2, patience: 1}"))
    before = small.steps()
    small.rows("de", "dev", ["de dev 0", "de dev 8"])
    assert "train/mood/de" in changed(before, small.steps())


def test_the_papers_eight_are_six() -> None:
    eight = [MergeSettings.model_validate(one) for one in PAPERS_EIGHT]
    same = {
        tuple(one.describe() for one in settings): system.title
        for system, settings in distinct(eight).items()
    }
    assert len(same) == CANDIDATES
    assert same["ties density 1", "dare-ties density 1"] == "ties density 1"
    assert same["knots-ties density 1", "knots-dare-ties density 1"] == "knots-ties density 1"
    assert same[("dare-ties density 0.5",)] == "dare-ties density 0.5"


def test_weights_and_seed_make_other_merges() -> None:
    plain = MergeSettings(recipe="dare-ties", density=0.5)
    assert system_of(plain) != system_of(plain.model_copy(update={"seed": 1}))
    assert system_of(plain) != system_of(plain.model_copy(update={"weights": {"de": 2.0}}))


def test_unchanged_files_are_not_read_again(small: Small) -> None:
    small.steps()
    before = (small.root / "memory.json").stat().st_mtime_ns
    small.steps()
    assert (small.root / "memory.json").stat().st_mtime_ns == before


def test_comb_is_kept_when_only_training_rows_changed(small: Small) -> None:
    store, before = small.made(), small.steps()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    after = small.steps(store)
    touched = changed(before, after)
    assert {name for name in touched if name.startswith("train")} == {"train/mood/de"}
    assert not any("/COMB/" in name for name in touched)
    assert after["train/mood/comb"].stale == ("train rows de",)
    assert small.steps(store, retrain_comb=True)["train/mood/comb"].stale == ()


def test_comb_is_not_kept_when_settings_or_languages_changed(small: Small) -> None:
    store, before = small.made(), small.steps()
    small.spec(SPEC.replace("{epochs: 2}", "{epochs: 3}"))
    assert small.steps(store)["train/mood/comb"].stale == ()
    assert "train/mood/comb" in changed(before, small.steps(store))
    small.spec(SPEC.replace("[en, de]", "[en]"))
    assert "train/mood/comb" in changed(before, small.steps(store))


ALIKE = (0.1234567, 0.1234568)
"""Two densities whose six leading digits are the same."""


def test_two_merges_that_would_print_alike_are_two(small: Small) -> None:
    candidates = f"[{{recipe: ties, density: [{ALIKE[0]}, {ALIKE[1]}]}}]"
    small.spec(SPEC.replace("[paper]", candidates))
    steps = small.steps()
    assert len([one for one in steps.values() if one.kind == "merge"]) == 2 + MEANS
    choice = steps["select/mood"]
    assert len(choice.uses.candidates) == 2
    assert len(choice.uses.scores) == 2 * 2


@pytest.mark.parametrize("word", ["parent", "adapter", "choice", "recipe", "base", "trunk"])
def test_a_language_may_be_called_as_we_call_things(small: Small, word: str) -> None:
    """Whatever a label says, its adapter is merged and awaited, and its scores count."""
    for split, count in (("train", 4), ("dev", 2), ("test", 3)):
        small.rows(word, split, [f"{word} {split} {n}" for n in range(count)])
    small.spec(SPEC.replace("[en, de]", f"[en, de, {word}]"))
    steps = small.steps()
    own = steps[f"train/mood/{word}"].id
    merge = steps["merge/mood/ties density 0.5"]
    assert merge.uses.adapters[word] == own
    assert own in merge.needs
    assert len(merge.identity) == 1 + 3  # the recipe and three adapters
    choice = steps["select/mood"]
    labels = choice.uses.labelled()
    assert len(labels) == CANDIDATES * (1 + 3)
    assert set(labels.values()) <= set(choice.needs)


def test_addresses_are_unique_and_their_text_too(small: Small) -> None:
    small.spec(SPEC + "baselines: [base, indv, cross, single, comb, comb-continued, mean]\n")
    steps = small.steps()
    assert len({step.address for step in steps.values()}) == len(steps)


def test_what_bounds_memory_identifies_nothing(small: Small) -> None:
    before = small.steps()
    small.spec(SPEC.replace("epochs: 2", "epochs: 2, batch_tokens: 64"))
    assert not changed(before, small.steps())


def test_what_was_made_under_a_former_identity_stands(small: Small) -> None:
    """koinize 0.1.0 counted batch_tokens among what identifies a training."""
    small.spec(SPEC.replace("epochs: 2", "epochs: 2, batch_tokens: 64"))
    one = small.steps()["train/mood/de"]
    former = digest({"epochs": 2, "batch_tokens": 64})
    assert one.inputs["training"] != former
    made = replace(one, inputs={**one.inputs, "training": former})
    store = Store(small.root / "former")
    with store.building(made.id, made.name, made.identity):
        pass
    assert small.steps(store)["train/mood/de"].id == made.id
    assert small.steps(store)["train/mood/en"].id == small.steps()["train/mood/en"].id


PROMPTS = 'prompt: {{en: "{}", de: "{}"}}'
BOTH = SPEC.replace('prompt: "{text} ="', PROMPTS.format("{text} =", "{text} ="))
GERMAN_ONLY = SPEC.replace('prompt: "{text} ="', PROMPTS.format("{text} =", "Text: {text} ="))


@pytest.mark.parametrize(
    ("reworded", "why"),
    [
        (SPEC.replace("{text} =", "Review: {text} ="), "(prompt)"),
        (SPEC.replace("bad]\n", "bad]\n    verbalizers: {good: G, bad: B}\n"), "(verbalizers)"),
    ],
)
def test_comb_is_trained_again_when_every_language_is_worded_otherwise(
    small: Small, reworded: str, why: str
) -> None:
    store = small.made()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    kept = small.steps(store)["train/mood/comb"]
    small.spec(reworded)
    steps = small.steps(store)
    assert kept.stale == ("train rows de",)
    assert (steps["train/mood/comb"].stale, kept.id in store.ids()) == ((), True)
    todo = plan(list(steps.values()), store, Experience(), 1, {})
    said = {one.step.name: one.why for one in todo.missing}
    assert said["train/mood/comb"] == (
        f"the wording of de {why} changed, +2 rows; the wording of en {why} changed"
    )
    assert said["train/mood/en"] == f"the wording of en {why} changed"


def test_other_words_are_said_once_where_several_splits_are_read(small: Small) -> None:
    patience = SPEC.replace("{epochs: 2}", "{epochs: 2, patience: 1}")
    small.spec(patience)
    store = small.made()
    small.spec(patience.replace("{text} =", "Review: {text} ="))
    todo = plan(list(small.steps(store).values()), store, Experience(), 1, {})
    said = {one.step.name: one.why for one in todo.missing}
    assert said["train/mood/de"] == "the wording of de (prompt) changed"


def test_comb_of_other_words_in_one_language_is_kept_and_the_plan_says_so(small: Small) -> None:
    small.spec(BOTH)
    store = small.made()
    small.spec(GERMAN_ONLY)
    steps = small.steps(store)
    assert steps["train/mood/comb"].stale == ("the wording of de (prompt)",)
    assert list(unfair_combs(steps.values())) == [
        "mood: COMB was trained before the wording of de (prompt) changed, so there it is no fair "
        "comparison; `koinize run --retrain-comb` trains it again"
    ]
    small.spec(GERMAN_ONLY.replace('en: "{text} ="', 'en: "Review: {text} ="'))
    assert small.steps(store)["train/mood/comb"].stale == ()


def test_what_asks_the_same_is_no_other_wording(small: Small) -> None:
    store = small.made()
    small.spec(BOTH.replace("kind: classify\n", "kind: classify\n    free: true\n    key: text\n"))
    assert small.steps(store)["train/mood/comb"].id in store.ids()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    assert small.steps(store)["train/mood/comb"].stale == ("train rows de",)


def test_a_comb_that_kept_no_wording_is_judged_by_its_rows_alone(small: Small) -> None:
    spec, store = SPEC.replace("{text} =", "Review: {text} ="), Store(small.root / "former")
    for step in small.steps().values():
        with store.building(step.id, step.name, step.identity) as draft:
            draft.facts["rows"] = dict(step.rows)
        store.point({step.name: step.id})
    small.spec(spec)
    assert small.steps(store)["train/mood/comb"].stale == ("train rows de", "train rows en")

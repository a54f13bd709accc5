"""Generations: what is frozen, what a changed language makes anew, and what it leaves alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.errors import InputError
from koinize.merge.recipe import MergeSettings
from koinize.pipeline import Project
from koinize.pipeline.alternative import _retraining
from koinize.pipeline.generation import draw, read_anchors, write_anchors
from koinize.pipeline.results import Results
from koinize.pipeline.step import Step
from koinize.pipeline.systems import candidates, system_of
from koinize.pipeline.whatif import Question, inquire, merged_languages
from koinize.release.candidate import candidate
from koinize.spec import load
from koinize.store import Artifact, Store
from koinize.tasks import Example
from tests.pipeline.conftest import SPEC, Small

JOINT = SPEC.replace("{epochs: 2}", "{epochs: 2, trunk: joint}").replace(
    "merge: {candidates: [paper], mean_scales: [1.0, 2.0]}\n", ""
)
TRUNK, COMB, ANCHORS = "trunk/mood", "train/mood/comb", "anchors/mood"
GERMAN, ENGLISH = "branch/mood/de", "branch/mood/en"
RELEASED = "merge/mood/sum scale 0.5"
OF_TWO = "merge/mood/sum scale 0.3333"


@pytest.fixture
def store(small: Small) -> Store:
    """A store in which the first generation was made, on the rows as they are."""
    small.spec(JOINT)
    return make(small, Store(small.root / "made"))


def make(small: Small, store: Store) -> Store:
    """Everything that is missing, as a run would commit it."""
    for step in small.steps(store).values():
        if step.id not in store.ids():
            with store.building(step.id, step.name, step.identity) as draft:
                draft.facts |= {"rows": dict(step.rows), "settings": dict(step.settings)}
        store.point({step.name: step.id})
    return store


def changed(before: dict[str, Step], after: dict[str, Step]) -> set[str]:
    return {name for name in after if name not in before or before[name].id != after[name].id}


def rows_of(language: str, split: str, count: int) -> list[str]:
    return [f"{language} {split} {n}" for n in range(count)]


def test_a_generation_begins_with_one_joint_training(small: Small, store: Store) -> None:
    steps = small.steps(store)
    assert steps[TRUNK].id == steps[COMB].id  # COMB is that very training
    assert {one.address.role for one in steps.values() if one.kind == "train"} == {"trunk", "comb"}
    assert not any(one.kind == "merge" for one in steps.values())
    (only,) = steps["select/mood"].uses.candidates.values()
    assert only == steps[TRUNK].id


def test_one_language_changed_is_one_branch_and_nothing_else_is_made_anew(
    small: Small, store: Store
) -> None:
    before = small.steps(store)
    small.rows("de", "train", rows_of("de", "train", 6))
    after = small.steps(store)
    touched = changed(before, after)
    assert {name for name in touched if not name.startswith(f"evaluate/mood/{RELEASED[11:]}")} == {
        GERMAN,
        RELEASED,
        "select/mood",
    }
    branch, merge = after[GERMAN], after[RELEASED]
    assert (branch.uses.trunk, branch.uses.anchors) == (before[TRUNK].id, before[ANCHORS].id)
    assert branch.rows == {"train rows de": 6}
    assert branch.why == "train rows de changed since the trunk, +2 rows"
    assert merge.uses.adapters == {"de": branch.id}
    assert merge.uses.trunk == before[TRUNK].id
    assert {branch.id, before[TRUNK].id} <= set(merge.needs)


def test_the_next_language_leaves_the_first_branch_as_it_is(small: Small, store: Store) -> None:
    small.rows("de", "train", rows_of("de", "train", 6))
    make(small, store)
    before = small.steps(store)
    small.rows("en", "train", ["en train 0", "something new"])  # anchors may be gone from the file
    after = small.steps(store)
    trained = {name for name in changed(before, after) if after[name].kind in ("train", "anchors")}
    assert trained == {ENGLISH}
    assert RELEASED not in after
    assert after[OF_TWO].uses.adapters == {"de": before[GERMAN].id, "en": after[ENGLISH].id}


def test_other_words_are_a_branch_in_one_language_and_a_new_generation_in_all(
    small: Small, store: Store
) -> None:
    before, prompt = small.steps(store), 'prompt: "{text} ="'
    small.spec(JOINT.replace(prompt, 'prompt: {en: "{text} =", de: "Text: {text} ="}'))
    one = small.steps(store)
    assert (one[TRUNK].id, one[COMB].id) == (before[TRUNK].id, before[COMB].id)
    assert one[GERMAN].why == "the wording of de (prompt) changed since the trunk, +0 rows"
    small.spec(JOINT.replace(prompt, 'prompt: "Text: {text} ="'))
    both = small.steps(store)
    assert both[TRUNK].id == both[COMB].id != before[TRUNK].id
    assert both[TRUNK].why == (
        "a new generation: the wording of de (prompt) and the wording of en (prompt) changed"
    )
    assert GERMAN not in both
    assert both[ANCHORS].id != before[ANCHORS].id


def test_rows_that_come_back_need_no_branch(small: Small, store: Store) -> None:
    before = small.steps(store)
    small.rows("de", "train", rows_of("de", "train", 6))
    make(small, store)
    small.rows("de", "train", rows_of("de", "train", 4))
    assert not changed(before, small.steps(store))


def test_a_language_that_comes_is_a_branch_and_one_that_goes_changes_nothing(
    small: Small, store: Store
) -> None:
    before = small.steps(store)
    for split, count in (("train", 4), ("dev", 2), ("test", 3)):
        small.rows("ja", split, rows_of("ja", split, count))
    small.spec(JOINT.replace("[en, de]", "[en, de, ja]"))
    after = small.steps(store)
    trained = {name for name in changed(before, after) if after[name].kind in ("train", "anchors")}
    assert trained == {"branch/mood/ja"}  # nor is COMB trained again
    assert after[COMB].stale == ("train rows ja",)
    assert set(after[ANCHORS].rows) <= set(after[ANCHORS].inputs)  # a release lists them
    assert after["branch/mood/ja"].why == "ja was not in the trunk"
    small.spec(JOINT.replace("[en, de]", "[en]"))
    gone = small.steps(store)
    assert gone[TRUNK].id == before[TRUNK].id
    assert gone[COMB].id == before[COMB].id
    assert gone[TRUNK].rows["train rows de"] == 4
    assert not [name for name in gone if name.startswith("branch/")]


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (("trunk: joint}", "trunk: joint, seed: 3}"), "a new generation: training changed"),
        (("trunk: joint}", "trunk: joint}\nlora: {r: 4}"), "a new generation: lora changed"),
        (("trunk: joint}", "trunk: 0.5}"), "a new generation: share changed"),
    ],
)
def test_another_shape_is_another_trunk(
    small: Small, store: Store, edit: tuple[str, str], why: str
) -> None:
    before = small.steps(store)
    small.spec(JOINT.replace(*edit))
    after = small.steps(store)[TRUNK]
    assert after.id != before[TRUNK].id
    assert after.why == why


WEIGHED = """\
merge:
  candidates:
    - {recipe: sum, weights: {de: 0.5, en: 2}}
    - {recipe: mean, overrides: {"q_proj": {weights: {en: 3}, scale: 2}}}
"""


def test_weights_of_languages_that_did_not_leave_mean_nothing_yet(
    small: Small, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be refused by the merge, after the branch was trained."""
    small.spec(JOINT)
    released(small, monkeypatch)
    small.spec(JOINT + WEIGHED)
    small.rows("de", "train", rows_of("de", "train", 6))
    project = released(small, monkeypatch)
    first, second = (one for one in project.steps if one.kind == "merge")
    assert first.merge is not None
    assert second.merge is not None
    assert first.merge.weights == {"de": 0.5}
    assert second.merge.overrides == {"q_proj": {"scale": 2}}
    (named,) = inquire(project, "mood", [Question(weights={"de": 3})], "mean").variants[1:]
    assert named.merge.uses.adapters == first.uses.adapters
    # Whoever reads the results asks for the same merges.
    results = Results(project, "mood")
    assert [results.merges[system_of(one)] for one in results.candidates] == [first, second]
    small.spec(JOINT + "merge: {candidates: [{recipe: sum, weights: {de: 0}}]}\n")
    with pytest.raises(InputError, match="gives every branch the weight 0: de"):
        small.steps(store)


@pytest.mark.parametrize(
    ("trunk", "told"),
    [("none", "names none"), ("{adapter: shared}", "names one from elsewhere")],
)
def test_a_new_generation_needs_a_trunk_that_is_trained_here(
    small: Small, trunk: str, told: str
) -> None:
    small.spec(JOINT.replace("trunk: joint", f"trunk: {trunk}"))
    with pytest.raises(InputError, match=f"a new generation begins with .* {told}"):
        Project.at(small.root / "koinize.yaml", new_generation=True)


def test_how_branches_are_trained_is_no_part_of_the_trunk(small: Small, store: Store) -> None:
    small.rows("de", "train", rows_of("de", "train", 6))
    make(small, store)
    before = small.steps(store)
    small.spec(JOINT.replace("trunk: joint}", "trunk: joint, branch: {epochs: 5}}"))
    touched = changed(before, small.steps(store))
    assert GERMAN in touched
    assert TRUNK not in touched
    assert ANCHORS not in touched


def test_a_new_generation_is_asked_for(small: Small, store: Store) -> None:
    small.rows("de", "train", rows_of("de", "train", 6))
    make(small, store)
    anew = small.steps(store, new_generation=True)
    assert anew[TRUNK].why == "a new generation"
    assert anew[TRUNK].rows == {"train rows de": 6, "train rows en": 4}
    assert anew[COMB].id == anew[TRUNK].id
    assert not [name for name in anew if name.startswith("branch/")]
    for step in anew.values():  # as the run would leave it
        if step.id not in store.ids():
            with store.building(step.id, step.name, step.identity) as draft:
                draft.facts["rows"] = dict(step.rows)
        store.point({step.name: step.id})
    assert not changed(anew, small.steps(store))


def test_a_trunk_that_came_from_elsewhere_is_followed_by_one_of_its_own(
    small: Small, store: Store
) -> None:
    made = small.steps(store)[TRUNK]
    foreign = replace(made.at(kind="import"), inputs={"adapter files": "f", "base": "b" * 64})
    with store.building(foreign.id, foreign.name, foreign.identity):
        pass
    store.point({foreign.name: foreign.id})
    again = small.steps(store)[TRUNK]
    assert again.id == made.id
    assert again.why == "a new generation: lora and training and adapter files changed"


def test_a_lost_trunk_whose_rows_changed_cannot_be_made_again(small: Small, store: Store) -> None:
    trunk = small.steps(store)[TRUNK]
    store.lose(trunk.id)
    assert small.steps(store)[TRUNK].id == trunk.id  # its rows are there: it is made again
    small.rows("de", "train", rows_of("de", "train", 6))
    again = small.steps(store)[TRUNK]
    assert again.id != trunk.id
    assert again.why == "a new generation: the trunk is lost, and its rows changed since"


def test_a_lost_trunk_whose_dev_rows_changed_cannot_be_made_again_either(small: Small) -> None:
    """With an early stop dev had a say in it."""
    small.spec(JOINT.replace("trunk: joint", "trunk: joint, patience: 1"))
    store = make(small, Store(small.root / "made"))
    trunk = small.steps(store)[TRUNK]
    store.lose(trunk.id)
    small.rows("de", "dev", ["another", "and one more"])
    assert small.steps(store)[TRUNK].inputs["dev rows de"] != trunk.inputs["dev rows de"]


def test_a_trunk_on_a_share_is_left_by_every_language(small: Small) -> None:
    small.spec(JOINT.replace("trunk: joint", "trunk: 0.5"))
    steps = small.steps()
    assert {GERMAN, ENGLISH} <= set(steps)
    assert steps[TRUNK].id != steps[COMB].id
    assert steps[TRUNK].units == round(0.5 * steps[COMB].units)
    assert steps[TRUNK].rows == {"train rows de": 2, "train rows en": 2}  # of four each


def test_without_anchors_a_branch_has_none(small: Small, store: Store) -> None:
    small.spec(JOINT.replace("trunk: joint}", "trunk: joint, branch: {anchors: 0}}"))
    small.rows("de", "train", rows_of("de", "train", 6))
    steps = small.steps(store)
    assert ANCHORS not in steps
    assert steps[GERMAN].uses.anchors == ""


def test_the_papers_way_stays_as_a_baseline(small: Small) -> None:
    small.spec(f"{JOINT}baselines: [base, comb, indv, paper]\n")
    steps = small.steps()
    assert {"train/mood/de", "train/mood/en", "select/mood/paper"} <= set(steps)
    assert len(steps["select/mood/paper"].uses.candidates) == 6
    on_test = {one.system.title for one in steps.values() if one.split == "test"}
    assert on_test == {"BASE", "COMB", "TRUNK", "INDV", "PAPER"}


def test_a_baselines_merge_is_not_the_candidate_of_the_same_settings(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is relative to the trunk and the other is not: the release must be the former."""
    alike = "merge: {candidates: [{recipe: ties, density: 0.5}, mean]}\n"
    small.spec(f"{JOINT}{alike}baselines: [base, comb, paper, mean]\n")
    released(small, monkeypatch)
    small.rows("de", "train", rows_of("de", "train", 6))
    project = released(small, monkeypatch)
    addresses = [step.address for step in project.steps]
    assert len(set(addresses)) == len(addresses)
    assert len({str(one) for one in addresses}) == len(addresses)
    results = Results(project, "mood")
    for system, identity in results.choice().uses.candidates.items():
        assert results.made(system).id == identity
        assert results.made(system).uses.trunk
        dev = results.of_split(system, "dev")
        assert {one.uses.adapter for one in dev.values()} == {identity}
    ties = next(one for one in results.choice("paper").uses.candidates if "0.5" in one.title)
    assert not results.made(ties, "paper").uses.trunk
    assert candidate(project, "mood").adapter.id == results.made(results.chosen()).id


def test_a_release_of_a_language_that_came_lists_its_rows(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(JOINT)
    released(small, monkeypatch)
    for split, count in (("train", 4), ("dev", 2), ("test", 3)):
        small.rows("ja", split, rows_of("ja", split, count))
    small.spec(JOINT.replace("[en, de]", "[en, de, ja]"))
    ours = candidate(released(small, monkeypatch), "mood")
    known = {label: one["rows"] for label, one in ours.data.items() if "train" in label}
    assert known == {"train rows de": 4, "train rows en": 4, "train rows ja": 4}


def test_retraining_costs_one_joint_training_also_without_comb(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(JOINT)
    units = small.steps()[COMB].units
    small.spec(JOINT + "baselines: [base]\n")
    released(small, monkeypatch)
    small.rows("de", "train", [*rows_of("de", "train", 4)[::-1], "one more"])
    project = small.project(monkeypatch)
    (joint, *_) = _retraining(project.steps, project.store.ids())
    assert str(joint.address) == COMB
    assert units < joint.units < 1.5 * units


def test_candidates_that_are_one_among_the_branches_are_one(small: Small, store: Store) -> None:
    small.spec(JOINT + "merge: {candidates: [sum, {recipe: sum, weights: {en: 2}}]}\n")
    small.rows("de", "train", rows_of("de", "train", 6))
    merges = [one for one in small.steps(store).values() if one.kind == "merge"]
    assert len(merges) == 1
    assert candidates(load(small.root / "koinize.yaml"), ["de"]) == [MergeSettings(recipe="sum")]


def test_the_default_without_a_trunk_is_as_it_was(small: Small) -> None:
    before = small.steps()
    small.spec(SPEC.replace("{epochs: 2}", "{epochs: 2, trunk: none}"))
    assert not changed(before, small.steps())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            JOINT + "lora: {overrides: {de: {r: 4}}}\n",
            "lora.overrides: a branch has the shape of the trunk that it starts from; remove them, "
            "or set training.trunk to none",
        ),
        (
            JOINT.replace("trunk: joint}", "trunk: joint, update: {mode: continue}}"),
            "training.update.mode: with a trunk a changed language is a branch of it; remove "
            "'continue', or set training.trunk to none",
        ),
        (
            SPEC + "baselines: [paper]\n",
            "baselines: 'paper' is what a project without a trunk does anyway; remove it, or set "
            "training.trunk",
        ),
        (
            JOINT.replace("trunk: joint", "trunk: shared"),
            "'shared' is no trunk; write none, joint, a share of the rows such as 0.2, "
            "{adapter: FOLDER} or {release: vN}",
        ),
        (JOINT.replace("trunk: joint", "trunk: 1.5"), "1.5 is no trunk;"),
        (
            JOINT + "adapters: {mood: {de: mine}}\n",
            "adapters: with a trunk nothing is made of them; remove them, or set training.trunk to "
            "none or, to begin with one of them, to {adapter: FOLDER}",
        ),
        (
            SPEC.replace("{epochs: 2}", "{epochs: 2, branch: {anchors: 0.2}}"),
            "training.branch: without a trunk nothing is a branch; remove it",
        ),
        (
            JOINT + "merge: {candidates: [{recipe: ties, dialect: peft}]}\n",
            "merge.candidates: ties density 1 dialect peft: space 'factor' merges A and B apart",
        ),
        (
            JOINT.replace("trunk: joint", "trunk: {}"),
            "a trunk is one of: adapter: FOLDER, release: vN",
        ),
    ],
)
def test_what_cannot_be_is_refused(small: Small, text: str, message: str) -> None:
    small.spec(text)
    with pytest.raises(InputError) as caught:
        load(small.root / "koinize.yaml")
    assert message in str(caught.value)


TEXTS = st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=40)


def examples(texts: list[str], language: str = "de") -> list[Example]:
    return [
        Example(str(n), language, text, "!", ("!", "?"), ("a", "b"), 0)
        for n, text in enumerate(texts)
    ]


@given(TEXTS, st.floats(0.01, 1), st.integers(0, 3))
def test_anchors_are_drawn_by_what_they_say(texts: list[str], share: float, seed: int) -> None:
    drawn = draw(examples(texts), share, seed)
    assert len(drawn) == max(1, round(share * len(texts)))
    again = draw(reversed(examples(texts)), share, seed)
    assert [one.prompt for one in again] == [one.prompt for one in drawn]
    # One more row takes the place of one of them at most.
    more = draw(examples([*texts, "\N{SNOWMAN}" * 3]), share, seed)
    assert len({one.prompt for one in drawn} - {one.prompt for one in more}) <= 1


def test_anchors_are_kept_in_full_and_read_without_ones_own(tmp_path: Path) -> None:
    german, english = examples(["ja\u2028nein"], "de"), examples(["yes"], "en")
    turned = replace(english[0], turns=(("system", "Be brief."), ("user", "yes")))
    write_anchors(tmp_path, [*german, turned])
    artifact = Artifact("", "", {}, {}, {}, tmp_path)
    assert read_anchors(artifact, without="de") == [turned]
    assert read_anchors(artifact, without="en") == german
    assert read_anchors(artifact, without="ja") == [*german, turned]


def test_anchors_never_come_from_dev_or_test(small: Small, store: Store) -> None:
    """Their step reads training rows alone, so a row of dev or test cannot be among them."""
    read = small.steps(store)[ANCHORS].inputs
    assert set(read) == {"anchors", "train rows de", "train rows en"}
    small.rows("de", "dev", ["another", "two"])
    small.rows("de", "test", ["a third", "a fourth", "a fifth"])
    assert small.steps(store)[ANCHORS].inputs == read


def adapter(folder: Path, rank: int = 16, base: str = "base") -> Path:
    """The headers of an adapter whose only module has this rank and scale 2."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q"]}
    config = {**settings, "base_model_name_or_path": base, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    factors = {
        "base_model.model.q.lora_A.weight": torch.ones(rank, 4),
        "base_model.model.q.lora_B.weight": torch.ones(4, rank),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("rank", "base", "message"),
    [
        (8, "base", "module 'q' of the trunk has rank 8 and scale 2; expected rank 16 and scale 2"),
        (16, "other", "was trained on 'other'; expected an adapter of 'base'"),
    ],
)
def test_a_trunk_of_another_shape_or_base_is_refused_in_the_plan(
    small: Small, monkeypatch: pytest.MonkeyPatch, rank: int, base: str, message: str
) -> None:
    adapter(small.root / "shared", rank, base)
    small.spec(JOINT.replace("trunk: joint", "trunk: {adapter: shared}"))
    with pytest.raises(InputError) as caught:
        _ = small.project(monkeypatch).steps
    assert message in str(caught.value)


def test_a_trunk_by_path_is_left_by_every_language(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter(small.root / "shared")
    small.spec(JOINT.replace("trunk: joint", "trunk: {adapter: shared}"))
    steps = {step.name: step for step in small.project(monkeypatch).steps}
    assert steps[TRUNK].kind == "import"
    assert {GERMAN, ENGLISH} <= set(steps)
    assert steps[GERMAN].why == "what the trunk was trained on is not known"
    assert steps[OF_TWO].uses.trunk == steps[TRUNK].id


def test_the_average_is_shown_by_its_name(small: Small) -> None:
    small.spec(JOINT)
    merge = load(small.root / "koinize.yaml").merge
    assert merge.model_dump(mode="json")["candidates"] == ["average"]
    assert type(merge).model_validate_json(merge.model_dump_json()) == merge


def test_the_average_may_be_one_of_several_candidates(small: Small, store: Store) -> None:
    small.rows("de", "train", rows_of("de", "train", 6))
    small.spec(JOINT + "merge: {candidates: [average, {recipe: sum, scale: [0.5, 1.0]}]}\n")
    merged = {name for name in small.steps(store) if name.startswith("merge/")}
    assert merged == {RELEASED, "merge/mood/sum"}  # of one branch it is the one at half
    small.rows("en", "train", rows_of("en", "train", 6))
    merged = {name for name in small.steps(store) if name.startswith("merge/")}
    assert merged == {OF_TWO, RELEASED, "merge/mood/sum"}


def test_a_release_that_is_not_there_is_no_trunk(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(JOINT.replace("trunk: joint", "trunk: {release: v3}"))
    with pytest.raises(InputError, match="task 'mood' has no release v3"):
        _ = small.project(monkeypatch).steps


def test_a_release_as_the_trunk_is_left_only_by_what_changed_since(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small.root / ".koinize" / "releases" / "mood"
    folder.mkdir(parents=True)
    adapter(folder / "v1")
    rows = {
        f"train rows {one}": {"digest": digest, "rows": 4}
        for one, digest in (
            (one.language, one.inputs[f"train rows {one.language}"])
            for one in small.steps().values()
            if one.kind == "train" and one.language
        )
    }
    (folder / "v1" / "evidence").mkdir()
    (folder / "v1" / "evidence" / "evidence.json").write_text(json.dumps({"data": rows}))
    small.spec(JOINT.replace("trunk: joint", "trunk: {release: v1}"))
    assert ENGLISH not in {step.name for step in small.project(monkeypatch).steps}
    small.rows("en", "train", rows_of("en", "train", 5))
    names = {step.name for step in small.project(monkeypatch).steps}
    assert ENGLISH in names
    assert GERMAN not in names


def test_what_if_asks_about_branches_alone(
    small: Small, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = released(small, monkeypatch)
    with pytest.raises(InputError, match="has no merge to ask about: its trunk is whole"):
        inquire(project, "mood", [Question(without=("de",))])
    small.rows("de", "train", rows_of("de", "train", 6))
    project = released(small, monkeypatch)
    assert merged_languages(project, "mood") == ("de",)
    with pytest.raises(InputError, match="'en' did not leave the trunk"):
        inquire(project, "mood", [Question(without=("en",))])
    with pytest.raises(InputError, match="without its branches the merge is its trunk"):
        inquire(project, "mood", [Question(without=("de",))])
    (variant,) = inquire(project, "mood", [Question(weights={"de": 2.0})]).variants
    assert variant.merge.uses.trunk


def released(small: Small, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project after a run, as far as its store and its choice are concerned."""
    project = small.project(monkeypatch)
    for step in project.steps:
        if step.id not in project.store.ids():
            with project.store.building(step.id, step.name, step.identity) as draft:
                draft.facts["rows"] = dict(step.rows)
                if step.kind == "evaluate":
                    row = {"key": "1", "language": step.language, "gold": "good"}
                    text = json.dumps({**row, "prediction": "good"}) + "\n"
                    (draft.folder / "rows.jsonl").write_text(text)
                if step.kind == "select":
                    chosen, adapter = next(iter(step.uses.candidates.items()))
                    draft.facts.update(chosen=chosen.title, adapter=adapter)
        project.store.point({step.name: step.id})
    return small.project(monkeypatch)

"""What changed rows mean for an adapter: kept, trained on from its last state, or made anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.digest import short
from koinize.errors import StepError
from koinize.ledger.address import Address
from koinize.pipeline import Project
from koinize.pipeline import project as projects
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.lineage import EXAMPLES, ancestors, select, together
from koinize.pipeline.step import Step, Uses
from koinize.release import garbage
from koinize.store import Store
from koinize.tasks import Example
from tests.pipeline.conftest import SPEC, Small

CONTINUE = SPEC.replace("{epochs: 2}", "{epochs: 2, update: {mode: continue, gone: 0.25}}")
BOTH = CONTINUE + "baselines: [base, indv, comb, comb-continued]\n"
ROWS = [f"de train {n}" for n in range(4)]
ROW_BYTES = len("de train 0 = good" + " good" + " bad")  # of a good row; a bad one has one less
TRAIN = "train/mood/de"


def trained(steps: dict[str, Step]) -> dict[str, Step]:
    return {name: step for name, step in steps.items() if step.kind == "train"}


def missing(small: Small, store: Store) -> dict[str, str]:
    """The trainings that are not there, and the reasons that comparing inputs would not tell."""
    present = store.ids()
    steps = trained(small.steps(store)).values()
    return {step.name: step.why for step in steps if step.id not in present}


bags = st.lists(st.sampled_from("abcdefgh"), max_size=12)


@given(bags, bags, st.randoms(use_true_random=False))
def test_a_selection_counts_rows_as_a_bag_and_ignores_their_order(now, before, random):
    found = select({"de": now}, {"de": before}, "p", 0, 1.0)
    left = list(before)
    new = [row for row in sorted(now) if row not in left or left.remove(row)]
    assert found.new == {"de": sorted(new)}
    assert found.gone == len(left)
    assert found.old == len(found.replayed["de"]) == len(now) - len(new)
    assert sorted([*found.new["de"], *found.replayed["de"]]) == sorted(now)
    random.shuffle(now)
    random.shuffle(before)
    assert select({"de": now}, {"de": before}, "p", 0, 0.5) == select(
        {"de": sorted(now)}, {"de": sorted(before)}, "p", 0, 0.5
    )


def test_the_draw_depends_on_seed_parent_and_language_and_on_no_other_row():
    rows = [f"row {n}" for n in range(40)]

    def drawn(language="de", parent="p", seed=0, extra=()):
        today = {language: [*rows, *extra]}
        return set(select(today, {language: rows}, parent, seed, 0.25).replayed[language])

    assert len(drawn()) == 10
    assert drawn() == drawn(extra=["new 1", "new 2"])
    assert len({frozenset(one) for one in (drawn(), drawn("en"), drawn(parent="q"))}) == 3
    assert drawn() != drawn(seed=1)


def test_of_a_row_that_stands_twice_as_many_copies_are_picked_as_were_selected():
    twice = [Example(key=str(n), language="de", prompt="same", target="") for n in range(3)]
    row = twice[0].digest
    found = select({"de": [row] * 3}, {"de": [row]}, "p", 0, 0.0)
    assert found.pick("de", twice) == twice[:2]
    assert select({"de": [row] * 3}, {"de": [row]}, "p", 0, 1.0).pick("de", twice) == twice


def test_a_row_that_is_gone_stays_learnt():
    assert together({"de": ["a", "c"]}, {"de": ["a", "a", "b"]}) == {"de": ["a", "a", "b", "c"]}


def test_by_default_a_change_retrains_and_the_way_is_no_part_of_an_id(small: Small) -> None:
    store, before = small.made(), small.steps()
    small.spec(CONTINUE)
    assert {n: s.id for n, s in small.steps(store).items()} == {n: s.id for n, s in before.items()}
    assert missing(small, store) == {}
    small.spec(SPEC)
    small.rows("de", "train", [*ROWS, "new"])
    after = small.steps(store)[TRAIN]
    assert (after.uses, after.why) == (Uses(), "")


def test_new_rows_train_on_from_the_last_adapter(small: Small) -> None:
    small.spec(CONTINUE)
    store, before = small.made(), trained(small.steps())
    small.rows("de", "train", [*ROWS, "new one"])
    steps = small.steps(store)
    after = steps[TRAIN]
    assert after.uses == Uses(parent=before[TRAIN].id)
    assert after.rows == {
        "train rows de": 5,
        "new rows de": 1,
        "replayed rows de": 1,  # a quarter of four
        "dev rows de": 2,
    }
    assert set(after.inputs) == {*after.rows, "base", "lora", "training", "update"}
    # Two epochs over the new row and a replayed one, which is good or bad.
    new = len("new one = good" + " good" + " bad")
    assert after.units in {2 * (new + ROW_BYTES), 2 * (new + ROW_BYTES - 1)}
    share = after.units / (2 * (4 * ROW_BYTES - 2 + new))
    assert missing(small, store) == {
        TRAIN: f"1 new row: continued from {short(before[TRAIN].id)} with 1 of 4 old ones, "
        f"{share:.0%} of a retraining"
    }
    assert after.needs == small.steps()[TRAIN].needs  # the parent is there: no step of today
    assert steps["train/mood/en"].id == before["train/mood/en"].id


def test_the_result_is_the_next_parent_and_nothing_goes_in_circles(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    chain = [small.steps(store)[TRAIN].id]
    for n in range(3):
        small.rows("de", "train", [*ROWS, *(f"new {k}" for k in range(n + 1))])
        planned = small.steps(store)[TRAIN]
        assert planned.uses == Uses(parent=chain[-1])
        small.made(store)
        assert missing(small, store) == {}
        kept = small.steps(store)[TRAIN]
        assert (kept.id, kept.rows) == (planned.id, planned.rows)
        chain.append(kept.id)
    assert len(set(chain)) == 4


def test_an_adapter_committed_just_before_a_kill_is_not_made_again(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    names = store.names()
    small.rows("de", "train", [*ROWS, "new one"])
    made = small.made(store).names()[TRAIN]
    store.point(names)  # as it was before the run reached it
    assert small.steps(store)[TRAIN].id == made
    assert missing(small, store) == {}


def test_an_adapter_trained_on_exactly_these_rows_is_used(small: Small) -> None:
    store = small.made()
    first = store.names()[TRAIN]
    small.spec(CONTINUE)
    small.rows("de", "train", [*ROWS, "new one"])
    continued = small.made(store).names()[TRAIN]
    assert continued != first
    small.rows("de", "dev", ["other", "dev rows"])  # dev rows are not learnt
    small.spec(CONTINUE.replace("gone: 0.25", "replay: 0.75"))  # nor is it how the next one goes
    assert small.steps(store)[TRAIN].id == continued
    small.rows("de", "train", ROWS)  # as at first
    assert small.steps(store)[TRAIN].id == first
    small.spec(SPEC)  # the way to have it from the base: no adapter but that one
    small.rows("de", "train", [*ROWS, "new one"])
    assert small.steps(store)[TRAIN].uses == Uses()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (["changed", *ROWS[1:], "new"], ""),  # 1 of 4 is gone, which is a quarter
        (["changed", "too", *ROWS[2:], "new"], "learnt rows that are gone: 2 of 4"),
        (ROWS[:3], "learnt rows that are gone: 1 of 4, and none is new"),
    ],
)
def test_rows_that_are_gone_retrain_where_they_are_many_or_nothing_is_new(
    small: Small, rows: list[str], why: str
) -> None:
    small.spec(CONTINUE)
    store = small.made()
    small.rows("de", "train", rows)
    after = small.steps(store)[TRAIN]
    if why:
        assert after.id == small.steps()[TRAIN].id
        assert missing(small, store) == {TRAIN: f"retrained from the base: {why}"}
    else:
        assert after.uses.parent
        assert after.why.endswith("; learnt rows that are gone and stay learnt: 1")


def test_small_removals_add_up_over_a_chain(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    small.rows("de", "train", ["new 0", *ROWS[1:]])
    assert small.steps(store)[TRAIN].uses.parent
    small.made(store)  # five rows learnt, one of them gone
    small.rows("de", "train", ["new 0", "new 1", *ROWS[2:]])
    assert small.steps(store)[TRAIN].why == (
        "retrained from the base: learnt rows that are gone: 2 of 5"
    )


def test_a_row_that_comes_back_is_still_learnt(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    small.rows("de", "train", ["new 0", *ROWS[1:]])
    made = small.made(store).names()[TRAIN]
    # The same rows in their old places, so that each has the label that it had.
    small.rows("de", "train", [*ROWS, "new 0"])
    assert small.steps(store)[TRAIN].id == made
    assert missing(small, store) == {}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (CONTINUE + "lora: {r: 4}\n", "lora changed"),
        (
            CONTINUE.replace("epochs: 2,", "epochs: 3,") + "lora: {r: 4}\n",
            "lora and training changed",
        ),
    ],
)
def test_other_settings_retrain_and_say_so(small: Small, spec: str, why: str) -> None:
    small.spec(CONTINUE)
    store = small.made()
    small.rows("de", "train", [*ROWS, "new one"])
    small.spec(spec)
    assert missing(small, store)[TRAIN] == f"retrained from the base: {why}"


def test_adapters_that_cannot_be_a_parent_are_named(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(CONTINUE)
    steps = trained(small.steps())
    store = Store(small.root / "older")
    for step in steps.values():
        with store.building(step.id, step.name, step.identity):
            pass  # as koinize made them before: without a list
        store.point({step.name: step.id})
    assert missing(small, store) == {}
    small.rows("de", "train", [*ROWS, "new one"])
    assert missing(small, store) == {
        TRAIN: "retrained from the base: the last adapter keeps no list of its rows"
    }
    address = Address("import", "mood", language="de")
    imported = Step(address, inputs={"adapter files": "f", "base": "b" * 64})
    with store.building(imported.id, TRAIN, imported.identity):
        pass
    store.point({TRAIN: imported.id})
    assert missing(small, store) == {
        TRAIN: "retrained from the base: the last adapter was trained elsewhere"
    }
    store = small.made()
    small.rows("de", "train", [*ROWS, "new one", "and another"])
    monkeypatch.setitem(KINDS, "train", replace(KINDS["train"], version=99))
    assert missing(small, store)[TRAIN] == (
        "retrained from the base: koinize trains differently now"
    )


def test_rows_that_change_while_they_are_planned_are_refused(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(CONTINUE)
    store = small.made()
    small.rows("de", "train", [*ROWS, "new one"])

    def late(self: Store, artifact_id: str) -> None:
        pytest.fail("the parent is read after the rows")

    def edited(spec: object, root: Path, memory: Path) -> object:
        found = survey(spec, root, memory)
        small.rows("de", "train", [*ROWS, "new one", "newer"])
        return found

    survey = __import__("koinize.pipeline.inputs").pipeline.inputs.survey
    monkeypatch.setattr("tests.pipeline.conftest.survey", edited)
    monkeypatch.setattr(Store, "open", late)
    with pytest.raises(StepError) as caught:
        small.steps(store)
    assert str(caught.value) == "data/de.train.jsonl changed while it was read; run again"


def test_comb_continued_is_comb_until_rows_change(small: Small) -> None:
    small.spec(BOTH)
    store = small.made()
    assert "train/mood/comb-continued" not in small.steps(store)
    assert not [name for name in small.steps(store) if "COMB-CONTINUED" in name]
    small.rows("de", "train", [*ROWS, "new one"])
    steps = small.steps(store)
    comb, continued = steps["train/mood/comb"], steps["train/mood/comb-continued"]
    assert continued.uses == Uses(parent=comb.id)
    assert continued.rows == {
        "train rows de": 5,
        "train rows en": 4,
        "new rows de": 1,
        "replayed rows de": 1,
        "replayed rows en": 1,
        "dev rows de": 2,
        "dev rows en": 2,
    }
    for language in ("de", "en"):
        test = steps[f"evaluate/mood/COMB-CONTINUED/{language}/test"]
        assert test.uses == Uses(adapter=continued.id)
    assert missing(small, store).keys() == {TRAIN, "train/mood/comb-continued"}


def test_comb_continued_goes_on_from_what_knows_most_of_todays_rows(small: Small) -> None:
    small.spec(BOTH)
    name = "train/mood/comb-continued"
    store = small.made()
    small.rows("de", "train", [*ROWS, "new 0"])
    first = small.made(store).names()[name]
    assert missing(small, store) == {}
    small.rows("de", "train", [*ROWS, "new 0", "new 1"])
    second = small.steps(store)[name]
    assert second.uses == Uses(parent=first)
    small.made(store)
    # COMB trained again on everything: both are there and stay, each as it is.
    retrained = small.steps(store, retrain_comb=True)
    assert retrained["train/mood/comb"].uses == Uses()
    assert retrained[name].id == second.id
    for step in trained(retrained).values():
        if step.id not in store.ids():
            with store.building(step.id, step.name, step.identity):
                pass
        store.point({step.name: step.id})
    assert missing(small, store) == {}
    # Where COMB knows more than the chain does, the chain ends and another begins.
    small.rows("de", "train", [*ROWS, "new 0", "new 1", "new 2"])
    assert small.steps(store)[name].uses == Uses(parent=second.id)


def test_the_list_of_rows_lies_beside_the_adapter(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    learnt = json.loads(store.open(store.names()["train/mood/comb"]).path(EXAMPLES).read_bytes())
    assert {language: len(rows) for language, rows in learnt.items()} == {"de": 4, "en": 4}
    assert learnt["de"] == sorted(learnt["de"])


def test_what_an_adapter_went_on_from_is_no_garbage(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    small.spec(CONTINUE)
    store = small.made(Store(small.root / ".koinize"))
    parent = store.names()[TRAIN]
    small.rows("de", "train", [*ROWS, "de train 7"])
    small.made(store)
    assert store.names()[TRAIN] != parent
    project = Project.at(small.root / "koinize.yaml")
    assert parent not in {one.id for one in garbage(project)}


def test_a_continued_adapter_that_broke_is_built_again_from_the_same_parent(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    parent = store.names()[TRAIN]
    small.rows("de", "train", [*ROWS, "de train 7"])
    small.made(store)
    child = store.names()[TRAIN]
    store.lose(child)
    again = small.steps(store)[TRAIN]
    assert (again.id, again.uses) == (child, Uses(parent=parent))
    # And where its rows changed as well, the update goes on from what it had gone on from.
    small.rows("de", "train", [*ROWS, "de train 7", "de train 8"])
    assert small.steps(store)[TRAIN].uses == Uses(parent=parent)
    store.lose(parent)
    assert small.steps(store)[TRAIN].why == "retrained from the base: the last adapter is lost"


def test_a_chain_knows_all_that_it_stands_on(small: Small) -> None:
    small.spec(CONTINUE)
    store = small.made()
    first = store.names()[TRAIN]
    assert list(ancestors(small.steps(store)[TRAIN], store)) == []
    small.rows("de", "train", [*ROWS, "de train 7"])
    second = small.made(store).names()[TRAIN]
    small.rows("de", "train", [*ROWS, "de train 7", "de train 8"])
    small.made(store)
    assert list(ancestors(small.steps(store)[TRAIN], store)) == [second, first]

"""The plan: reasons in words, estimates by arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from koinize.ledger import Interval
from koinize.pipeline import alternative
from koinize.pipeline.estimate import Rate, Work, schedule
from koinize.pipeline.experience import learn
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.plan import Plan, plan
from koinize.pipeline.step import Step, Uses
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small
from tests.pipeline.ledgers import interval
from tests.pipeline.steps import step_named

PRICE = {"per_hour": "3.60", "currency": "EUR", "source": "a list", "date": "2026-01-01"}


def step(name: str, units: int = 0, kind: str = "train", **more: object) -> Step:
    return step_named(name, kind, units=units, **more)


def planned(steps: list[Step], root: Path, workers: int = 2, *history: Interval) -> Plan:
    return plan(steps, Store(root), learn(history), workers, PRICE)


def commit(store: Store, one: Step) -> None:
    with store.building(one.id, one.name, one.identity) as draft:
        draft.facts.update(rows=dict(one.rows), settings=dict(one.settings))
    store.point({one.name: one.id})


def test_rates_come_from_finished_steps_of_the_same_kind(tmp_path: Path) -> None:
    history = [
        interval("train", "10", 100),  # 0.1 s per unit
        interval("train", "30", 100),  # 0.3
        interval("train", "20", 100),  # 0.2: 60 s for 300 units in all
        interval("train", "900", 1, "failed"),
        interval("evaluate", "1", 100),
    ]
    todo = planned([step("train/t/de", units=50)], tmp_path, 2, *history)
    assert todo.missing[0].seconds == pytest.approx(50 * 0.2)
    assert todo.guessed == ()


def test_both_clocks_and_money(tmp_path: Path) -> None:
    history = [interval("train", "1", 1), interval("merge", "1", 1)]
    first, second = step("train/t/de", units=10), step("train/t/en", units=30)
    merge = step("merge/t/x", 5, "merge", uses=Uses(adapters={"de": first.id, "en": second.id}))
    todo = planned([first, second, merge], tmp_path, 2, *history)
    # Two workers: 10 and 30 side by side, then 5. The machine is shared by two.
    assert todo.wall.value == pytest.approx(35)
    assert todo.machine.value == pytest.approx(45 / 2)
    assert todo.wall.low < 35 < todo.wall.high
    # The whole machine is paid for, also while one of two workers waits.
    cost = todo.cost(todo.wall)
    assert cost is not None
    assert cost.value == pytest.approx(35 * 3.60 / 3600)
    assert cost.high == pytest.approx(todo.wall.high * 3.60 / 3600)


def test_one_worker_adds_everything_up(tmp_path: Path) -> None:
    history = [interval("train", "1", 1)]
    steps = [step(f"train/t/{n}", units=10) for n in range(3)]
    todo = planned(steps, tmp_path, 1, *history)
    assert todo.wall.value == todo.machine.value == pytest.approx(30)


def test_what_is_there_is_not_planned(tmp_path: Path) -> None:
    done, open_ = step("train/t/de"), step("train/t/en")
    commit(Store(tmp_path), done)
    todo = planned([done, open_], tmp_path)
    assert [(one.step.name, one.why) for one in todo.missing] == [("train/t/en", "never done")]
    assert todo.total == 2


def test_why_names_rows_with_their_number(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    for one in small.steps().values():
        commit(store, one)
    small.rows("de", "train", [f"de train {n}" for n in range(7)])
    why = {m.step.name: m.why for m in planned(list(small.steps().values()), store.root).missing}
    assert why["train/mood/de"] == "train rows de changed, +3 rows"
    assert why["train/mood/comb"] == "train rows de changed, +3 rows"
    assert why["merge/mood/ties density 0.5"] == "train/mood/de is made anew"
    assert why["evaluate/mood/COMB/en/test"] == "train/mood/comb is made anew"
    assert "train/mood/en" not in why


def test_why_says_that_a_language_is_new_and_that_one_is_gone(small: Small, tmp_path: Path) -> None:
    for split, count in (("train", 5), ("dev", 2), ("test", 3)):
        small.rows("sw", split, [f"sw {split} {n}" for n in range(count)])
    store = Store(tmp_path / "home")
    patience = SPEC.replace("{epochs: 2}", "{epochs: 2, patience: 1}")
    small.spec(patience)
    why = reasons(small, store, patience.replace("[en, de]", "[en, de, sw]"))
    assert why["train/mood/comb"] == "dev rows sw added, 2 rows; train rows sw added, 5 rows"
    assert why["train/mood/sw"] == "never done"
    assert why["merge/mood/ties density 0.5"] == "train/mood/sw added"
    why = reasons(small, store, patience.replace("[en, de]", "[en, sw]"))
    assert why["train/mood/comb"] == "dev rows de no longer used; train rows de no longer used"


def reasons(small: Small, store: Store, spec: str) -> dict[str, str]:
    """Why, after everything was done with the usual settings, these need something else."""
    for one in small.steps().values():
        commit(store, one)
    small.spec(spec)
    return {m.step.name: m.why for m in planned(list(small.steps().values()), store.root).missing}


@pytest.mark.parametrize(
    ("old", "new", "step_name", "why"),
    [
        (
            "{epochs: 2}",
            "{epochs: 3}",
            "train/mood/de",
            "training.epochs back to its default from 2",
        ),
        ("{epochs: 2}", "{epochs: 4}", "train/mood/de", "training.epochs changed from 2 to 4"),
        ("{epochs: 2}", "{epochs: 2, seed: 1}", "train/mood/comb", "training.seed set to 1"),
        (
            "{epochs: 2}",
            "{epochs: 4, seed: 1}",
            "train/mood/de",
            "training.epochs changed from 2 to 4; training.seed set to 1",
        ),
        (
            "training:",
            "lora: {overrides: {de: {r: 4}}}\ntraining:",
            "train/mood/de",
            "lora.r set to 4",
        ),
        (
            "training:",
            "evaluation: {normalize: length}\ntraining:",
            "evaluate/mood/BASE/de/test",
            "evaluation.normalize set to length",
        ),
    ],
)
def test_why_names_settings(
    small: Small, tmp_path: Path, old: str, new: str, step_name: str, why: str
) -> None:
    found = reasons(small, Store(tmp_path / "home"), SPEC.replace(old, new))
    assert found[step_name] == why


def test_why_of_an_artifact_that_kept_digests_alone(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    for one in small.steps().values():
        with store.building(one.id, one.name, one.identity) as draft:
            draft.facts["rows"] = dict(one.rows)
        store.point({one.name: one.id})
    small.spec(SPEC.replace("epochs: 2", "epochs: 3"))
    why = {m.step.name: m.why for m in planned(list(small.steps().values()), store.root).missing}
    assert why["train/mood/de"] == "training changed"


def test_why_says_that_an_artifact_is_gone(tmp_path: Path) -> None:
    one = step("train/t/de")
    commit(Store(tmp_path), one)
    Store(tmp_path).discard(one.id)
    assert [m.why for m in planned([one], tmp_path).missing] == ["its artifact is gone"]


def test_why_after_a_new_code_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(Store(tmp_path), step("train/t/de"))
    monkeypatch.setitem(KINDS, "train", replace(KINDS["train"], version=99))
    [missing] = planned([step("train/t/de")], tmp_path).missing
    assert missing.why == "koinize computes it differently now"


def finished(small: Small, store: Store) -> None:
    for one in small.steps().values():
        commit(store, one)


def test_an_update_is_compared_with_retraining_on_everything(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    finished(small, store)
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    steps = small.steps()
    history = [interval("train", "1", 1), interval("merge", "5", 1), interval("evaluate", "1", 10)]
    todo = plan(
        [one for one in steps.values() if "comb" not in one.name and "COMB" not in one.name],
        store,
        learn(history),
        1,
        PRICE,
    )
    found = todo.comparison
    assert found is not None
    assert (found.tasks, found.measured) == (("mood",), False)
    widest = found.scopes[-1]
    both = widest.update.wall.value + found.besides.wall.value  # no step of COMB is missing
    assert both == pytest.approx(todo.wall.value)
    # COMB reads what both languages read; both are then evaluated, once each. One worker.
    trained = steps["train/mood/de"].units + steps["train/mood/en"].units
    assert trained == steps["train/mood/comb"].units
    tested = sum(steps[f"evaluate/mood/COMB/{one}/test"].units for one in ("de", "en"))
    assert widest.retrain.wall.value == pytest.approx(trained + tested / 10)
    assert [one.scope for one in found.scopes] == ["training", "testing", "choosing"]
    assert found.scopes[0].retrain.wall.value == pytest.approx(trained)
    # One worker and no load: the language, the first candidate's merge, and its tests like COMB's.
    de = steps["train/mood/de"].units
    assert found.scopes[0].update.machine.value == pytest.approx(de + 5)
    assert found.scopes[1].update.machine.value == pytest.approx(de + 5 + tested / 10)


def test_comb_as_it_was_measured_stands_for_comb(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    finished(small, store)
    before = small.steps()
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    steps = small.steps(store)  # which keeps COMB as it is
    history = [
        interval("train", "1", 1, step="train/mood/de"),
        interval("train", "50", before["train/mood/comb"].units, step="train/mood/comb"),
        interval("evaluate", "1", 10, step="evaluate/mood/X/de/dev"),
        interval("evaluate", "3", 30, step="evaluate/mood/COMB/de/test"),
    ]
    found = plan(list(steps.values()), store, learn(history), 1, PRICE).comparison
    assert found is not None
    assert found.measured
    more = steps["train/mood/comb"].units / before["train/mood/comb"].units
    tested = sum(steps[f"evaluate/mood/COMB/{one}/test"].units for one in ("de", "en"))
    assert found.scopes[-1].retrain.wall.value == pytest.approx(50 * more + tested / 10)


def test_combs_own_steps_are_no_part_of_the_update(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    finished(small, store)
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    todo = plan(list(small.steps().values()), store, learn([]), 1, PRICE)
    assert any(one.step.name == "train/mood/comb" for one in todo.missing)
    assert todo.comparison is not None
    combs = [one.seconds for one in todo.missing if "comb" in one.step.name.lower()]
    both = todo.comparison.scopes[-1].update.wall.value + todo.comparison.besides.wall.value
    assert both == pytest.approx(todo.wall.value - sum(combs))


def test_workers_that_train_comb_at_once_are_so_many_times_as_fast(
    small: Small, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home")
    finished(small, store)
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    steps = small.steps()
    history = [
        interval("load", "7", 0, step="load"),
        *(interval(kind, "1", 1) for kind in ("train", "merge", "evaluate", "select")),
    ]
    found = plan(list(steps.values()), store, learn(history), 2, PRICE).comparison
    assert found is not None
    assert found.workers == 2
    widest = found.scopes[-1]
    comb = steps["train/mood/comb"].units
    tests = [steps[f"evaluate/mood/COMB/{one}/test"].units for one in ("de", "en")]
    # One worker trains while the other waits, and loads the model for its evaluation afterwards.
    assert widest.retrain.wall.value == pytest.approx(7 + comb + max(tests[0], 7 + tests[1]))
    assert widest.shared.wall.value == pytest.approx(7 + comb / 2 + max(tests))
    # Both hold half a machine: what they hold together is the same, whoever waits for whom.
    assert widest.retrain.machine.value == pytest.approx((14 + comb + sum(tests)) / 2)
    assert widest.shared.machine.value == pytest.approx(widest.retrain.machine.value)


def test_of_two_tasks_one_comb_after_the_other_has_all_workers(small: Small) -> None:
    rate = Rate(1.0, 0.0, 0.0, 0.0)
    work = [
        Work(step(f"train/{task}/comb", units), rate, units) for task, units in (("a", 8), ("b", 4))
    ]
    times = schedule(list(alternative._shared(work, 4)), 4, None)
    assert (times.wall.value, times.machine.value) == (pytest.approx(3), pytest.approx(3))


def test_a_set_up_is_compared_without_its_tests(small: Small, tmp_path: Path) -> None:
    history = [interval(kind, "1", 1) for kind in ("train", "merge", "evaluate", "select")]
    steps = small.steps()
    todo = planned(list(steps.values()), tmp_path / "home", 2, *history)
    assert todo.comparison is None
    found = todo.set_up
    assert found is not None
    assert (found.tasks, found.workers) == (("mood",), 2)
    de, en, comb = (steps[f"train/mood/{one}"].units for one in ("de", "en", "comb"))
    merges = sum(one.kind == "merge" for one in steps.values())
    # Each of two workers trains a language; then every merge takes a second.
    assert found.merged.wall.value == pytest.approx(max(de, en) + merges / 2)
    assert found.merged.machine.value == pytest.approx((de + en + merges) / 2)
    assert found.combined.wall.value == pytest.approx(comb)
    assert found.shared.wall.value == pytest.approx(comb / 2)
    assert found.combined.machine.value == pytest.approx(comb / 2)
    assert found.shared.machine.value == pytest.approx(comb / 2)


def test_a_project_without_comb_is_set_up_against_one_that_reads_all_rows(
    small: Small, tmp_path: Path
) -> None:
    small.spec(SPEC.replace("merge:", "baselines: [indv]\nmerge:"))
    todo = planned(list(small.steps().values()), tmp_path / "home", 2, interval("train", "1", 1))
    assert todo.set_up is not None
    trained = sum(one.units for one in small.steps().values() if one.kind == "train")
    assert todo.set_up.combined.wall.value == pytest.approx(trained)


def test_a_trunk_is_no_set_up_to_compare(small: Small, tmp_path: Path) -> None:
    small.spec(SPEC.replace("{epochs: 2}", "{epochs: 2, trunk: joint}"))
    assert planned(list(small.steps().values()), tmp_path / "home").set_up is None


def test_new_test_rows_alone_are_no_update(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    finished(small, store)
    small.rows("de", "test", ["another", "third"])
    todo = planned(list(small.steps().values()), store.root)
    assert (todo.comparison, todo.set_up) == (None, None)

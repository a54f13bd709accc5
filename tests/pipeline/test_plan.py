"""The plan: reasons in words, estimates by arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.ledger import Interval
from koinize.pipeline.plan import Plan, plan
from koinize.pipeline.step import Step
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small

PRICE = {"per_hour": "3.60", "currency": "EUR", "source": "a list", "date": "2026-01-01"}


def step(name: str, units: int = 0, kind: str = "train", **more: object) -> Step:
    return Step(kind=kind, name=name, inputs={"what": name}, units=units, **more)


def interval(kind: str, seconds: str, units: int, status: str = "done") -> Interval:
    return Interval(
        id="i",
        run="r",
        step="s",
        kind=kind,
        artifact="a",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=Decimal(seconds),
        share=Decimal("0.5"),
        device="d",
        status=status,
        tokens=0,
        units=units,
        error="",
        price={},
    )


def planned(steps: list[Step], root: Path, workers: int = 2, *history: Interval) -> Plan:
    return plan(steps, Store(root), history, workers, PRICE)


def commit(store: Store, one: Step) -> None:
    with store.building(one.id, one.name, one.identity) as draft:
        draft.facts["rows"] = dict(one.rows)
    store.point({one.name: one.id})


def test_rates_come_from_finished_steps_of_the_same_kind(tmp_path: Path) -> None:
    history = [
        interval("train", "10", 100),  # 0.1 s per unit
        interval("train", "30", 100),  # 0.3
        interval("train", "20", 100),  # 0.2, the median
        interval("train", "900", 1, "failed"),
        interval("evaluate", "1", 100),
    ]
    todo = planned([step("train/t/de", units=50)], tmp_path, 2, *history)
    assert todo.missing[0].seconds == pytest.approx(50 * 0.2)
    assert todo.learnt


def test_both_clocks_and_money(tmp_path: Path) -> None:
    history = [interval("train", "1", 1), interval("merge", "1", 1)]
    first, second = step("train/t/de", units=10), step("train/t/en", units=30)
    merge = step("merge/t/x", 5, "merge", uses={"de": first.id, "en": second.id})
    todo = planned([first, second, merge], tmp_path, 2, *history)
    # Two workers: 10 and 30 side by side, then 5. The machine is shared by two.
    assert todo.wall_seconds == pytest.approx(35)
    assert todo.machine_seconds == pytest.approx(45 / 2)
    assert float(todo.cost or 0) == pytest.approx(22.5 * 3.60 / 3600)
    assert todo.currency == "EUR"


def test_one_worker_adds_everything_up(tmp_path: Path) -> None:
    history = [interval("train", "1", 1)]
    steps = [step(f"train/t/{n}", units=10) for n in range(3)]
    todo = planned(steps, tmp_path, 1, *history)
    assert todo.wall_seconds == todo.machine_seconds == pytest.approx(30)


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


def test_why_names_settings(small: Small, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    for one in small.steps().values():
        commit(store, one)
    small.spec(SPEC.replace("epochs: 2", "epochs: 3"))
    why = {m.step.name: m.why for m in planned(list(small.steps().values()), store.root).missing}
    assert why["train/mood/de"] == "training changed"


def test_why_says_that_an_artifact_is_gone(tmp_path: Path) -> None:
    one = step("train/t/de")
    commit(Store(tmp_path), one)
    Store(tmp_path).discard(one.id)
    assert [m.why for m in planned([one], tmp_path).missing] == ["never done"]


def test_why_after_a_new_code_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(Store(tmp_path), step("train/t/de"))
    monkeypatch.setitem(__import__("koinize.pipeline.step").pipeline.step.VERSIONS, "train", 99)
    [missing] = planned([step("train/t/de")], tmp_path).missing
    assert missing.why == "koinize computes it differently now"

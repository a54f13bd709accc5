"""What a ledger teaches, and that it is read again only when it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinize import machine
from koinize.errors import KoinizeError
from koinize.ledger import IDLE, LOAD, PROVISION, Ledger
from koinize.pipeline.experience import Experience, Tally, learn, recall
from tests.pipeline.ledgers import interval


def record(ledger: Ledger, name: str, seconds: float, units: int = 10) -> None:
    ledger.start(
        name,
        run="r",
        step=f"train/mood/{name}",
        kind="train",
        artifact="a",
        device=machine.device(),
        share="1",
        price={},
    )
    ledger.end(name, status="done", seconds=seconds, units=units)


def test_sums_by_hand() -> None:
    learnt = learn(
        [
            interval("train", "10", 100, step="train/mood/de"),
            interval("train", "30", 200, step="train/mood/en", run="s"),
            interval("train", "20", 100, step="train/mood/fr", run="s"),
            interval("train", "900", 1, "failed", step="train/mood/de"),
            interval("train", "900", 1, "interrupted", step="train/mood/de"),
            interval("train", "900", 1, "open", step="train/mood/de"),
        ]
    )
    [(sort, tally)] = learnt.tallies.items()
    assert sort == (machine.device(), "train", "mood")
    assert tally == Tally(
        count=3,
        seconds=60.0,
        units=400,
        squared_units=100**2 + 200**2 + 100**2,
        squared_seconds=10**2 / 100 + 30**2 / 200 + 20**2 / 100,
        runs=2,
        squared_run_units=100**2 + 300**2,
        squared_run_seconds=10**2 / 100 + 50**2 / 300,
    )
    assert learnt.unfinished == 1


def test_what_is_no_step_stays_apart() -> None:
    kinds = (IDLE, LOAD, PROVISION, "unheard-of")
    learnt = learn([interval("train", "10", 100), *(interval(one, "900", 0) for one in kinds)])
    assert learnt.tallies[machine.device(), "train", ""].seconds == 10
    assert learnt.tallies[machine.device(), LOAD, ""] == Tally.of_run([(900.0, 1)])


def test_scoring_to_answer_a_question_teaches_about_its_task() -> None:
    asked = interval("evaluate", "10", 100, step="whatif/evaluate/mood/ties, without de/en/dev")
    assert list(learn([asked]).tallies) == [(machine.device(), "evaluate", "mood")]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("train", "train/mood/de", "mood"),
        ("evaluate", "evaluate/mood/only a/b/de/test", "mood"),
        ("merge", "merge/mood/ties density 0.5 scale 2", "ties"),
        ("merge", "merge/mood/ties density 0.5 space knots", "ties knots"),
        ("merge", "merge/mood/ties density 1 space core dialect peft", "ties core peft"),
        ("merge", "whatif/merge/mood/ties density 1 space knots, without de", "ties knots"),
        ("merge", "whatif/merge/mood/mean, without de", "mean"),
        ("gate", "gate/mood", "mood"),
        ("base", "base", ""),
        (LOAD, "load", ""),
    ],
)
def test_what_a_rate_is_learnt_apart_for(kind: str, name: str, expected: str) -> None:
    assert interval(kind, "1", 1, step=name).alike == expected


def test_the_last_comb_is_remembered_step_by_step() -> None:
    learnt = learn(
        [
            interval("train", "10", 100, step="train/mood/comb"),
            interval("train", "12", 110, step="train/mood/comb"),
            interval("evaluate", "3", 7, step="evaluate/mood/COMB/de/test"),
            interval("train", "5", 50, step="train/mood/de"),
        ]
    )
    assert learnt.combined == {
        "train/mood/comb": Tally.of_run([(12.0, 110)]),
        "evaluate/mood/COMB/de/test": Tally.of_run([(3.0, 7)]),
    }


def test_no_ledger_teaches_nothing(tmp_path: Path) -> None:
    assert recall(Ledger(tmp_path / "ledger.jsonl"), tmp_path / "memory.json") == Experience()
    assert list(tmp_path.iterdir()) == []


def test_it_is_read_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, memory = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "memory.json"
    record(ledger, "de", 10)
    first = recall(ledger, memory)
    assert first == learn(ledger.intervals())
    with monkeypatch.context() as context:
        context.setattr(Ledger, "intervals", None)
        assert recall(ledger, memory) == first
    record(ledger, "en", 20)
    second = recall(ledger, memory)
    assert second == learn(ledger.intervals()) != first


def test_a_memory_that_somebody_changed_is_not_believed(tmp_path: Path) -> None:
    ledger, memory = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "memory.json"
    record(ledger, "de", 10)
    first = recall(ledger, memory)
    memory.write_text(memory.read_text().replace("10.0", "11.0"))
    assert recall(ledger, memory) == first


def test_a_changed_ledger_is_refused(tmp_path: Path) -> None:
    ledger, memory = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "memory.json"
    record(ledger, "de", 10)
    recall(ledger, memory)
    ledger.path.write_text(ledger.path.read_text().replace('"10.000"', '"1.000"'))
    with pytest.raises(KoinizeError, match=r"ledger\.jsonl:2 the ledger was changed"):
        recall(ledger, memory)

"""Trainings that are stopped or killed in the middle go on from there, whoever does the work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from koinize.ledger import Ledger
from koinize.store import Store
from tests.reliability.arena import Arena
from tests.reliability.conditions import check_finished, digests, leftovers
from tests.reliability.test_kill import finish, started

pytestmark = pytest.mark.slow

LONGEST = 120.0
"""Seconds that nothing here should ever take; a test that waits so long fails."""

End = Callable[[subprocess.Popen[str]], None]

TRAINING = "training: {epochs: 4, learning_rate: 2.0e-2, batch_size: 4, max_length: 128}"
LONG = (
    "training: {epochs: 30, learning_rate: 2.0e-2, batch_size: 4, max_length: 128, trunk: joint,\n"
    "  branch: {epochs: 100}}\n"
    "baselines: [base]"
)
"""A trunk, and branches with anchors, that take seconds each. Branches follow a changed file."""


@pytest.fixture(scope="module")
def fresh(real: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny example with longer trainings, in which nothing was run; not to be changed."""
    folder = tmp_path_factory.mktemp("long")
    assert real.koinize("init", "--example", "tiny", "fresh", cwd=folder).code == 0
    spec = folder / "fresh" / "koinize.yaml"
    text = spec.read_text().replace(TRAINING, LONG)
    assert LONG in text
    text = text[: text.index("merge:")] + text[text.index("price:") :]
    spec.write_text(f"{text}machine: {{executor: inline, workers: 1, threads: 1}}\n")
    return folder / "fresh"


@pytest.fixture(scope="module")
def trunk_done(real: Arena, fresh: Path) -> Path:
    """The same with its trunk, evaluated."""
    root = Path(shutil.copytree(fresh, fresh.with_name("trunk")))
    finish(real, root)
    return root


@pytest.fixture(scope="module")
def changed(trunk_done: Path) -> Path:
    """The same after a row of Japanese came, for which nothing was run yet."""
    root = Path(shutil.copytree(trunk_done, trunk_done.with_name("changed")))
    change(root)
    return root


@pytest.fixture(scope="module")
def branch_done(real: Arena, changed: Path) -> Path:
    """The same with its branch."""
    root = Path(shutil.copytree(changed, changed.with_name("branch")))
    finish(real, root)
    return root


def copied(project: Path, folder: Path, executor: str, every: float) -> Path:
    """A copy to be disturbed."""
    root = Path(shutil.copytree(project, folder / "project"))
    spec = root / "koinize.yaml"
    text = spec.read_text()
    machine = f"executor: {executor}, checkpoint_seconds: {every}"
    spec.write_text(text.replace("executor: inline", machine))
    return root


def change(root: Path) -> None:
    """One row more of Japanese, so that a branch of it is to be trained."""
    rows = root / "data" / "ja.train.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([*lines, lines[0].replace('"text": "', '"text": "x')]))


def training(run: subprocess.Popen[str], root: Path, reached: int) -> None:
    """Wait until a training has done a few steps more than an earlier one had."""
    deadline = time.monotonic() + LONGEST
    while True:
        for done in steps_done(root / ".koinize" / "progress"):
            kind = Ledger(root / ".koinize" / "ledger.jsonl").intervals()[-1].kind
            if kind == "train" and done > reached + 3:
                return
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_done(progress: Path) -> list[int]:
    """What the steps at work tell; each replaces its file, and removes it at its end."""
    found = []
    for path in progress.glob("*"):
        if "." not in path.name:  # neither the part of one that is being written, nor a failure
            with suppress(FileNotFoundError):
                found.append(int(path.read_text().split()[0]))
    return found


def stop(run: subprocess.Popen[str]) -> None:
    run.send_signal(signal.SIGTERM)


def stop_all(run: subprocess.Popen[str]) -> None:
    os.killpg(run.pid, signal.SIGTERM)


def kill(run: subprocess.Popen[str]) -> None:
    run.kill()


def test_a_trunk_in_this_process(
    real: Arena, fresh: Path, trunk_done: Path, tmp_path: Path
) -> None:
    root = copied(fresh, tmp_path, "inline", 300)
    ended(root, stop, 1)
    finish(real, root)
    assert digests(root) == digests(trunk_done)
    check_finished(root)
    check_ledger(root, "trunk/mood", 2)


@pytest.mark.parametrize(("every", "end", "times"), [(300, stop_all, 2), (0.3, kill, 1)])
def test_a_branch_in_a_worker(
    real: Arena,
    changed: Path,
    branch_done: Path,
    tmp_path: Path,
    every: float,
    end: End,
    times: int,
) -> None:
    root = copied(changed, tmp_path, "local", every)
    ended(root, end, times)
    finish(real, root)
    assert digests(root) == digests(branch_done)
    assert leftovers(root) == []
    check_ledger(root, "branch/mood/ja", times + 1)


def check_ledger(root: Path, step: str, attempts: int) -> None:
    """What was lost is little, and all attempts together did the step's work once."""
    store, ledger = Store(root / ".koinize"), Ledger(root / ".koinize" / "ledger.jsonl")
    facts = store.open(store.names()[step]).facts
    made = [one for one in ledger.intervals() if one.step == step]
    assert [one.status for one in made] == ["interrupted"] * (attempts - 1) + ["done"]
    assert sum(one.tokens for one in made) == facts["tokens"]
    assert sum(one.units for one in made) == pytest.approx(facts["units"], abs=attempts)
    for one in made[:-1]:
        assert one.lost is not None
        assert 0 <= one.lost <= one.seconds


def ended(root: Path, end: End, times: int) -> None:
    """End a run in the middle of a training; each time it goes on from there."""
    reached = 0
    for _ in range(times):
        run = started(root)
        training(run, root, reached)
        end(run)
        said = run.communicate(timeout=LONGEST)[0]
        assert run.returncode in (130, -signal.SIGKILL), said
        assert "Traceback" not in said
        store = Store(root / ".koinize")
        assert len(store.checkpoints()) == 1, said
        [artifact] = store.checkpoints()
        if reached:
            assert f" goes on at step {reached} of " in said
        found = store.checkpoint(artifact).read()
        assert found is not None
        assert found["steps"] > reached
        reached = found["steps"]

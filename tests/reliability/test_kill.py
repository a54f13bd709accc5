"""Killed at random moments, `koinize run` goes on where it was and ends as if nothing had been."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from koinize.ledger import Ledger
from koinize.release import Releases, examine
from tests.reliability.arena import Arena
from tests.reliability.conditions import check_finished, digests, leftovers

KILLS = 100
OPERATIONS = 500  # on files, up to which a run may live: some fifteen steps
SHARE = 0.4  # of the time of an undisturbed run, up to which a run may live
SEED = 20261121


def finish(arena: Arena, root: Path) -> None:
    """Let it run to its end, undisturbed."""
    ended = arena.koinize("run", cwd=root)
    assert ended.code == 0, ended.output
    assert "Traceback" not in ended.output


def kill_again_and_again(arena: Arena, fresh: Path, kills: int, seed: int) -> int:
    """A project is killed and run again until it is finished, then a fresh one; returns how many
    were finished. Every second kill is at some operation on a file, the others at some time.
    """
    draw = random.Random(seed)
    undisturbed = fresh.with_name("undisturbed")
    shutil.copytree(fresh, undisturbed)
    began = time.monotonic()
    finish(arena, undisturbed)
    longest = SHARE * (time.monotonic() - began)
    expected = digests(undisturbed)
    left, finished = kills, 0
    while left > 0:
        root = fresh.with_name(f"disturbed-{finished}")
        shutil.copytree(fresh, root)
        said = []
        while left > 0:
            when: dict[str, Any] = {"operation": draw.randrange(1, OPERATIONS)}
            if left % 2:
                when = {"seconds": draw.uniform(0.001, longest)}
            ended = arena.koinize("run", cwd=root, **when)
            said.append(f"{when} {ended.code}")
            assert "Traceback" not in ended.output, (seed, said, ended.output)
            if not ended.killed:
                assert ended.code == 0, (seed, said, ended.output)
                break
            left -= 1
        finish(arena, root)
        try:
            assert digests(root) == expected
            check_finished(root)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {root}: {'; '.join(said)}") from error
        finished += 1
    return finished


def test_a_few_kills_around_steps_of_no_weight(fake: Arena, new: Path) -> None:
    kill_again_and_again(fake, new, 10, SEED)


@pytest.mark.slow
def test_a_few_kills_around_steps_that_are_done_at_once(fake: Arena, new: Path) -> None:
    spec = new / "koinize.yaml"
    spec.write_text(
        spec.read_text().replace("{executor: inline}", "{executor: inline, together: 4}")
    )
    kill_again_and_again(fake, new, 10, SEED)
    ledger = Ledger(new.with_name("undisturbed") / ".koinize" / "ledger.jsonl")
    assert {one.kind for one in ledger.intervals() if one.group} == {"train", "evaluate"}


@pytest.mark.slow
def test_a_hundred_kills_around_steps_of_no_weight(fake: Arena, new: Path) -> None:
    kill_again_and_again(fake, new, KILLS, SEED + 1)


def test_nothing_is_left_of_a_run_that_was_killed_after_its_last_step(
    fake: Arena, finished: Path
) -> None:
    """The next run has nothing to do but that: its steps are done, and its report may be."""
    home = finished / ".koinize"
    for folder in ("progress", "tmp", "logs", "digests"):
        (home / folder).mkdir(exist_ok=True)
    (home / "progress" / ("a" * 64)).write_text("7 8")
    (home / "tmp" / "half").mkdir()
    (home / "holder.json").write_text("{}")
    for path in (home / ".heartbeat-1f.part", home / "logs" / ".step.log-1f.part"):
        path.touch()
    assert leftovers(finished) != []
    finish(fake, finished)
    check_finished(finished)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing_behind(fake: Arena, new: Path, number: int) -> None:
    draw = random.Random(SEED + number)
    for _ in range(3):
        operation = draw.randrange(250, 600)  # after the plan, in which nothing is to be closed
        ended = fake.koinize("run", cwd=new, operation=operation, signal=number)
        assert ended.code == 130, (SEED, operation, ended.output)
        assert "koinize: stopped; finished steps are kept, run again to go on" in ended.output
        intervals = Ledger(new / ".koinize" / "ledger.jsonl").intervals()
        # The signal may come just after the ledger got a line and before the run knows of it.
        assert sum(one.status == "open" for one in intervals) <= 1, operation
        assert [one for one in leftovers(new) if not one.endswith(".part")] == []
    finish(fake, new)
    check_finished(new)


@pytest.mark.parametrize("stride", [50, pytest.param(5, marks=pytest.mark.slow)])
def test_a_promotion_killed_anywhere_leaves_the_old_release_or_the_new_one(
    fake: Arena, finished: Path, stride: int
) -> None:
    """Killed at one operation in so many; then promoted again, whatever was left."""
    undisturbed = Path(shutil.copytree(finished, finished.with_name("undisturbed")))
    assert fake.koinize("promote", cwd=undisturbed).code == 0
    moments = 0
    for operation in range(1, 1000, stride):
        root = finished.with_name(f"killed-{operation}")
        shutil.copytree(finished, root)
        ended = fake.koinize("promote", cwd=root, operation=operation)
        releases = Releases(root / ".koinize", "mood")
        assert releases.channel("production").current in (None, 1)
        for version in releases.versions():
            releases.open(version)
        if not ended.killed:
            break
        moments += 1
        again = fake.koinize("promote", cwd=root)
        assert again.code == 0, (operation, again.output)
        assert releases.versions() == [releases.channel("production").current] == [1]
        assert fake.koinize("run", cwd=root).code == 0
        assert leftovers(root) == [], operation
        assert [one for one in examine(root) if one.state != "good"] == [], operation
        shutil.rmtree(root)
    assert ended.code == 0, ended.output
    assert moments > 2


@pytest.mark.slow
def test_a_hundred_kills_of_the_tiny_example(real: Arena, tmp_path: Path) -> None:
    finished = kill_again_and_again(real, tiny(real, tmp_path), KILLS, SEED)
    assert finished > 1


def tiny(real: Arena, folder: Path) -> Path:
    assert real.koinize("init", "--example", "tiny", "fresh", cwd=folder).code == 0
    spec = folder / "fresh" / "koinize.yaml"
    machine = "executor: inline, workers: 1, threads: 1, checkpoint_seconds: 0"
    spec.write_text(f"{spec.read_text()}machine: {{{machine}}}\n")
    return folder / "fresh"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "kill a worker", "interrupt"])
def test_processes_as_a_user_starts_them(real: Arena, tmp_path: Path, how: str) -> None:
    """Imports, spawned workers, orphans and all."""
    undisturbed = tiny(real, tmp_path)
    root = Path(shutil.copytree(undisturbed, tmp_path / "disturbed"))
    spec = root / "koinize.yaml"
    spec.write_text(spec.read_text().replace("inline, workers: 1", "local, workers: 2"))
    finish(real, undisturbed)
    {"kill": killed, "kill a worker": worker_killed, "interrupt": interrupted}[how](root)
    run = started(root)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert leftovers(root) == []
    assert digests(root) == digests(undisturbed)
    check_finished(root)


def killed(root: Path) -> None:
    draw = random.Random(SEED)
    for _ in range(3):  # torch is not even imported, or the first steps have begun
        run = started(root)
        time.sleep(draw.uniform(0.2, 8.0))
        run.kill()
        run.wait()


def worker_killed(root: Path) -> None:
    run = started(root)
    os.kill(worker_at_work(run, root), signal.SIGKILL)
    output = run.communicate()[0]
    assert run.returncode == 1, output
    assert "ended with its worker process" in output
    assert "Traceback" not in output


def interrupted(root: Path) -> None:
    # A job in a shell's background ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = started(root)
    worker_at_work(run, root)
    os.killpg(run.pid, signal.SIGINT)
    assert "koinize: stopped; finished steps are kept" in run.communicate()[0]
    assert run.returncode == 130
    # A training in hand was saved.
    assert [one for one in leftovers(root) if "/checkpoints/" not in one] == []


def started(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from koinize.cli import main; main()", "run"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def worker_at_work(run: subprocess.Popen[str], root: Path) -> int:
    """A process that the run started, once a training or an evaluation is in hand."""
    ledger = Ledger(root / ".koinize" / "ledger.jsonl")
    while not any(
        one.status == "open" and one.kind in ("train", "evaluate") for one in last(ledger)
    ):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(run.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    workers = [line for line in listed.splitlines() if "spawn_main" in line]
    assert workers, listed
    return int(workers[0].split()[0])


def last(ledger: Ledger) -> list[Any]:
    return ledger.intervals()[-4:]

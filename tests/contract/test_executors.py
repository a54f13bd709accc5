"""What every executor in the catalog must do, and what worker processes must do besides.

Work is given as text for `eval` and `exec`: those can be sent to any process.
"""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from koinize import machine
from koinize.errors import InputError, ManyErrors, StepError
from koinize.executors import HERE, WorkerEndedError, executors

LONG = 60.0
"""Seconds that nothing here should ever take; a test that waits so long fails."""

RAISE = """
from koinize.errors import StepError
raise StepError("what", where="where", expected="expected", remedy="remedy")
"""

RAISE_MANY = """
from koinize.errors import InputError, ManyErrors
raise ManyErrors([InputError("one", where="a:1"), InputError("two", remedy="mend it")])
"""

MEET = """
import pathlib, time
folder = pathlib.Path({folder!r})
(folder / {me!r}).touch()
deadline = time.monotonic() + {long}
while not (folder / {other!r}).exists():
    assert time.monotonic() < deadline, "nobody came"
    time.sleep(0.01)
"""

PARENT = """
import os, time
from koinize.executors import executors
with executors.get("local")(2, 1) as executor:
    pids = {executor.submit(os.getpid).result()}
    executor.submit(time.sleep, 600)
    pids.add(executor.submit(os.getpid).result())
    print(*pids, flush=True)
    time.sleep(600)
"""


SLOW = {"ray"}
"""It takes seconds to start, and is an extra."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in executors.names()],
)
def executor(request):
    if request.param == "ray":
        pytest.importorskip("ray", reason="koinize[ray] is not installed")
    with executors.get(request.param)(2, 1) as opened:
        opened.ready()
        yield opened


@pytest.fixture
def local():
    with executors.get("local")(2, 3) as opened:
        yield opened


def failure(future: Future) -> BaseException:
    error = future.exception(LONG)
    assert error is not None
    return error


def meeting(executor, folder: Path, one: str, other: str) -> list[BaseException | None]:
    """How two pieces of work ended, each of which waits for the other."""
    futures = [
        executor.submit(exec, MEET.format(folder=str(folder), me=me, other=them, long=LONG), {})
        for me, them in ((one, other), (other, one))
    ]
    return [future.exception(LONG) for future in futures]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + LONG
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


def test_results_come_back_each_in_its_own_future(executor):
    futures = [executor.submit(operator.mul, 7, number) for number in range(5)]
    assert [future.result(LONG) for future in futures] == [0, 7, 14, 21, 28]


def test_it_says_how_much_runs_side_by_side(executor):
    assert executor.workers >= 1
    assert executor.workers * executor.threads == 2


def test_it_says_where_work_is_done(executor):
    """All workers together hold no more than the machines on which they are."""
    places = executor.ask()
    assert len(places) == executor.workers
    assert executor.place() in places
    assert {one.node: one.device for one in places} == executor.nodes == {HERE: machine.device()}
    assert 0.999 < sum(one.share for one in places) <= 1


def test_an_exception_travels_with_all_that_it_says(executor):
    error = failure(executor.submit(exec, RAISE, {}))
    assert type(error) is StepError
    assert (error.what, error.where, error.expected, error.remedy) == (
        "what",
        "where",
        "expected",
        "remedy",
    )


def test_many_errors_travel_too(executor):
    error = failure(executor.submit(exec, RAISE_MANY, {}))
    assert type(error) is ManyErrors
    assert str(error) == "a:1 one\ntwo; mend it"
    assert [type(one) for one in error.errors] == [InputError, InputError]


def test_other_exceptions_travel(executor):
    assert type(failure(executor.submit(operator.truediv, 1, 0))) is ZeroDivisionError


def test_one_failure_stops_nobody_else(executor):
    futures = [executor.submit(operator.floordiv, 6, number) for number in (0, 1, 0, 2, 3)]
    wait(futures, LONG)
    assert [future.exception() is None for future in futures] == [False, True, False, True, True]
    assert [future.result() for future in futures if not future.exception()] == [6, 3, 2]


def test_work_runs_side_by_side(tmp_path, local):
    """Each of two waits for the other, so one after the other would never end."""
    assert meeting(local, tmp_path, "a", "b") == [None, None]


def test_more_work_than_workers_waits_its_turn(local):
    pids = {future.result(LONG) for future in [local.submit(os.getpid) for _ in range(8)]}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_a_worker_is_used_again_for_what_it_remembers(local):
    first = local.submit(os.getpid).result(LONG)
    assert local.submit(os.getpid).result(LONG) == first


def test_a_worker_that_dies_takes_only_its_own_work_along(tmp_path, local):
    """As when the system is out of memory."""
    meet = MEET.format(folder=str(tmp_path), me="a", other="b", long=LONG)
    other = local.submit(exec, meet, {})
    killed = local.submit(exec, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {})
    died = failure(killed)
    assert isinstance(died, BrokenProcessPool)
    assert isinstance(died, WorkerEndedError)
    assert (died.how, str(died)) == ("SIGKILL", "SIGKILL")
    (tmp_path / "b").touch()
    assert other.exception(LONG) is None
    assert meeting(local, tmp_path, "c", "d") == [None, None], "there are two workers again"


def test_a_worker_that_ends_itself_is_told_by_its_code(local):
    died = failure(local.submit(exec, "import os; os._exit(7)", {}))
    assert isinstance(died, WorkerEndedError)
    assert died.how == "code 7"


@pytest.mark.parametrize(
    "name",
    ["multiprocessing", "pickle", "struct", pytest.param("torch", marks=pytest.mark.slow)],
)
def test_a_module_in_the_folder_of_today_is_never_one(tmp_path, monkeypatch, name):
    """A new Python looks there before anywhere else, unless it is told not to."""
    planted = "import os\nopen('ran', 'w').close()\nos._exit(1)\n"
    (tmp_path / f"{name}.py").write_text(planted)
    monkeypatch.chdir(tmp_path)
    with executors.get("local")(1, 1) as opened:
        assert opened.submit(exec, f"import {name}", {}).exception(LONG) is None
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def interruptible():
    """Ctrl-C as on a terminal; a parent in the background hands down that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_worker_leaves_interrupts_to_its_parent(interruptible, local):
    pid = local.submit(os.getpid).result(LONG)
    os.kill(pid, signal.SIGINT)
    assert local.submit(os.getpid).result(LONG) == pid


def test_workers_have_their_share_of_threads_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with executors.get("local")(1, 3) as opened:
        read = [opened.submit(os.getenv, f"{one}_NUM_THREADS") for one in ("OMP", "MKL")]
        assert [future.result(LONG) for future in read] == ["3", "3"]
    assert dict(os.environ) == before


LEFT = """\
import atexit, sys
class Left:
    def __del__(self, kept=open):
        kept({folder!r} + "/taken apart", "w").close()
sys.left = Left()
atexit.register(lambda: open({folder!r} + "/heard", "w").close())
"""


def test_a_worker_ends_at_once_and_takes_nothing_apart(tmp_path):
    """Nobody waits while Python frees what torch brought, object by object."""
    with executors.get("local")(1, 1) as opened:
        left = opened.submit(exec, LEFT.format(folder=str(tmp_path)), {})
        assert left.exception(LONG) is None
    assert [one.name for one in tmp_path.iterdir()] == ["heard"]


def test_leaving_on_an_exception_stops_what_runs_and_what_waits(tmp_path):
    started = tmp_path / "started"
    pids, futures = [], []

    def interrupted() -> None:
        with executors.get("local")(1, 1) as opened:
            pids.append(opened.submit(os.getpid).result(LONG))
            busy = f"import time; open({str(started)!r}, 'w').close(); time.sleep(600)"
            futures.extend([opened.submit(exec, busy, {}), opened.submit(os.getpid)])
            deadline = time.monotonic() + LONG
            while not started.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert isinstance(failure(futures[0]), BrokenProcessPool)
    with pytest.raises(CancelledError):
        futures[1].result(LONG)
    wait_until_gone(pids)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_when_their_parent_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert not any(gone(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(pids)

"""What holds for every test."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from koinize import machine
from tests.reliability.arena import Arena

# No test judges by the clock, as Hypothesis would by default: a busy machine fails nothing. And a
# commit that passed passes again: the examples are the same ones, until somebody looks for new
# ones with `pytest --hypothesis-profile search`.
SLOW = [HealthCheck.too_slow]
settings.register_profile("same", deadline=None, suppress_health_check=SLOW, derandomize=True)
settings.register_profile("search", deadline=None, suppress_health_check=SLOW, max_examples=1000)
settings.load_profile("same")


# No test pulls the plug, and what was written is there for every other process, also if its writer
# was killed. Tens of thousands of waits for a disk would say nothing; tests that ask when koinize
# waits put in something of their own.
os.fsync = lambda _: None


def hear_signals() -> None:
    """As Python does by itself, wherever it was started and whoever ran in this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


hear_signals()


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no collection of garbage looks through torch's modules again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def threads():
    """A run in this process takes the threads of its machine; the next test has them as before."""
    torch = sys.modules.get("torch")  # of which a test without it knows nothing
    before = torch.get_num_threads() if torch else 0
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def signals():
    """Every test finds Python's handlers and hears no signal that another one was sent.

    A command that runs in this process takes them for good, since a process ends with its command;
    Ray takes SIGTERM; and a shell starts what runs in its background without Ctrl-C.
    """
    hear_signals()
    machine.stop_asked.clear()


@pytest.fixture(scope="session")
def fake() -> Iterator[Arena]:
    """Runs whose steps are of a few bytes and need no torch; all around them is real."""
    with Arena(fake=True) as arena:
        yield arena


@pytest.fixture(scope="session")
def real() -> Iterator[Arena]:
    """Runs as they are, without what a new process imports."""
    with Arena(fake=False) as arena:
        yield arena

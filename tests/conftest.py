"""What holds for every test."""

import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

from koinize import machine

# No test judges by the clock, as Hypothesis would by default: a busy machine fails nothing. And a
# commit that passed passes again: the examples are the same ones, until somebody looks for new
# ones with `pytest --hypothesis-profile search`.
SLOW = [HealthCheck.too_slow]
settings.register_profile("same", deadline=None, suppress_health_check=SLOW, derandomize=True)
settings.register_profile("search", deadline=None, suppress_health_check=SLOW, max_examples=1000)
settings.load_profile("same")

# A shell starts what runs in its background without Ctrl-C, and tests send it to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """No test hears a signal that another one was sent, and every one finds Python's handlers.

    A command that runs in this process takes them for good, since a process ends with its command.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        if handler is not None:  # of which Python knows nothing
            signal.signal(number, handler)
    machine.stop_asked.clear()

"""One core to a module: what a pool limits, and that it gives back what it found."""

import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_info, threadpool_limits

from koinize.engine.workers import in_order, worker_pool
from tests.peft_folders import save


@pytest.fixture(autouse=True)
def two_cores():
    """Limits that are not 1 already, however the tests were started."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def of_numpy():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def of_torch_in_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_a_pool_works_on_one_core_each_and_gives_the_others_back():
    with worker_pool(2) as pool:
        assert of_numpy() == {1}
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 1  # the caller, who writes what comes
        with worker_pool(1):
            assert of_numpy() == {1}
        assert of_numpy() == {1}  # the outer pool is still at work
    assert of_numpy() == {2}
    assert torch.get_num_threads() == of_torch_in_a_new_thread() == 2


def fail(name):
    raise ValueError(name)


def test_a_pool_that_fails_gives_them_back_too():
    with pytest.raises(ValueError, match="a"), worker_pool(2) as pool:
        list(in_order(pool, fail, "ab", ahead=2))
    assert of_numpy() == {2}
    assert of_torch_in_a_new_thread() == 2


def test_results_come_in_order_and_no_further_ahead_than_asked():
    begun, gate = [], threading.Event()

    def work(name):
        begun.append(name)
        if name == "a":
            gate.wait(30)
        return name.upper()

    with worker_pool(2) as pool:
        results = in_order(pool, work, "abcdef", ahead=3)
        threading.Timer(0.05, gate.set).start()
        assert next(results) == ("a", "A")
        assert set(begun) <= set("abcd")
        assert list(results) == [(one, one.upper()) for one in "bcdef"]


READING = """
import sys
from koinize.engine.inspect import inspect_adapters
from koinize.errors import InputError
for _ in range(12):
    try:
        inspect_adapters({"en": sys.argv[1], "de": sys.argv[2]}, threads=4)
    except InputError:
        continue
    sys.exit("NaN passed")
"""


@pytest.mark.slow
def test_nothing_is_unmapped_that_another_thread_reads(tmp_path):
    """A process that does it ends with a signal: one of three did, of 12 none may."""
    shapes = {f"model.layers.{layer}.q_proj": (256, 2048) for layer in range(8)}
    good, bad = (save(tmp_path / name, seed, shapes=shapes) for seed, name in enumerate("ab"))
    tensors = load_file(bad / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, bad / "adapter_model.safetensors")
    program = [sys.executable, "-c", READING, good, bad]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 0

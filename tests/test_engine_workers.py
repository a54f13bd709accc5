"""One core to a module: what a pool limits, and that it gives back what it found."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from koinize.engine.workers import in_order, worker_pool


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
        with worker_pool(1):
            assert of_numpy() == {1}
        assert of_numpy() == {1}  # the outer pool is still at work
    assert of_numpy() == {2}
    assert of_torch_in_a_new_thread() == 2


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

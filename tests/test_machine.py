"""How work is spread over a machine."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys

import pytest

from koinize import machine


@pytest.mark.parametrize("foreign", [signal.SIGTERM, signal.SIGINT])
def test_what_was_stopped_may_begin_again_whoever_has_the_other_signal(foreign):
    """As Ray has SIGTERM in the program that started it."""
    [other] = {signal.SIGINT, signal.SIGTERM} - {foreign}
    signal.signal(foreign, lambda *_: None)

    def work():
        with machine.stoppable():
            machine.stop_if_asked()
            done.append("some")
            os.kill(os.getpid(), other)

    done = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            work()
    assert done == ["some"] * 2
    machine.stop_if_asked()


PARENT = """
import subprocess, sys
held = b"x" * 300_000_000
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
CHILD = """
from koinize import machine
first = machine.peak_memory()
held = b"x" * 200_000_000
full = machine.peak_memory()
del held
machine.reset_peak_memory()
print(first, full, machine.peak_memory())
"""


@pytest.mark.slow
@pytest.mark.skipif(not machine.CLEAR_REFS.exists(), reason="only Linux can start a peak anew")
def test_the_peak_of_memory_is_of_this_process_and_may_begin_anew():
    """The process that started it held 300 MB."""
    command = [sys.executable, "-c", PARENT, CHILD]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, full, after = map(int, found.split())
    assert first < 100_000_000
    assert first + 190_000_000 < full < first + 210_000_000
    assert after < first + 50_000_000


@pytest.fixture
def with_machine(monkeypatch):
    """Pretend to be a machine with so many cores and GPUs."""

    def pretend(cores: int, gpus: int) -> None:
        monkeypatch.setattr(machine, "cores", lambda: cores)
        monkeypatch.setattr(machine, "gpus", lambda: ("Some GPU",) * gpus)

    return pretend


@pytest.mark.parametrize(
    ("cores", "gpus", "workers", "threads", "expected"),
    [
        (1, 0, "auto", "auto", (1, 1)),
        (2, 0, "auto", "auto", (2, 1)),
        (4, 0, "auto", "auto", (4, 1)),
        (8, 0, "auto", "auto", (4, 2)),  # no more than 4 copies of the base model
        (15, 0, "auto", "auto", (4, 3)),
        (16, 1, "auto", "auto", (1, 16)),
        (16, 3, "auto", "auto", (3, 5)),
        (2, 4, "auto", "auto", (4, 1)),
        (8, 0, 2, "auto", (2, 4)),
        (2, 0, 5, "auto", (5, 1)),
        (8, 0, "auto", 3, (4, 3)),
        (8, 2, 1, 1, (1, 1)),
    ],
)
def test_workers_and_threads(with_machine, cores, gpus, workers, threads, expected):
    with_machine(cores, gpus)
    assert machine.workers_and_threads(workers, threads) == expected


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 3), ("", 0), ("-1", 0), ("0", 1), ("2,0", 2), ("0,-1,1", 1), ("GPU-1f0e, GPU-2c1d", 2)],
)
def test_gpus_that_are_hidden_do_not_count(tmp_path, monkeypatch, visible, count):
    for bus in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text("Model: \t Big GPU\nIRQ:   16\n")
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus.__wrapped__() == ("Big GPU",) * count


def test_a_machine_without_the_driver_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "none")
    assert machine.gpus.__wrapped__() == ()


def test_the_device_is_named_by_its_gpus_or_its_processor(with_machine, monkeypatch):
    monkeypatch.setattr(machine, "_processor", lambda: "Some CPU")
    with_machine(6, 0)
    assert machine.device.__wrapped__() == "6 cores of Some CPU"
    with_machine(6, 2)
    assert machine.device.__wrapped__() == "2 x Some GPU"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "0"]),
        ("2, 5", ["2", "5", "2"]),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b", "GPU-a"]),
    ],
)
def test_each_worker_has_a_gpu_of_its_own(monkeypatch, visible, expected):
    monkeypatch.setattr(machine, "gpus", lambda: ("H200", "H200"))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [machine.gpu_of(worker) for worker in range(3)] == expected


def test_no_gpu_is_no_wish(monkeypatch):
    monkeypatch.setattr(machine, "gpus", tuple)
    assert machine.gpu_of(0) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("143771, 604\n81559, 551\n", (81559 - 551) * 2**20),
        ("[N/A], [N/A]\n", None),
        ("No devices were found\n", None),
        ("", None),
    ],
)
def test_the_memory_of_the_smallest_gpu_in_use_is_asked_for(tmp_path, monkeypatch, said, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho \"$1\" > {tmp_path}/asked\nprintf '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-b")
    monkeypatch.setattr(machine, "gpus", lambda: ("H200", "H100"))
    assert machine.gpu_memory.__wrapped__() == expected
    assert (tmp_path / "asked").read_text() == "--id=2,GPU-b\n"
    program.unlink()
    assert machine.gpu_memory.__wrapped__() is None


FAULTS = """
import resource, sys
import numpy as np
from koinize.machine import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
def use(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        blocks = [np.ones(1 << 21) for _ in range(4)]  # of 16 MiB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
use(2)
print(use(20))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_memory_that_is_kept_is_not_asked_for_again():
    def faults(how):
        program = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(program, capture_output=True, check=True, text=True).stdout)

    assert faults("kept") < 0.1 * faults("left")


KERNELS = """
import ctypes
import sys

import torch

from koinize.machine import limit_kernels

class Heap(ctypes.Structure):  # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap
if sys.argv[1] == "few":
    limit_kernels()
weight = torch.randn(512, 256, dtype=torch.bfloat16)
def pass_of(rows):
    torch.randn(rows, 256, dtype=torch.bfloat16, requires_grad=True).mm(weight.T).sum().backward()
pass_of(99)
before = libc.mallinfo2().h  # bytes in use
for rows in range(100, 180):
    pass_of(rows)
print(libc.mallinfo2().h - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 or later")
def test_kernels_of_shapes_that_do_not_come_again_are_not_kept():
    caches = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    fresh = {name: value for name, value in os.environ.items() if name not in caches}

    def kept(how):
        program = [sys.executable, "-c", KERNELS, how]
        found = subprocess.run(program, capture_output=True, check=True, text=True, env=fresh)
        return int(found.stdout)

    if (many := kept("many")) < 1 << 24:
        pytest.skip("torch makes no kernels for this processor")
    assert kept("few") < many / 2

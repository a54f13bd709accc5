"""The machine at hand, without torch: its device's name, and how to spread work over it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ASKED_OF_A_GPU = (
    "--query-gpu=memory.total,memory.reserved",  # of which the second is the driver's
    "--format=csv,noheader,nounits",  # MiB
)
DRIVER = Path("/proc/driver/nvidia/gpus")
# Bytes that glibc can be told to keep in a block; its older versions refuse more than the second.
LARGEST, LARGEST_OF_OLDER = 2**31 - 1, 1 << 25
KERNELS = 64  # as fast as 1,024 on Gemma 3 270M: docs/log.md
MOST_CPU_WORKERS = 4  # each holds its own copy of the base model

Handler = signal.Handlers | Callable[[int, FrameType | None], object]

stop_asked = threading.Event()
"""Set by whoever receives a signal to stop: what it raises in the middle of work may be lost."""


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt where a signal asked this process to stop."""
    if stop_asked.is_set():
        raise KeyboardInterrupt


_undisturbed = [0]
"""How many blocks of `undisturbed` the main thread is in."""


def stop(_number: int, _frame: FrameType | None) -> None:
    """What SIGINT and SIGTERM do: raise KeyboardInterrupt, or let `undisturbed` do so at its end.

    Python drops an exception that is raised while it finalizes some object; so whoever works long
    looks itself whether it was asked to stop.
    """
    stop_asked.set()
    if not _undisturbed[0]:
        raise KeyboardInterrupt


def _stop_once(number: int, frame: FrameType | None) -> None:
    """The same of a worker: whoever signals a group of processes often signals each of it again."""
    if not stop_asked.is_set():
        stop(number, frame)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What `stop` never cuts in two: it waits for the end of this block."""
    _undisturbed[0] += 1
    try:
        yield
    finally:
        _undisturbed[0] -= 1
    if not _undisturbed[0]:
        stop_if_asked()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM `stop` this block, where they would end the process as by default.

    For work that keeps what it has when it is stopped. A signal that is ignored stays so, and so
    does every handler of somebody else; outside of the main thread nothing can be set.
    """
    default: dict[signal.Signals, Handler] = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    here = threading.current_thread() is threading.main_thread()
    taken = [one for one, usual in default.items() if here and signal.getsignal(one) == usual]
    for one in taken:
        signal.signal(one, _stop_once)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, default[one])
        if taken:  # `stop` was nobody else's handler, so nobody else waits to hear of it
            stop_asked.clear()


@cache
def gpus() -> tuple[str, ...]:
    """The names of the NVIDIA GPUs that the driver lists and CUDA_VISIBLE_DEVICES leaves."""
    names = _listed()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    chosen = [one.strip() for one in visible.split(",")]
    # As CUDA reads it, the list ends at the first entry that is no device. An entry may also be a
    # UUID; which card that is does not matter, since machines rarely mix models.
    count = next((n for n, one in enumerate(chosen) if one in {"", "-1"}), len(chosen))
    return names[:count]


def _listed() -> tuple[str, ...]:
    names = []
    for path in sorted(DRIVER.glob("*/information")):
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        names.append(fields.get("Model", "NVIDIA GPU").strip())
    return tuple(names)


def gpu_of(worker: int) -> str | None:
    """What CUDA_VISIBLE_DEVICES should say in this worker, so that each has a GPU of its own.

    None without GPUs. With more workers than GPUs they take turns.
    """
    if not gpus():
        return None
    return visible()[worker % len(gpus())]


def visible() -> list[str]:
    """The index or UUID of each GPU in use, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    entries = named.split(",") if named else [str(number) for number in range(len(gpus()))]
    return [one.strip() for one in entries[: len(gpus())]]


@cache
def gpu_memory() -> int | None:
    """Bytes of the smallest GPU in use, as CUDA counts them; None where the driver's own program,
    nvidia-smi, does not say.
    """
    command = ["nvidia-smi", f"--id={','.join(visible())}", *ASKED_OF_A_GPU]
    try:
        asked = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
        lines = [line.split(",") for line in asked.stdout.splitlines()]
        return min((int(total) - int(reserved)) << 20 for total, reserved in lines)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


@cache
def device() -> str:
    """What the ledger calls this machine: its GPUs, or its processor and number of cores."""
    return _named(gpus())


def whole_device() -> str:
    """The same of a machine of which this process may use a part: all of its GPUs."""
    return _named(_listed())


def _named(found: tuple[str, ...]) -> str:
    return f"{len(found)} x {found[0]}" if found else f"{cores()} cores of {_processor()}"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """Bytes: the most that this process has held in memory, since `reset_peak_memory` if it can.

    The kernel's own mark (proc(5), VmHWM). That of getrusage(2), which is all that other systems
    have, begins at what the process held that started this one.
    """
    with suppress(OSError, StopIteration):
        lines = STATUS.read_text().splitlines()
        return 1024 * next(int(one.split()[1]) for one in lines if one.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def reset_peak_memory() -> None:
    """Let `peak_memory` begin anew at what is held now, where the kernel has a way (proc(5))."""
    with suppress(OSError):
        CLEAR_REFS.write_text("5")


def workers_and_threads(workers: int | str, threads: int | str) -> tuple[int, int]:
    """(workers, threads per worker), "auto" resolved.

    A worker per GPU where there are any; else processes before threads, because small products
    gain little from a second thread and lose a lot to a busy neighbour.
    """
    count = workers if isinstance(workers, int) else len(gpus()) or min(cores(), MOST_CPU_WORKERS)
    each = threads if isinstance(threads, int) else max(1, cores() // count)
    return count, each


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().machine
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def limit_kernels() -> None:
    """Have torch keep few of the kernels that oneDNN makes for a CPU, one for each shape of a
    product; for a process that has not yet used torch. What the user's environment says stands.

    It keeps 1,024 in each of two caches. Passes over rows of many lengths seldom meet the same
    shape again, and what was made for them came to 20 MB a pass of Gemma 3 270M: a quarter of all.
    """
    for cache_of in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache_of, str(KERNELS))


def keep_memory() -> None:
    """Have this process keep the memory that it frees, for its next tensors. Cannot be undone.

    glibc returns large blocks to the kernel at once, and fresh ones come page by page: that took a
    fifth of the processor's time of a mean. For a process that merges and ends; without effect on
    other C libraries. The parameters are those of mallopt(3).
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # One of the two thresholds alone would do harm: glibc then stops to adapt the other.
    if any(mallopt(mmap_threshold, size) for size in (LARGEST, LARGEST_OF_OLDER)):
        mallopt(trim_threshold, LARGEST)
        mallopt(arena_max, 1)  # the others return their memory whatever the thresholds

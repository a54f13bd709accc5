"""Runs the parts one after the other, each against its own clock and for its own failure."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from types import FrameType

STARTED = time.monotonic()  # before torch, which takes seconds to import

from benchmarks.gpu.report import OutOfTime, Part, Report  # noqa: E402
from benchmarks.gpu.scale import LLAMA_8B, SMALL, Scale  # noqa: E402

# In the order of their worth: module, title, seconds. What one leaves, the next ones have.
PARTS = (
    ("merging", "Merging: five adapters of Llama-3.1-8B's shapes, r = 64, bfloat16", 45),
    ("parity", "Parity: a tiny model in float32, GPU against CPU", 20),
    ("training", "Training at Llama-3.1-8B's shape, r = 64 on all linear modules", 45),
    ("together", "Five adapters at once", 25),
    ("answering", "Scoring and generating at Llama-3.1-8B's shape", 15),
    ("quantized", "Quantized: the same training on a base in 4 bit (NF4)", 40),
)
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "safetensors", "triton",
            "bitsandbytes")  # fmt: skip


def main() -> None:
    """Parse the arguments, run what the time allows, print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__)
    parser.add_argument("--small", action="store_true", help="small shapes on the CPU")
    parser.add_argument("--seconds", type=float, default=210.0, help="for everything")
    parser.add_argument("--parts", nargs="*", default=[name for name, _, _ in PARTS])
    given = parser.parse_args()
    scale = SMALL if given.small else LLAMA_8B
    path = Path(os.environ.get("OUT", "benchmarks/results")) / "gpu.md"
    report = Report(path, ["This run has just begun."])
    _end_at(STARTED + given.seconds, report)
    signal.signal(signal.SIGALRM, _over)
    report.head = _head(scale)
    _import_parts(report)
    report.write()
    print("\n".join(report.head), flush=True)
    end = STARTED + given.seconds - 3.0
    for number, (name, title, seconds) in enumerate(PARTS):
        if name in given.parts:
            later = sum(budget for other, _, budget in PARTS[number + 1 :] if other in given.parts)
            now = time.monotonic()
            _run(Part(name, title, report, min(end, max(now + seconds, end - later))), scale)
    print(f"\n{report.summary()}\n\n{time.monotonic() - STARTED:.0f} s in all; {path}", flush=True)
    failed = any(note.startswith("FAILED") for part in report.parts for note in part.notes)
    os._exit(1 if failed else 0)  # CUDA takes seconds to take leave


def _run(part: Part, scale: Scale) -> None:
    """One part: whatever happens to it, the next one comes."""
    part.report.parts.append(part)
    started = time.monotonic()
    print(f"\n{part.title} ({part.left():.0f} s)", flush=True)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(0.1, part.left()))
        import_module(f"benchmarks.gpu.{part.name}").run(part, scale)
    except OutOfTime:
        part.note("Its time was over before its end.")
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        part.note(f"FAILED: {type(error).__name__}: {str(error)[:300]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        part.seconds = time.monotonic() - started
        part.report.write()


def _over(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime


def _end_at(end: float, report: Report) -> None:
    """The last resort, for what no signal interrupts: the process ends, the file stays."""

    def watch() -> None:
        time.sleep(max(0.0, end - time.monotonic()))
        print(f"\nThe time is over.\n{report.summary()}", flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _head(scale: Scale) -> list[str]:
    """The machine, the versions, the command and the date."""
    import torch

    from koinize import machine

    if scale.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        where = f"{card.name}, {card.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    else:
        where = "no GPU: small shapes on the CPU, to try the script; the figures mean nothing"
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return [
        where,
        f"koinize.machine: {machine.device()}; {machine.cores()} cores, {_memory():.0f} GB",
        f"Python {platform.python_version()}, {', '.join(versions)}",
        f"`benchmarks/gpu.sh {' '.join(sys.argv[1:])}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{time.monotonic() - STARTED:.0f} s to import torch and to find the GPU",
    ]


def _import_parts(report: Report) -> None:
    """Now, so that no part's clock pays for it; one that cannot be imported says so itself."""
    for name, _, _ in PARTS:
        with suppress(Exception):
            import_module(f"benchmarks.gpu.{name}")
    report.head.append(f"{time.monotonic() - STARTED:.0f} s until all is imported")


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


if __name__ == "__main__":
    main()

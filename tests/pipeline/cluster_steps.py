"""Steps of a few bytes that a worker elsewhere can import, and what may befall it in the middle."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import ray

from koinize.pipeline.work import Job
from koinize.store import Store

LONG = 60.0


def perform(job: Job) -> dict[str, object]:
    """What the step is, as its artifact; each try leaves a line of where it was."""
    step = job.step
    with Store(job.home).building(step.id, step.name, step.identity) as draft:
        node = ray.get_runtime_context().get_node_id()
        with tried(job.root, step.name).open("a") as file:
            file.write(f"{os.getpid()} {node}\n")
        befall(job.root, step.name)
        (draft.folder / "result").write_text(f"{step.name} {sorted(step.identity.items())}")
        draft.facts.update(rows=dict(step.rows), units=step.units, tokens=7)
    return draft.facts


def befall(root: Path, name: str) -> None:
    trouble = root / "trouble" / name.replace("/", ".")
    if not trouble.exists():
        return
    what = trouble.read_text()
    if not what.startswith("always"):
        trouble.unlink()
    if what.endswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if what.endswith("freeze"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if what.endswith("wait"):
        time.sleep(LONG)


def tried(root: Path, name: str) -> Path:
    return root / f"tried.{name.replace('/', '.')}"

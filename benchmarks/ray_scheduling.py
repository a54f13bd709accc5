"""How much of a cluster's time koinize takes for itself: ten nodes, 500 steps that only wait.

    python benchmarks/ray_scheduling.py          # writes benchmarks/results/ray_scheduling.md

The nodes are simulated on this machine (`ray.cluster_utils`), and a step sleeps a second and keeps
an artifact of a few bytes. So whatever the driver does (choosing what is next, the ledger, names,
progress) shows, undisturbed by work. Its own time is what it does not spend in waiting for a
step to end.
"""

from __future__ import annotations

import tempfile
import time
from concurrent import futures
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import ray
from ray.cluster_utils import Cluster

from koinize import machine
from koinize.ledger import IDLE, PROVISION, Address, Ledger, total
from koinize.ledger.address import System
from koinize.pipeline import run as running
from koinize.pipeline.plan import Missing
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.work import Job
from koinize.spec import load
from koinize.store import Store

NODES, LANGUAGES, EVALUATIONS, SECONDS = 10, 50, 9, 1.0
STORE_BYTES = 80 * 2**20
RESULT = Path(__file__).parent / "results" / "ray_scheduling.md"

SPEC = """\
koinize: 1
name: many
base: {{model: base}}
languages: [en]
tasks: {{mood: {{kind: classify, labels: [good, bad], prompt: "{{text}} ="}}}}
machine: {{executor: ray, address: "{address}", threads: 1}}
"""


def perform(job: Job) -> dict[str, Any]:
    """A step that only waits."""
    step = job.step
    with Store(job.home).building(step.id, step.name, step.identity) as draft:
        time.sleep(SECONDS)
        (draft.folder / "result").write_text(step.name)
        draft.facts.update(seconds=SECONDS, units=1, tokens=0)
    return dict(draft.facts)


def steps() -> list[Step]:
    """A training for each language, and evaluations that wait for it."""
    made = []
    for number in range(LANGUAGES):
        language = f"l{chr(97 + number // 26)}{chr(97 + number % 26)}"
        training = Step(Address("train", "mood", language=language), {"rows": language}, units=1)
        made.append(training)
        for system in range(EVALUATIONS):
            address = Address("evaluate", "mood", System(f"s{system}"), language, "test")
            inputs = {"rows": language, "system": str(system)}
            made.append(Step(address, inputs, Uses(adapter=training.id), units=1))
    return made


class Waiting:
    """`concurrent.futures.wait`, with the time that was spent in it."""

    seconds = 0.0

    def __call__(self, running: object, seconds: float, until: str) -> object:
        """Wait."""
        began = time.perf_counter()
        try:
            return futures.wait(running, seconds, until)
        finally:
            self.seconds += time.perf_counter() - began


def measured(root: Path, address: str) -> dict[str, float]:
    """Run the steps there, and look into the ledger."""
    (root / "koinize.yaml").write_text(SPEC.format(address=address))
    missing = [Missing(one, "never done", SECONDS) for one in steps()]
    waiting = Waiting()
    running.perform, running.wait = perform, waiting
    spec, home = load(root / "koinize.yaml"), root / ".koinize"
    processor = time.process_time()
    outcome = running.run(missing, spec, root, home, Mock())
    processor = time.process_time() - processor
    if len(outcome.done) != len(missing):
        raise RuntimeError(outcome.failed)
    intervals = Ledger(home / "ledger.jsonl").intervals()
    work = [one for one in intervals if one.kind not in (IDLE, PROVISION)]
    wall = float(max(one.end for one in work) - min(one.begin for one in work))
    busy = float(total(work)[0])
    start = float(next(one for one in intervals if one.kind == PROVISION).seconds)
    return {
        "steps": len(work),
        "start": start,
        "wall": wall,
        "ideal": len(work) * SECONDS / NODES,
        "own": wall - waiting.seconds,
        "processor": processor,
        "busy": busy / (NODES * wall),
    }


def main() -> None:
    """Start the nodes, measure, and write the page."""
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        with tempfile.TemporaryDirectory() as folder:
            found = measured(Path(folder), cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    own = f"{found['own']:.2f} s, {100 * found['own'] / found['wall']:.1f} %"
    rows = {
        f"starting {NODES} workers": f"{found['start']:.1f} s",
        "from the first step's start to the last one's end": f"{found['wall']:.1f} s",
        "the same without any overhead": f"{found['ideal']:.1f} s",
        "of that, the driver did not wait for a step to end": own,
        "processor time of the driver, Ray's threads included": f"{found['processor']:.1f} s",
        "workers had a step in hand": f"{100 * found['busy']:.1f} % of the time",
    }
    text = f"""# Scheduling on a cluster

`python benchmarks/ray_scheduling.py` on {machine.device()}, Ray {ray.__version__}.
{NODES} simulated nodes of one worker each; {found["steps"]} steps that sleep {SECONDS:g} s, nine
tenths of which wait for another one.

| | |
|---|---|
"""
    text += "".join(f"| {what} | {figure} |\n" for what, figure in rows.items())
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

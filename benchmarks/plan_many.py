"""How long `koinize plan`, and a `koinize run` with nothing to do, take over many languages.

Makes a finished project of 50 languages and 3 tasks with the default candidates and baselines,
`cross` among them (every language's adapter on every other language: 7,500 of the steps). The data
files are small; the artifacts hold a manifest and nothing else; store and ledger are written by
their own code, without waiting for the disk. Then each command is run as a process of its own, and
its wall time, processor time and peak memory are printed, with those of a Python that does nothing
to compare with. Wall time is that of a machine that may be busy with other things.

    OMP_NUM_THREADS=1 python benchmarks/plan_many.py [languages] [tasks]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from string import ascii_lowercase

from koinize.cli.options import open_project
from koinize.ledger import Ledger
from koinize.pipeline.step import Step
from koinize.store import Store

ROWS = 4
PRICE = {"per_hour": "0.10", "currency": "USD", "source": "an assumption", "date": "2026-01-31"}
RATES = {"base": 60.0, "train": 1e-3, "import": 1.0, "merge": 5.0, "evaluate": 5e-4, "select": 1.0}
# The high-water mark of the process itself; ru_maxrss begins at that of whoever started it.
PEAK = """
import atexit, sys
def peak():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    print(lines["VmHWM"].split()[0], file=sys.stderr)
atexit.register(peak)
"""


def make_project(root: Path, languages: int, tasks: int) -> None:
    """The specification, the data, and a base model that nobody loads."""
    codes = ["".join(two) for two in product(ascii_lowercase, repeat=2)][:languages]
    lines = ["koinize: 1", "name: many", "base: {model: base}", f"languages: {json.dumps(codes)}"]
    lines.append("tasks:")
    for task in range(tasks):
        lines.append(f"  task{task}:")
        lines.append("    kind: classify")
        lines.append(f"    data: data/task{task}.{{language}}.{{split}}.jsonl")
        lines.append("    labels: [good, bad]")
        lines.append('    prompt: "{text} ="')
    lines.append(f"price: {json.dumps(PRICE)}")
    lines.append("machine: {workers: 2, threads: 1}")
    root.mkdir(parents=True, exist_ok=True)
    (root / "koinize.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for task, code, split in product(range(tasks), codes, ("train", "dev", "test")):
        write_rows(root, f"task{task}.{code}.{split}", ROWS)
    (root / "base").mkdir(exist_ok=True)
    (root / "base" / "config.json").write_text("{}")
    (root / "base" / "model.safetensors").write_bytes(b"")


def write_rows(root: Path, name: str, count: int) -> None:
    """One data file."""
    path = root / "data" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    rows = [{"text": f"{name} {n}", "label": ("good", "bad")[n % 2]} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def finish(root: Path) -> int:
    """Fill store and ledger as a run would have; returns the number of steps."""
    project = open_project(root)
    store, ledger = project.store, Ledger(project.home / "ledger.jsonl")
    for number, step in enumerate(project.steps):
        done(store, ledger, step, number)
    store.point({step.name: step.id for step in project.steps})
    project.experience()  # as a run does at its end
    (root / "report.html").write_text("the report")
    return len(project.steps)


def done(store: Store, ledger: Ledger, step: Step, number: int) -> None:
    """One step's artifact and interval."""
    with store.building(step.id, step.name, step.identity) as draft:
        draft.facts.update(rows=dict(step.rows), units=step.units, tokens=step.units // 4)
    interval = f"0123abcd-{number}"
    ledger.start(
        interval,
        run="0123abcd",
        step=step.name,
        kind=step.kind,
        artifact=step.id,
        device="2 cores of a machine",
        share="0.5",
        price=PRICE,
    )
    seconds = max(1, step.units) * RATES[step.kind] * (1 + number % 7 / 10)
    ledger.end(interval, status="done", seconds=seconds, units=step.units)


def measured(label: str, code: str, folder: Path) -> str:
    """Run Python code; a line with its wall and processor seconds and its peak memory."""
    began = time.monotonic()
    command = [sys.executable, "-c", PEAK + code]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=compiled(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, err = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    wall = time.monotonic() - began
    lines = out.strip().splitlines() or [f"status {status}"]
    cpu, peak = usage.ru_utime + usage.ru_stime, int(err.split()[-1]) / 1024
    return f"{label:<28} {wall:>7.2f} {cpu:>7.2f} {peak:>8.0f}  {lines[-1]}"


def compiled(folder: Path) -> dict[str, str]:
    """An environment in which modules are compiled once, as they are where koinize is installed."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder.parent / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def koinize(*arguments: str) -> str:
    """The command line, as code."""
    given = ["koinize", *arguments]
    return f"import sys; sys.argv = {given}; from koinize.cli import main; main()"


def main() -> None:
    """Make the project, measure, print."""
    languages, tasks = (int(sys.argv[n]) if len(sys.argv) > n else d for n, d in ((1, 50), (2, 3)))
    os.fsync = lambda _: None  # nobody needs this project after a power cut
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "many"
        make_project(root, languages, tasks)
        steps = finish(root)
        size = (root / ".koinize" / "ledger.jsonl").stat().st_size / 1e6
        print(f"{languages} languages, {tasks} tasks: {steps} steps, a ledger of {size:.0f} MB")
        measured("", koinize("plan"), root)  # compiles the modules
        print(f"{'':<28} {'wall s':>7} {'CPU s':>7} {'peak MB':>8}")
        print(measured("python", "pass", root))
        print(measured("koinize --version", koinize("--version"), root))
        print(measured("plan, nothing missing", koinize("plan"), root))
        print(measured("run, nothing to do", koinize("run"), root))
        write_rows(root, "task0.aa.train", ROWS + 2)
        print(measured("plan, one language changed", koinize("plan"), root))
        print(measured("the same again", koinize("plan"), root))


if __name__ == "__main__":
    main()

"""Runs of koinize that are killed: cheap enough for hundreds, since they are forked.

A server (this file, run as a script) imports what koinize needs once. Each `koinize ...` is then a
process of its own, forked from it, that starts at the first line of the command line's `main` and
is ended by SIGKILL: after so many seconds, or at its n-th operation on a file of the project.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.0005
TIMEOUT_SECONDS = 120
LIGHT = (
    "koinize.cli.project",
    "koinize.api.running",
    "koinize.pipeline",
    "koinize.pipeline.kinds.select",
    "koinize.pipeline.report_input",
    "koinize.executors.inline",
    "koinize.merge.recipes.mean",
    "koinize.merge.recipes.sum",
    "koinize.metrics.macro_f1",
    "koinize.release",
    "koinize.tasks.classify",
    *("scipy.special", "charset_normalizer", "numpy.testing"),
)
HEAVY = (
    *LIGHT,
    *("koinize.train", "koinize.evaluate", "koinize.model", "koinize.engine", "koinize.report"),
    *("transformers", "transformers.models.gemma3.modeling_gemma3", "peft"),
)
FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock"}


@dataclass(frozen=True)
class Ended:
    """How a process ended (negative: by that signal), and what it wrote."""

    code: int
    output: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Arena:
    """A server from which runs are forked; a context manager.

    `fake` puts steps of a few bytes in the place of those that need torch: everything around them
    (plan, store, ledger, report) is real.
    """

    def __init__(self, *, fake: bool) -> None:
        self.fake = fake

    def __enter__(self) -> Arena:
        self.server = subprocess.Popen(
            [sys.executable, __file__, *(LIGHT if self.fake else HEAVY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        self.server.communicate()

    def koinize(
        self,
        *arguments: str,
        cwd: Path,
        seconds: float | None = None,
        operation: int | None = None,
        signal: int = signal.SIGKILL,
    ) -> Ended:
        """Run a command in `cwd`, end it after so many seconds or at that operation on a file."""
        order = {
            "arguments": arguments,
            "cwd": str(cwd),
            "seconds": seconds,
            "operation": operation,
            "signal": signal,
            "fake": self.fake,
        }
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return Ended(**json.loads(self.server.stdout.readline()))


def _serve(modules: list[str]) -> None:
    for name in modules:
        import_module(name)
    import_module("koinize.cli").callable_application()  # which imports those of all commands
    import_module("koinize.report.render").in_order()  # and this of all sections
    os.fsync = lambda _: None  # as in tests/conftest.py
    for line in sys.stdin:
        order = json.loads(line)
        log = Path(order["cwd"]).with_suffix(".log")
        child = os.fork()
        if child == 0:
            _child(order, log)
        code = _wait(child, order)
        sys.stdout.write(json.dumps({"code": code, "output": log.read_text()}) + "\n")
        sys.stdout.flush()


def _wait(child: int, order: dict[str, Any]) -> int:
    until = time.monotonic() + (order["seconds"] or TIMEOUT_SECONDS)
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, order["signal"] if order["seconds"] else signal.SIGABRT)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _child(order: dict[str, Any], log: Path) -> None:
    """Never returns."""
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.chdir(order["cwd"])
        sys.argv = ["koinize", *order["arguments"]]
        if order["fake"]:
            without_torch()
        if order["operation"]:
            _die_at(order["operation"], order["signal"])
        from koinize.cli import main

        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _die_at(fatal: int, number: int) -> None:
    """Be killed at the n-th operation on a file: before it, so after the one before it."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), number)

    def hook(event: str, _arguments: tuple[object, ...]) -> None:
        if event in FILE_EVENTS:
            step()

    fsync = os.fsync

    def counted(handle: int) -> None:
        step()
        fsync(handle)

    os.fsync = counted
    sys.addaudithook(hook)


def without_torch() -> None:
    """Steps that write what is told by their identity alone, on a base that nobody tries."""
    from koinize.metrics import metrics
    from koinize.pipeline import project, report_input, work

    project.refuse_unfit = lambda *_: None

    def adapter(job: Any, _store: Any, draft: Any) -> dict[str, Any]:
        (draft.folder / "adapter_config.json").write_text("{}")
        (draft.folder / "adapter_model.safetensors").write_bytes(job.step.id.encode() * 1000)
        return {"rank": 4, "truncation_error": 0.0, "tokens": 7}

    def merge(job: Any, store: Any, draft: Any) -> dict[str, Any]:
        for one in job.step.uses.adapters.values():
            assert store.open(one).path("adapter_model.safetensors").read_bytes()
        (draft.folder / "README.md").write_text("# Merged adapter\n")
        return adapter(job, store, draft)

    def evaluate(job: Any, store: Any, draft: Any) -> dict[str, Any]:
        examples = work.examples(job, job.step.languages[0], job.step.split)
        for n, one in enumerate(examples):
            said = one.labels[(one.gold + (n + len(job.step.system.title)) % 2) % 2]
            row = {"key": one.key, "language": one.language, "gold": one.labels[one.gold]}
            with (draft.folder / "rows.jsonl").open("a") as file:
                file.write(json.dumps({**row, "prediction": said}) + "\n")
        return {}

    def together(perform: Any, jobs: Any, store: Any, _scratch: Any, over: Any) -> None:
        for job in jobs:
            over(job, partial(perform, job, store), 0.0)

    metrics.get("accuracy")
    report_input.interference = lambda *_, **__: None
    work.loaded = lambda job: None
    doers = {"base": lambda *_: {}, "train": adapter, "merge": merge, "evaluate": evaluate}
    for kind, perform in doers.items():
        file = import_module(f"koinize.pipeline.kinds.{kind}")
        file.perform = perform
        file.perform_together = partial(together, perform)


if __name__ == "__main__":
    _serve(sys.argv[1:])

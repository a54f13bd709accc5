"""Joint training first, branches after it: against training everything again, on several seeds.

    python examples/generations/study.py OUT --workers 4 --deadline 420

Writes OUT/results-N.jsonl.gz, one file a worker: every training's tokens and every adapter's
answers, row by row, for `analysis.py`. Started again, it does what is missing. README.md in this
folder says what is compared.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import queue
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journal import train_rows_of

HERE = Path(__file__).resolve().parent
DEBIAN = HERE.parent / "debian"
REVIEWS = Path("src") / "koinize" / "examples" / "reviews"
FOLDERS = {
    "reviews": HERE.parents[1] / REVIEWS,
    **{name: DEBIAN / name for name in ("topic", "choice", "summary")},
}
FIRST, SECOND, SEEDS = ("topic", "reviews"), ("choice", "summary"), (0, 1, 2)
JOBS = (
    *((task, seed, "main") for seed in SEEDS for task in FIRST),
    *((task, 0, "main") for task in SECOND),
    *((task, seed, "paper") for seed in SEEDS for task in FIRST),
    *((task, seed, "main") for seed in SEEDS[1:] for task in SECOND),
    *(("reviews", seed, "main") for seed in (3, 4)),
    *((task, seed, "several") for seed in SEEDS for task in FIRST),
    *((task, seed, "half-year") for seed in SEEDS for task in FIRST),
    *(("reviews", seed, group) for group in ("paper", "several") for seed in (3, 4)),
    *((task, seed, "paper") for seed in SEEDS for task in SECOND),
    *((task, seed, "several") for seed in SEEDS for task in SECOND),
    *(("reviews", seed, "main") for seed in (5, 6, 7, 8, 9)),
    *((task, seed, "main") for seed in (3, 4) for task in ("topic", *SECOND)),
    *((task, seed, "shares") for seed in SEEDS for task in FIRST),
    *((task, seed, "sync") for seed in SEEDS for task in FIRST),
)
"""What matters most first."""

Job = tuple[str, int, str]


@dataclass(frozen=True)
class Limits:
    """How much of a task is used; None is all of it."""

    train: int | None = None
    dev: int | None = None
    test: int | None = None

    def smaller(self, rows: int | None, train: int | None) -> Limits:
        """These, and no more than so many rows of any split and language, and so many of train."""
        return Limits(
            _least(self.train, rows, train), _least(self.dev, rows), _least(self.test, rows)
        )


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


LIMITS = {
    "topic": Limits(train=300),
    "choice": Limits(train=300),
    "summary": Limits(train=200, dev=40, test=100),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = _parser().parse_args(arguments)
    ends = time.time() + options.deadline
    jobs = [
        job
        for job in (*JOBS, *own_jobs(options.tasks))
        if (not options.tasks or job[0] in options.tasks)
        and (not options.groups or job[2] in options.groups)
        and (not options.seeds or job[1] in options.seeds)
    ]
    if options.list:
        print("\n".join(" ".join(map(str, job)) for job in jobs))
        return 0
    if others := train_rows_of(options.out) - {options.train_rows}:
        other = others.pop()
        what = f"--train-rows {other}" if other else "all training rows"
        print(f"error: {options.out} has results of {what}; give another folder", file=sys.stderr)
        return 2
    if options.workers == 1:
        waiting: Any = queue.Queue()
        for job in jobs:
            waiting.put(job)
        work(0, options, ends, waiting)
        return 0
    context = multiprocessing.get_context("spawn")
    waiting = context.Queue()
    for job in jobs:
        waiting.put(job)
    workers = [
        context.Process(target=work, args=(number, options, ends, waiting))
        for number in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    waiting.cancel_join_thread()
    return max(abs(worker.exitcode or 0) for worker in workers)


def own_jobs(tasks: Sequence[str]) -> list[Job]:
    """The jobs of tasks that are folders of projects: every group with one seed."""
    groups = ("main", "paper", "several", "half-year", "shares", "sync")
    return [(folder, 0, group) for folder in tasks if folder not in FOLDERS for group in groups]


def work(number: int, options: argparse.Namespace, ends: float, waiting: Any) -> None:  # noqa: ANN401
    """One worker: jobs from the queue until there is none or the time is up."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["TQDM_DISABLE"] = "1"
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.disable(logging.WARNING)  # every scoring would say again which prompts are cut
    from jobs import OutOfTime, Worker

    worker = Worker(number, options, ends)
    for job in _taken(waiting):
        try:
            worker.do(job)
        except OutOfTime:
            worker.say(job, "the time is up")
            break
        except Exception as error:  # noqa: BLE001 - the other jobs go on; the line says what happened
            worker.say(job, traceback.format_exc())
            if "out of memory" in str(error) and worker.stack > 1:
                worker.make_room()
                waiting.put(job)
            elif "CUDA error" in str(error):
                break  # nothing works in this process any more; the others have the rest
        finally:
            worker.journal.flush()


def _taken(waiting: Any) -> Iterator[Job]:  # noqa: ANN401 - a queue of either kind
    while True:
        try:
            yield waiting.get(timeout=1)
        except queue.Empty:
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("out", type=Path, help="folder of the results")
    add("--tasks", nargs="*", default=[], help="some of the tasks, or folders of projects")
    add("--groups", nargs="*", default=[], help="main, paper, several, half-year, shares, sync")
    add("--seeds", nargs="*", type=int, default=[])
    add("--rows", type=int, help="at most so many rows of every split and language")
    add(
        "--train-rows",
        type=int,
        help="at most so many training rows of every language; dev and test stay whole",
    )
    add("--base", type=Path, help="folder of the base model, in place of what the tasks name")
    add("--work", type=Path, help="where adapters are kept (default: OUT/work)")
    add(
        "--lean",
        action="store_true",
        help="the way at 30 %% alone, its weights fixed: see README.md",
    )
    add("--deadline", type=float, default=1e9, help="seconds after which nothing new is begun")
    add("--workers", type=int, default=1, help="processes that share the device")
    add("--stack", type=int, default=20, help="trainings that run at once in a worker")
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    add("--list", action="store_true", help="name the jobs and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())

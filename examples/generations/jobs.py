"""Doing a job: its trainings in waves, and after each wave whatever can be scored.

Imports torch, so only workers import it.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from arms import Arm, Candidate, Plan, Planned, plan_of
from bench import Factors, Put, layers_of_rank, rank_of, read_factors, remembering
from journal import Journal, Line
from scenarios import Rows, drawn
from scoring import Answers, Scorer, gold_of, means
from starts import write_mean
from study import FOLDERS, LIMITS, Job, Limits

import koinize.train
from koinize.adapter import read_header
from koinize.data import read_rows
from koinize.digest import digest
from koinize.engine import merge_adapters
from koinize.errors import KoinizeError
from koinize.model.base import prepare, user_cache
from koinize.model.loaded import Loaded, load_model
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.spec import SPEC_FILE, Spec, load
from koinize.tasks import Example, Task
from koinize.train import TrainingReport

# Padded tokens of a forward pass while scoring on an accelerator; it bounds memory only.
SCORED_AT_ONCE = 65_536
TRAINED_AT_ONCE = 2_048


class OutOfTime(Exception):
    """The deadline has passed."""


class Worker:
    """A loaded base, a journal, and the deadline."""

    def __init__(self, number: int, options: argparse.Namespace, ends: float) -> None:
        torch.set_num_threads(1)  # several workers, and other work beside them
        self.options, self.ends, self.number = options, ends, number
        self.began = time.time()
        self.journal = Journal(options.out, number)
        self.work = options.work or options.out / "work"
        self.bases: dict[str, Loaded] = {}
        self.stack: int = options.stack

    def do(self, job: Job) -> None:
        """Do what is missing of one job."""
        task, seed, group = job
        about = {"task": Path(task).name, "seed": seed, "group": group}
        if not self.journal.has(what="done", **about):
            JobRun(self, job, about).run()
            if not self.options.lean or group == "paper":
                self.journal.add({"what": "done", **about})
            self.journal.flush()

    def say(self, job: Job, what: str) -> None:
        """One line on the screen."""
        print(f"{time.time() - self.began:6.1f} s  {self.number}  {job}: {what}", flush=True)

    def make_room(self) -> None:
        """After the device's memory was too small: fewer trainings at once."""
        self.stack = max(1, self.stack // 2)
        torch.cuda.empty_cache()

    def check_time(self) -> None:
        """Raises OutOfTime after the deadline."""
        if time.time() > self.ends:
            raise OutOfTime

    def loaded(self, spec: Spec, root: Path) -> Loaded:
        """The base of a task, loaded once."""
        path = self.options.base or prepare(spec.base, root, user_cache())
        if str(path) not in self.bases:
            model = load_model(path, spec.base.dtype, self.options.device, name=spec.base.model)
            self.bases[str(path)] = remembering(model)
        return self.bases[str(path)]


class JobRun:
    """One job's rows, plan and adapters."""

    def __init__(self, worker: Worker, job: Job, about: Line) -> None:
        self.worker, self.job, self.about = worker, job, about
        root = FOLDERS.get(job[0], Path(job[0]))
        self.spec = load(root / SPEC_FILE)
        (self.task,) = self.spec.tasks.values()
        self.loaded = worker.loaded(self.spec, root)
        seed = job[1]
        self.lora = LoraSpec.model_validate({**self.spec.lora.of("").model_dump(), "seed": seed})
        options = worker.options
        limits = LIMITS.get(job[0], Limits()).smaller(options.rows, options.train_rows)
        read = partial(split_rows, self.task, root, self.spec.languages)
        train = read("train", seed, limits.train)
        training = self._training(self.spec.training)
        self.plan: Plan = plan_of(job[2], train, training, seed, lean=worker.options.lean)
        # Dev and test are the same rows for every seed.
        self.splits = {
            "dev": everything(read("dev", 0, limits.dev)),
            "test": everything(read("test", 0, limits.test)),
        }
        self.gold = {split: gold_of(rows) for split, rows in self.splits.items()}
        self.scorer = Scorer(self.loaded, self.task, self._evaluation())
        self.folder = worker.work / f"{about['task']}-{seed}-{job[2]}"
        self.known: dict[str, Factors] = {}
        self.answered: dict[tuple[object, ...], tuple[Answers, int, float]] = {}

    def run(self) -> None:
        """All waves, and all arms as soon as their adapters are there."""
        for split, gold in self.gold.items():
            line = {"what": "rows", "task": self.about["task"], "split": split, "rows": gold}
            labels, most = list(self.task.label_set), self.worker.options.train_rows
            line |= {"metric": self.task.metrics[0], "labels": labels, "train_rows": most}
            self.worker.journal.add(line)
        left = [arm for arm in self.plan.arms if not self._is_done(arm)]
        needed = self.plan.needed(left)
        for number, wave in enumerate(self.plan.waves(), start=1):
            self._train(number, [one for one in wave if one in needed])
            if self.loaded.device.type == "cuda":
                torch.cuda.empty_cache()  # other workers share the device
            ready = [arm for arm in left if self._ready(arm)]
            left = [arm for arm in left if arm not in ready]
            self._score_all(ready)
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name: str) -> Path:
        """The folder of a trained adapter."""
        return self.folder / name.replace(">", "-")

    def _evaluation(self) -> EvaluationSpec:
        # As on dev: what a `free` task also writes on test is kept by nobody here.
        settings = self.task.evaluation(self.spec.evaluation, "dev")
        if self.loaded.device.type == "cpu":
            return settings
        return settings.model_copy(update={"batch_tokens": SCORED_AT_ONCE})

    def _training(self, training: TrainingSpec) -> TrainingSpec:
        if self.loaded.device.type == "cpu":
            return training
        return training.model_copy(update={"batch_tokens": TRAINED_AT_ONCE})

    def _is_done(self, arm: Arm) -> bool:
        has = partial(self.worker.journal.has, **self.about, name=arm.name)
        tested = (has(what="score", split="test", candidate=label) for label in arm.fixed)
        return has(what="arm") or (self.worker.options.lean and bool(arm.fixed) and all(tested))

    def _ready(self, arm: Arm) -> bool:
        names = {name for one in arm.candidates.values() for name in one.weights}
        return all(self.path(name).exists() for name in names)

    def _train(self, number: int, wave: Sequence[Planned]) -> None:
        """The wave's trainings, as many at once as the options say, like sizes together."""
        missing = [one for one in wave if not self.path(one.name).exists()]
        missing.sort(key=lambda one: len(one.rows) * one.settings.epochs, reverse=True)
        for at in range(0, len(missing), self.worker.stack):
            self.worker.check_time()
            some = missing[at : at + self.worker.stack]
            began = time.perf_counter()
            reports = train_all(
                self.loaded,
                [(one, self.path(one.name), self._start(one)) for one in some],
                self.lora,
                self.worker.check_time,
            )
            seconds = time.perf_counter() - began
            for one, report in zip(some, reports, strict=True):
                self._note_training(number, one, report, len(some), seconds)
            self.worker.journal.flush()
            self.worker.say(self.job, f"wave {number}: {len(some)} trained in {seconds:.1f} s")

    def _start(self, one: Planned) -> Path | None:
        """What a training goes on from: the mean of several adapters is made if it is missing."""
        if len(one.start) < 2:
            return self.path(one.start[0]) if one.start else None
        out = self.folder / "starts" / digest(one.start)
        if not out.exists():
            lost = write_mean({name: self.path(name) for name in one.start}, out)
            line = {"what": "mean", **self.about, "name": one.name}
            self.worker.journal.add({**line, "of": one.start, "lost": lost})
        return out

    def _note_training(
        self,
        wave: int,
        one: Planned,
        report: TrainingReport | KoinizeError,
        together: int,
        seconds: float,
    ) -> None:
        line = {"what": "train", **self.about, "name": one.name, "wave": wave, "start": one.start}
        if isinstance(report, KoinizeError):
            self.worker.say(self.job, f"{one.name}: {report}")
            self.worker.journal.add({**line, "what": "failed", "error": str(report)})
            return
        said = {key: value for key, value in asdict(report).items() if key != "losses"}
        kept = {"first_loss": report.losses[0], "last_loss": report.losses[-1]}
        settings = one.settings.model_dump(mode="json", exclude_defaults=True)
        together_with = {"together": together, "wall_seconds": round(seconds, 3)}
        self.worker.journal.add({**line, **said, **kept, **together_with, "settings": settings})

    def _score_all(self, arms: Sequence[Arm]) -> None:
        sums = [one.weights for arm in arms for one in arm.candidates.values() if not one.recipe]
        if not arms:
            return
        merged = [self._merged(arm, label) for arm in arms for label in arm.candidates]
        ranks = [_largest_rank(folder) for folder in merged if folder]
        rank = max([rank_of(sums, self.lora.r) if sums else 1, *ranks])
        began = time.perf_counter()
        with layers_of_rank(self.loaded, self.lora, rank) as put:
            for arm in arms:
                self._score_arm(arm, put)
                self.worker.journal.flush()
        seconds = time.perf_counter() - began
        self.worker.say(self.job, f"{len(arms)} arms scored in {seconds:.1f} s")

    def _score_arm(self, arm: Arm, put: Put) -> None:
        """Several candidates on dev first; then those that are fixed and the chosen on test."""
        tested = list(arm.fixed)
        unchosen = self.worker.options.lean and len(arm.candidates) > 1 and bool(arm.fixed)
        if len(arm.candidates) > 1 and not unchosen:
            dev = {
                label: means(
                    self._answers(arm, label, "dev", put), self.gold["dev"], self.scorer.metric
                )
                for label in arm.candidates
            }
            chosen = choose(dev)
            line = {"what": "choice", **self.about, "name": arm.name, "dev": dev, **chosen}
            self.worker.journal.add(line)
            tested += chosen.values()
        for label in dict.fromkeys(tested):
            self._answers(arm, label, "test", put)
        if not unchosen:
            self.worker.journal.add({"what": "arm", **self.about, "name": arm.name})

    def _answers(self, arm: Arm, label: str, split: str, put: Put) -> Answers:
        self.worker.check_time()
        about = {**self.about, "name": arm.name, "candidate": label, "split": split}
        answers, tokens, seconds = self._scored(arm, label, split, put)
        line = {"what": "score", **about, "tokens": tokens, "seconds": round(seconds, 3)}
        self.worker.journal.add({**line, "answers": answers})
        return answers

    def _scored(self, arm: Arm, label: str, split: str, put: Put) -> tuple[Answers, int, float]:
        """What the adapter answers; arms that begin at one trunk score it once."""
        one = arm.candidates[label]
        same = (split, *sorted(one.weights.items()), *sorted(one.recipe.items()))
        if same not in self.answered:
            put(self._parts(arm, label))
            examples = self.splits[split]
            self.answered[same] = self.scorer.score(examples, texts=split == "test")
        return self.answered[same]

    def _parts(self, arm: Arm, label: str) -> list[tuple[Factors, float]]:
        if folder := self._merged(arm, label):
            return [(read_factors(folder, self.loaded.device), 1.0)]
        weights = arm.candidates[label].weights
        return [(self._factors(name), weight) for name, weight in weights.items() if weight]

    def _merged(self, arm: Arm, label: str) -> Path | None:
        """The merge of a candidate with a recipe, made if it is missing; None for a sum."""
        one: Candidate = arm.candidates[label]
        if not one.recipe:
            return None
        out = self.folder / "merged" / f"{arm.name} {label}".replace("/", "-")
        if not out.exists():
            inputs = {name: self.path(name) for name in one.weights}
            merge_adapters(inputs, out=out, threads=4, **one.recipe)
        return out

    def _factors(self, name: str) -> Factors:
        if name not in self.known:
            self.known[name] = read_factors(self.path(name), self.loaded.device)
        return self.known[name]


def choose(dev: Mapping[str, tuple[float | None, float]]) -> dict[str, str]:
    """The best candidate by NLL, and by the metric where it was scored; the first wins a tie."""
    found = {"by_nll": min(dev, key=lambda label: dev[label][1])}
    if all(points is not None for points, _ in dev.values()):
        found["by_metric"] = max(dev, key=lambda label: dev[label][0] or 0.0)
    return found


def train_all(
    loaded: Loaded,
    trainings: Sequence[tuple[Planned, Path, Path | None]],
    lora: LoraSpec,
    check: Callable[[], None],
) -> list[TrainingReport | KoinizeError]:
    """All at once where koinize can, else one after the other; a report or an error each."""

    def progress(*_: object) -> None:
        check()

    together = getattr(koinize.train, "train_together", None)
    if together is not None:
        wanted = [
            koinize.train.Training(one.name, one.rows, (), lora, one.settings, out, start)
            for one, out, start in trainings
        ]
        return list(together(loaded, wanted, progress))
    reports: list[TrainingReport | KoinizeError] = []
    for one, out, start in trainings:
        try:
            report = koinize.train.train(
                loaded, one.rows, (), lora, one.settings, out, progress, start=start
            )
            reports.append(report)
        except KoinizeError as error:
            reports.append(error)
    return reports


def split_rows(
    task: Task, root: Path, languages: Sequence[str], split: str, seed: int, count: int | None
) -> Rows:
    """A split's examples by language, drawn by the seed; train has the extra rows where there are
    any.
    """
    found = {}
    for language in languages:
        source = task.source(language, split)
        rows = read_rows(source, root)
        extra = source.replace(f".{split}.", ".extra.")
        if split == "train" and extra != source and (root / extra).is_file():
            rows += read_rows(extra, root)
        found[language] = drawn(task.examples(rows, language), seed, count)
    return found


def everything(rows: Rows) -> list[Example]:
    """The examples of all languages."""
    return [row for language in rows for row in rows[language]]


def _largest_rank(folder: Path) -> int:
    return max(module.rank for module in read_header(folder).modules.values())

"""A made-up project: five languages, all baselines, the paper's eight merges, two runs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from koinize.ledger import Interval
from koinize.report import Evaluation, ReleaseInput, ReportInput, System, TaskInput, results

LANGUAGES = ("de", "en", "fr", "ja", "zh")
LABELS = ("negative", "neutral", "positive")
EIGHT = [
    (recipe, density)
    for recipe in ("ties", "dare-ties", "knots-ties", "knots-dare-ties")
    for density in (0.5, 1.0)
]
PRICE = {
    "per_hour": "2.49",
    "currency": "USD",
    "source": "https://example.org/prices",
    "date": "2026-02-01",
}
BEGIN = datetime(2026, 2, 3, 9, 30, tzinfo=UTC)

# The share of right answers of each system, before a language's own difficulty.
SKILL = {
    "BASE": 0.46,
    "INDV": 0.80,
    "COMB": 0.78,
    "MEAN": 0.71,
    "ties density 0.5": 0.74,
    "ties density 1": 0.75,
    "dare-ties density 0.5": 0.73,
    "knots-ties density 0.5": 0.775,
    "knots-ties density 1": 0.76,
    "knots-dare-ties density 0.5": 0.74,
}
EASE = {"de": 0.03, "en": 0.05, "fr": 0.0, "ja": -0.04, "zh": -0.08}
EXTRA = {
    ("knots-ties density 0.5", "en"): 0.05,
    ("knots-ties density 0.5", "fr"): 0.01,
    ("knots-ties density 0.5", "ja"): -0.06,
}
CHOSEN = "knots-ties density 0.5"


def systems():
    found = [System("BASE", "base"), System("INDV", "individual"), System("COMB", "combined")]
    found.append(System("MEAN", "mean", {"recipe": "mean", "scale": 1.5}, rank=80))
    for recipe, density in EIGHT:
        name = f"{recipe} density {density:g}"
        twin = {"dare-ties": "ties density 1", "knots-dare-ties": "knots-ties density 1"}
        settings = {"recipe": recipe} | ({"density": density} if density != 1.0 else {})
        same_as = twin.get(recipe) if density == 1.0 else None
        chosen = name == CHOSEN
        found.append(
            System(name, "candidate", settings, chosen, same_as, rank=80, truncation_error=0.0)
        )
    return found + [System(f"{language} only", "cross") for language in LANGUAGES]


def answers(system, language, split, n):
    """Rows whose difficulty is the rows' own, so that systems are right on the same ones."""
    rows_of = np.random.default_rng([LANGUAGES.index(language), split == "dev"])
    gold, hardness = rows_of.integers(0, 3, n), rows_of.random(n)
    own = np.random.default_rng([sum(system.encode()), LANGUAGES.index(language)])
    skill = SKILL.get(system, 0.55) + EASE[language]
    skill += EXTRA.get((system, language), 0.0)
    noisy = 0.9 * hardness + 0.1 * own.random(n)
    wrong = (gold + own.integers(1, 3, n)) % 3
    return [
        {
            "key": f"{language}-{split}-{i}",
            "language": language,
            "gold": LABELS[gold[i]],
            "prediction": LABELS[gold[i] if noisy[i] < skill else wrong[i]],
        }
        for i in range(n)
    ]


def evaluations(task, test_rows=400, dev_rows=200):
    found = []
    for system in systems():
        for language in LANGUAGES:
            if system.same_as:
                continue
            split_sizes = {"test": test_rows}
            if system.kind == "candidate":
                split_sizes["dev"] = dev_rows
            for split, n in split_sizes.items():
                own = system.name == f"{language} only"
                rows = answers("INDV" if own else system.name, language, split, n)
                signature = f"base:0f3a9c|evaluation:77aa01|{split} rows {language}:9b{n:04d}"
                found.append(Evaluation(task, system.name, language, split, rows, signature))
    return found


RELEASES = [
    ReleaseInput(
        "sentiment",
        version,
        ("production",),
        f"2026-0{version + 1}-03T12:00:00+00:00",
        {one: answers(system, one, "test", 60) for one in LANGUAGES[: 4 + (version > 1)]},
    )
    for version, system in enumerate(["ties density 1", "knots-ties density 1", CHOSEN], 1)
]


class Clock:
    """Two workers: each step goes to the one that is free first."""

    def __init__(self, run, begin, price=None):
        self.run, self.begin, self.free = run, begin, [0.0, 0.0]
        self.price = PRICE if price is None else price
        self.intervals = []

    def add(self, step, kind, seconds, status="done", artifact=None, error="", after=0.0):
        worker = self.free.index(min(self.free))
        start = max(self.free[worker], after)
        self.free[worker] = start + seconds
        self.intervals.append(
            Interval(
                id=f"{self.run}-{len(self.intervals)}",
                run=self.run,
                step=step,
                kind=kind,
                artifact=artifact or f"id of {step}",
                started=self.begin + timedelta(seconds=start),
                seconds=Decimal(str(seconds)),
                share=Decimal("0.5"),
                device="1 x CPU, 2 cores",
                status=status,
                tokens=1000,
                units=1000,
                error=error,
                price=self.price,
            )
        )

    @property
    def now(self):
        return max(self.free)


def ledger(task):
    """A run that went wrong, and the one that made the results."""
    early = Clock("5e1f09aa", BEGIN - timedelta(hours=3))
    early.add("base", "base", 21.4)
    early.add(f"train/{task}/de", "train", 118.2, "failed", error="no space left on device")
    early.add(f"train/{task}/ja", "train", 121.0, artifact="id of an older train ja")
    early.add(f"train/{task}/en", "train", 44.0, "interrupted", error="stopped by the user")
    run = Clock("c07de91b", BEGIN)
    run.add(f"train/{task}/comb", "train", 612.4)
    for language, seconds in zip(LANGUAGES, (131.2, 118.9, 127.5, 141.8, 120.3), strict=True):
        run.add(f"train/{task}/{language}", "train", seconds)
    candidates = [one.name for one in systems() if one.kind == "candidate" and not one.same_as]
    choose(run, task, candidates, "")
    choose(run, task, ["mean", "mean scale 1.5"], "/mean")
    run.free = [run.now] * 2
    for system in systems():
        for language in LANGUAGES:
            if not system.same_as and system.name != f"{language} only":
                run.add(f"evaluate/{task}/{system.name}/{language}/test", "evaluate", 11.5)
    return early.intervals + run.intervals


def choose(run, task, names, suffix):
    """Merge these, score them on dev, choose one."""
    for name in names:
        run.add(f"merge/{task}/{name}", "merge", 3.1)
    for name in names:
        for language in LANGUAGES:
            run.add(f"evaluate/{task}/{name}/{language}/dev", "evaluate", 6.2)
    run.add(f"select/{task}{suffix}", "select", 0.3, after=run.now)


def task_input(name="sentiment", **rows):
    return TaskInput(
        name=name,
        kind="classify",
        metrics=("macro-f1", "accuracy"),
        labels=LABELS,
        languages=LANGUAGES,
        margins={"macro-f1": 2.0, "accuracy": 2.0},
        reference="COMB",
        systems=systems(),
        evaluations=evaluations(name, **rows),
        interference=interference(),
    )


def interference():
    """Cosines from -0.2 to 1, energies up to rank 16, as inspecting adapters gives them."""
    count = len(LANGUAGES)
    cosine = [
        [1.0 if i == j else 0.3 - 0.1 * abs(i - j) for j in range(count)] for i in range(count)
    ]
    angle = [[0.0 if i == j else 40.0 + i + j for j in range(count)] for i in range(count)]
    overlap = [[abs(value) for value in row] for row in cosine]
    return {
        "languages": LANGUAGES,
        "base_model": "package:gemma3_270m",
        "parameters": [3_796_992] * count,
        "modules": [126] * count,
        "norms": [3.5 + 0.1 * i for i in range(count)],
        "cosine": cosine,
        "column_overlap": overlap,
        "row_overlap": overlap,
        "column_angle": angle,
        "row_angle": angle,
        "sign_conflict": [[(1 - value) / 2 for value in row] for row in cosine],
        "ranks": [[4.8, 11.5]] * count,
        "energy_ranks": [1, 2, 4, 8, 16],
        "energy": [[0.614, 0.75, 0.867, 0.949, 1.0]] * count,
    }


def report_input(**changes):
    intervals = ledger("sentiment")
    return ReportInput(
        **{
            "project": "reviews",
            "created": "2026-02-03T10:12:45+00:00",
            "version": "0.1.0",
            "spec": {
                "koinize": 1,
                "name": "reviews",
                "languages": list(LANGUAGES),
                "base": {"model": "package:gemma3_270m", "revision": None, "dtype": "bfloat16"},
                "lora": {"r": 16, "alpha": 32.0, "targets": "all-linear", "overrides": {}},
                "training": {"epochs": 3, "learning_rate": 0.0005, "batch_size": 8, "seed": 0},
                "merge": {"candidates": [[{"recipe": "ties", "density": 0.5}]]},
                "tasks": {
                    "sentiment": {
                        "kind": "classify",
                        "labels": list(LABELS),
                        "prompt": {"ja": "レビュー：{text}\n感情：", "zh": "评论：{text}\n情感："},
                    }
                },
            },
            "price": PRICE,
            "tasks": [task_input()],
            "intervals": intervals,
            "current": {one.address: f"id of {one.step}" for one in intervals},
            "releases": RELEASES,
            "notes": ["2 duplicate rows in data/fr.train.jsonl were kept (lines 12 and 40)."],
            **changes,
        }
    )


@pytest.fixture(scope="session")
def realistic():
    """Its results, on few rows so that they are there at once."""
    return results(report_input(tasks=[task_input(test_rows=60, dev_rows=40)]))

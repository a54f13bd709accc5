"""Halving among many candidates on real answers, beside scoring all on all dev rows.

    python examples/debian/build.py --extra 100
    OMP_NUM_THREADS=1 python benchmarks/halving_real.py run FOLDER --seeds 0 1 2
    python benchmarks/halving_real.py study STUDIES FOLDER --seeds 0 1 2
    python benchmarks/halving_real.py table FOLDER/*.gz

`run`: a seed draws 300 of 400 training rows of Debian topic a language, the first A and the order.
Five adapters of Gemma 3 270M are trained; then the merge is chosen twice in one project among 64,
by halving and by scoring all on the 100 dev rows of every language, and each choice is scored on
test. What every candidate answered to every dev row is kept in FOLDER/topic-SEED.json.gz. It
resumes where it was stopped.

`study`: keeps in FOLDER/reviews-SEED.json.gz what the 22 candidates of `examples/paper/study.py
density STUDIES --base gemma --rows 60 --tasks sentiment` answered to 24 dev rows a language.

`table`: what was found, and what the kept answers say of other draws. Halving depends on which rows
come first, so the dev rows are put in 400 orders; and a choice flatters itself on the rows
that it was made by, so each order's first half of every language chooses and the other half judges.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

import koinize
from koinize import pipeline
from koinize.metrics import Metric, metrics
from koinize.pipeline.judging import rows_of
from koinize.pipeline.step import PART, Step
from koinize.search.evidence import likelihoods, points
from koinize.search.halving import part, ranked, rungs
from koinize.search.order import balanced
from koinize.store import Store

DEBIAN = Path(__file__).resolve().parents[1] / "examples" / "debian"
TASK, TRAIN_ROWS, ORDERS = "topic", 300, 400
JUDGED = ("the rows that choose", "other rows")
CANDIDATES = {
    "recipe": ["ties", "knots-ties", "core-ties", "dare-ties"],
    "density": [0.5, 0.8],
    "scale": [0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0, 5.66],
}

LABELS = ["negative", "mixed", "positive"]  # of the reviews
STUDIED = (
    r"evaluate/sentiment/(?P<candidate>(knots-)?(dare-)?ties density [0-9.]+)"
    r"/(?P<language>[a-z]+)/dev"
)

Answers = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Candidate -> language -> its dev rows in their order."""


def set_up(folder: Path, seed: int) -> Path:
    """The project of a seed; returns its koinize.yaml."""
    file = folder / "koinize.yaml"
    if file.exists():
        return file
    shutil.copytree(DEBIAN / "data" / TASK, folder / "data")
    for extra in sorted((folder / "data").glob("*.extra.jsonl")):
        train = extra.with_name(extra.name.replace("extra", "train"))
        rows = (train.read_text() + extra.read_text()).splitlines(keepends=True)
        random.Random(f"{extra.name} {seed}").shuffle(rows)
        train.write_text("".join(rows[:TRAIN_ROWS]))
    yaml = YAML()
    spec = yaml.load(DEBIAN / TASK / "koinize.yaml")
    spec["tasks"][TASK]["data"] = "data/{language}.{split}.jsonl"
    spec["training"]["seed"] = spec["lora"]["seed"] = seed
    spec["baselines"] = []
    spec["machine"] = {"workers": 1, "threads": 1}
    yaml.dump(spec, file)
    return file


class Decided(Exception):
    """Everything was scored on dev."""


def until_test(event: koinize.Progress) -> None:
    """End a run before test is scored, since it would be for every candidate."""
    if event.step.endswith("/test"):
        raise Decided


def write(file: Path, candidates: Sequence[Any], choose: str) -> koinize.Project:
    """Let the project choose among these candidates this way."""
    yaml = YAML()
    spec = yaml.load(file)
    spec["merge"] = {"candidates": list(candidates), "choose": choose}
    yaml.dump(spec, file)
    return koinize.Project.open(file)


def tested(project: koinize.Project) -> dict[str, Any]:
    """Do what is missing; the merge that the project has chosen, and its score on test."""
    if (todo := project.plan()).steps:
        todo.run()
    score = project.results().tasks[TASK].score()
    return {"left": score.system, "test": [score.value, score.low, score.high]}


def scored(file: Path, way: str) -> dict[str, float]:
    """What choosing this way took: rows that were answered, and seconds."""
    opened = pipeline.Project.at(file)
    scorings = dev_scorings(opened, way)
    facts = [opened.store.open(step.id).facts for step in scorings]
    return {
        "rows": sum(sum(step.rows.values()) for step in scorings),
        "seconds": sum(float(one["seconds"]) for one in facts),
    }


def by_all(file: Path) -> dict[str, Any]:
    """All candidates scored on all dev rows, and the best of them on test."""
    with suppress(Decided):
        if (todo := write(file, [CANDIDATES], "all").plan()).steps:
            todo.run(until_test)
    took, told = scored(file, "all"), answers(file)
    opened = pipeline.Project.at(file)
    choice = next(one for one in opened.steps if one.kind == "select" and not one.address.role)
    best = opened.store.open(choice.id).facts["chosen"]
    merges = {one.system.title: one.merge for one in opened.steps if one.merge}
    settings = merges[best]
    return {"all": {**took, **tested(write(file, [settings.given()], "all"))}, **told}


def dev_scorings(project: pipeline.Project, way: str) -> list[Step]:
    """The evaluations on dev by which candidates are chosen."""
    dev = [one for one in project.steps if one.kind == "evaluate" and one.address.split == "dev"]
    return [
        one
        for one in dev
        if (PART in one.settings) == (way == "halving") and one.system.title != "MEAN"
    ]


def answers(file: Path) -> dict[str, Any]:
    """What every candidate answered to every dev row: the label's place, and the gold's NLL."""
    project = pipeline.Project.at(file)
    labels = list(project.spec.tasks[TASK].label_set)
    gold: dict[str, list[int]] = {}
    told: dict[str, dict[str, Any]] = defaultdict(dict)
    for step in dev_scorings(project, "all"):
        rows = rows_of(project.store, step.id)
        language = step.address.language
        gold[language] = [labels.index(row["gold"]) for row in rows]
        told[step.system.title][language] = answered(labels, rows)
    return {"labels": labels, "gold": gold, "candidates": told}


def answered(labels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What one candidate answered to one language's rows."""
    losses = likelihoods(labels, rows)
    if losses is None:
        raise SystemExit("rows without a score for every label")
    return {
        "predicted": [labels.index(row["prediction"]) for row in rows],
        "nll": [round(float(one), 3) for one in losses],
    }


def run(out: Path, seed: int) -> Path:
    """Everything of a seed; returns the file that keeps it."""
    kept = out / f"topic-{seed}.json.gz"
    if not kept.exists():
        file = set_up(out / f"seed-{seed}", seed)
        halving = tested(write(file, [CANDIDATES], "halving")) | scored(file, "halving")
        keep(kept, {"task": TASK, "seed": seed, "halving": halving, **by_all(file)})
    return kept


def keep(file: Path, told: Mapping[str, Any]) -> None:
    """Write what was found, the same bytes for the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(json.dumps(told).encode(), mtime=0))


def study(studies: Path, out: Path, seed: int) -> Path:
    """Keep what the candidates of the study of densities answered; returns the file."""
    store = Store(studies / "gemma-60" / f"seed-{seed}" / ".koinize")
    gold: dict[str, list[int]] = {}
    told: dict[str, dict[str, Any]] = defaultdict(dict)
    for one in sorted(store.ids()):
        manifest = store.manifest(one)
        if manifest is None or not (found := re.fullmatch(STUDIED, manifest.name)):
            continue
        rows = rows_of(store, one)
        gold[found["language"]] = [LABELS.index(row["gold"]) for row in rows]
        told[found["candidate"]][found["language"]] = answered(LABELS, rows)
    gold = dict(sorted(gold.items()))
    candidates = {name: told[name] for name in sorted(told) if told[name].keys() == gold.keys()}
    kept = out / f"reviews-{seed}.json.gz"
    about = {"task": "reviews", "seed": seed, "labels": LABELS, "gold": gold}
    keep(kept, {**about, "candidates": candidates})
    return kept


def read(kept: Mapping[str, Any]) -> Answers:
    """The kept answers as result rows. Of the labels' scores only the gold's NLL was kept, which is
    all that halving reads of them: the others are 0, and the gold's is what gives that NLL.
    """
    labels = kept["labels"]

    def row(number: int, gold: int, predicted: int, nll: float) -> dict[str, Any]:
        scores = [0.0] * len(labels)
        scores[gold] = math.log((len(labels) - 1) / max(math.expm1(nll), 1e-12))
        names = {"gold": labels[gold], "prediction": labels[predicted]}
        return {"key": str(number), "scores": scores, **names}

    return {
        name: {
            language: [
                row(number, *each)
                for number, each in enumerate(
                    zip(kept["gold"][language], own["predicted"], own["nll"], strict=True)
                )
            ]
            for language, own in by_language.items()
        }
        for name, by_language in kept["candidates"].items()
    }


def halved(
    metric: Metric, labels: Sequence[str], rows: Answers, called: Mapping[str, str] | None = None
) -> str:
    """Who is left when all that are there answer growing shares of these rows. `called`: other
    names of the labels, by which ties are broken in the order of the rows.
    """
    alive = list(rows)
    anyone = rows[alive[0]]
    called = called or {label: label for label in labels}
    gold = [[called[row["gold"]] for row in own] for own in anyone.values()]
    rows = reordered(rows, dict(zip(anyone, balanced(gold), strict=True)))
    for rung in rungs(len(rows)):
        languages = next(iter(rows.values()))
        upto = {
            language: part(len(own), rung.share, place, len(languages))
            for place, (language, own) in enumerate(languages.items())
        }
        so_far = {
            name: {one: own[: upto[one]] for one, own in rows[name].items() if upto[one]}
            for name in alive
        }
        standings = ranked(metric, labels, so_far, rung.share)
        alive = [one.candidate for one in standings[: rung.keep]]
    return alive[0]


@dataclass(frozen=True)
class Loss:
    """Points by which halving's candidate is below the one that scoring all chooses, by order."""

    each: Sequence[float]

    def __str__(self) -> str:
        mean, high = np.mean(self.each), np.percentile(self.each, 95)
        within = np.mean([one <= 0.5 for one in self.each])
        return f"{mean:.2f} | {high:.1f} | {within:.0%}"


def orders(kept: Mapping[str, Any], count: int) -> tuple[Loss, Loss]:
    """On the same rows that choose, all of them; and on the half that does not choose. What the
    labels are called, which decides ties, is drawn as well.
    """
    labels, rows = kept["labels"], read(kept)
    metric = metrics.get("macro-f1").over(labels)
    same, other = [], []
    for seed in range(count):
        draw = random.Random(f"{kept['seed']} {seed}")
        places = {one: draw.sample(range(len(own)), len(own)) for one, own in kept["gold"].items()}
        called = dict(zip(labels, draw.sample(labels, len(labels)), strict=True))
        mixed = reordered(rows, places)
        same.append(lost(metric, called, mixed, mixed))
        first = {one: own[: len(own) // 2] for one, own in places.items()}
        second = {one: own[len(own) // 2 :] for one, own in places.items()}
        other.append(lost(metric, called, reordered(rows, first), reordered(rows, second)))
    return Loss(same), Loss(other)


def reordered(rows: Answers, places: Mapping[str, Sequence[int]]) -> Answers:
    """Each language's rows at these places, in this order."""
    return {
        name: {one: [own[place] for place in places[one]] for one, own in by_language.items()}
        for name, by_language in rows.items()
    }


def lost(metric: Metric, called: Mapping[str, str], choosing: Answers, judging: Answers) -> float:
    """Points on `judging` of what all of `choosing` choose, less those of what halving leaves."""
    best = max(choosing, key=lambda one: points(metric, choosing[one]))
    left = halved(metric, list(called), choosing, called)
    return points(metric, judging[best]) - points(metric, judging[left])


def table(files: Sequence[Path], count: int = ORDERS) -> Iterator[str]:
    """The lines of the page: what each seed's run found, and what its answers say otherwise."""
    seeds = [json.loads(gzip.decompress(one.read_bytes())) for one in sorted(files)]
    yield "| seed | chosen by | is left | dev | test | rows answered | scorings | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    for kept in seeds:
        metric = metrics.get("macro-f1").over(kept["labels"])
        dev = read(kept)
        whole = sum(map(len, kept["gold"].values()))
        for way in [one for one in ("halving", "all") if one in kept]:
            one = kept[way]
            value, low, high = one["test"]
            yield (
                f"| {kept['seed']} | {way} | {one['left']} | {points(metric, dev[one['left']]):.1f}"
                f" | {value:.1f} [{low:.1f}, {high:.1f}] | {one['rows']:,} | "
                f"{one['rows'] / whole:.2f} | {one['seconds']:.0f} |"
            )
    yield ""
    yield (
        "| task | seed | candidates | dev rows | judged on | lost, mean | at most in 95 % "
        "| within .5 |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    means = []
    for kept in seeds:
        losses = orders(kept, count)
        means.append([float(np.mean(one.each)) for one in losses])
        about = f"| {kept['task']} | {kept['seed']} | {len(kept['candidates'])} | "
        about += f"{sum(map(len, kept['gold'].values()))}"
        for rows, loss in zip(JUDGED, losses, strict=True):
            yield f"{about} | {rows} | {loss} |"
    for rows, some in zip(JUDGED, zip(*means, strict=True), strict=True):
        yield f"| mean of these {len(seeds)} | | | | {rows} | {np.mean(some):.2f} | | |"


def main() -> None:
    """Run seeds, keep what a study answered, or print the tables of what was kept."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    doing = commands.add_parser("run")
    doing.add_argument("out", type=Path)
    doing.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    keeping = commands.add_parser("study")
    keeping.add_argument("studies", type=Path)
    keeping.add_argument("out", type=Path)
    keeping.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    commands.add_parser("table").add_argument("files", type=Path, nargs="+")
    asked = parser.parse_args()
    if asked.command == "table":
        print(*table(asked.files), sep="\n")
        return
    for seed in asked.seeds:
        done = (
            run(asked.out, seed)
            if asked.command == "run"
            else study(asked.studies, asked.out, seed)
        )
        print(done, flush=True)


if __name__ == "__main__":
    main()

"""The studies: which projects each of them runs, and what its tables show of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import generated
from projects import FIVE, Bench, adapters, results
from scipy.stats import spearmanr
from tables import Table

from koinize.api import TaskResults
from koinize.engine.inspect import inspect_adapters
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.systems import system_of

Candidate = Mapping[str, Any]
BASELINES = ("base", "indv", "comb", "mean")
DISTINCT: Mapping[str, Candidate] = {
    f"{recipe} {density}": {"recipe": recipe, "density": density}
    for recipe, densities in (
        ("ties", (0.5, 1.0)),
        ("dare-ties", (0.5,)),
        ("knots-ties", (0.5, 1.0)),
        ("knots-dare-ties", (0.5,)),
    )
    for density in densities
}
"""The paper's eight configurations: at density 1 nothing is dropped, so that six are distinct."""
MEAN, TIES, KNOTS = {"recipe": "mean"}, {"recipe": "ties"}, DISTINCT["knots-ties 0.5"]


def eight(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """Every configuration of the paper on test, and the one that dev chooses, beside baselines."""
    for task in tasks:
        table = Table(f"{task}: every configuration on test")
        for seed in seeds:
            for name, candidate in DISTINCT.items():
                found = results(bench.run(seed, task, [candidate], baselines=BASELINES), task)
                if name == next(iter(DISTINCT)):
                    for system in ("BASE", "INDV", "MEAN", "COMB"):
                        add_scores(table, system, seed, found, system)
                add_scores(table, name, seed, found)
            found = results(bench.run(seed, task, ["paper"], baselines=BASELINES), task)
            add_scores(table, "chosen on dev", seed, found)
        yield table


def density(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """Four recipes over densities, on dev, and TIES over the weight of English, on test."""
    recipes = ("ties", "dare-ties", "knots-ties", "knots-dare-ties")
    densities, weights = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0), (0.5, 1.0, 2.0, 4.0, 8.0)
    for task in tasks:
        curves = Table(f"{task}: recipe by density, mean over languages on dev")
        weighted = Table(f"{task}: ties 1.0 by the weight of English, on test")
        grid = [{"recipe": one, "density": share} for one in recipes for share in densities]
        for seed in seeds:
            found = results(bench.run(seed, task, grid), task)
            for one in grid:
                # At density 1 a recipe that draws is the one that trims, and has its name.
                score = found.score(title(plain(one)), split="dev").value
                curves.add(str(one["recipe"]), str(one["density"]), seed, score)
            for weight in weights:
                candidate = {**TIES, "weights": {"en": weight}}
                add_scores(weighted, f"{weight:g}", seed, on_test(bench, seed, task, candidate))
        yield curves
        yield weighted


def plain(candidate: Candidate) -> Candidate:
    """The candidate under the name that the same merge has first."""
    if candidate["density"] < 1:
        return candidate
    return {**candidate, "recipe": str(candidate["recipe"]).replace("dare-", "")}


def update(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """A language has a third of its rows, then all of them: who gains, who loses, by TIES."""
    for task in tasks:
        table = Table(f"{task}: change of the merge on test when the row's language is updated")
        for seed in seeds:
            after = results(bench.run(seed, task, [TIES], baselines=["indv"]), task)
            for language in FIVE:
                few = {language: bench.rows // 3}
                run = bench.run(seed, task, [TIES], baselines=["indv"], first=few)
                before = results(run, task)
                for one in FIVE:
                    gain = after.score(None, one).value - before.score(None, one).value
                    table.add(language, one, seed, gain)
                others = [table.figures[language, one][seed] for one in FIVE if one != language]
                table.add(language, "the four others", seed, fmean(others))
                own = [run.score("INDV", language).value for run in (before, after)]
                table.add(language, "its own adapter", seed, own[1] - own[0])
        yield table


def clusters(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """Languages of a family merged first, then the families; beside it groups of no family."""
    groupings = {
        "at once": [],
        "de en fr, ja zh": [["de", "en", "fr"], ["ja", "zh"]],
        "de ja, en fr zh": [["de", "ja"], ["en", "fr", "zh"]],
    }
    for task in tasks:
        table = Table(f"{task}: merged in groups, on test")
        for seed in seeds:
            for name, recipe in (("mean", MEAN), ("knots-ties 0.5", KNOTS)):
                for label, groups in groupings.items():
                    found = on_test(bench, seed, task, {**recipe, "groups": groups})
                    add_scores(table, f"{name}, {label}", seed, found)
        yield table


def across(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """One adapter for all tasks and languages, untuned and tuned, beside one for each task."""
    table = Table(f"{', '.join(tasks)} in one adapter: mean over languages on test")
    # A project has one number of epochs, so tasks that share one have that of the longest.
    epochs = {"training": {"epochs": max(bench.epochs(task) for task in tasks)}}
    shared = {**epochs, "merge": {"across": list(tasks)}}
    ways = {
        "tasks x languages, untuned mean": [MEAN],
        "tasks x languages, untuned ties 1.0": [TIES],
        "tasks x languages, tuned on dev": tuned(tasks),
    }
    for seed in seeds:
        for task in tasks:
            for name, one in (("mean", MEAN), ("ties 1.0", TIES)):
                alone = on_test(bench, seed, task, one, changes=epochs)
                table.add(f"each task, {name}", task, seed, alone.score().value)
        for name, candidates in ways.items():
            project = bench.run(seed, tasks, candidates, baselines=["comb"], changes=shared)
            for task in tasks:
                found = results(project, task)
                table.add(name, task, seed, found.score().value)
                table.add("COMB of each task", task, seed, found.score("COMB").value)
    yield table


def tuned(tasks: Sequence[str]) -> list[Candidate]:
    """A weight for each task in turn, a larger scale, and tasks that are merged first."""
    groups = [[task] for task in tasks]
    scaled = [{**MEAN, "scale": one} for one in (1.0, 1.5, 2.0, 3.0)]
    return [
        *scaled,
        *({**MEAN, "scale": 2.0, "weights": {task: 2}} for task in tasks),
        {**KNOTS, "groups": groups},
        TIES,
    ]


def languages(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """From two to five languages, of generated ones to fifty: what a merge keeps."""
    counts = (2, 3, 4, 5, 10, 20, 50) if bench.is_tiny else (2, 3, 4, 5)
    recipes = {"mean": MEAN, "ties 1.0": TIES, "knots-ties 0.5": KNOTS}
    for task in tasks:
        table = Table(f"{task}: number of languages, means over them on test")
        for seed in seeds:
            for count in counts:
                for name, recipe in recipes.items():
                    some = generated.codes(count)
                    run = bench.run(seed, task, [recipe], baselines=BASELINES[:3], languages=some)
                    found = results(run, task)
                    for system in ("BASE", "INDV", "COMB"):
                        table.add(str(count), system, seed, found.score(system).value)
                    table.add(str(count), name, seed, found.score().value)
        yield table


def orthogonality(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """Pairs of languages: cosine of their updates beside what the mean of the two loses.

    Once with one first A for all languages, as usual, and once with one for each, which makes the
    updates nearly orthogonal whatever the languages are.
    """
    for task in tasks:
        for name, apart in (("one first A", False), ("an A for each language", True)):
            table = Table(f"{task}, {name}: pairs on test", digits=2)
            for seed in seeds:
                for pair in combinations(FIVE, 2):
                    _pair(bench, table, seed, task, pair, apart)
            _correlate(table)
            yield table


def _pair(
    bench: Bench, table: Table, seed: int, task: str, pair: Sequence[str], apart: bool
) -> None:
    """The cosine of two languages' updates, and what INDV has over their merges."""
    first = {one: {"seed": 100 * seed + 1 + FIVE.index(one)} for one in pair if apart}
    changes = {"lora": {"overrides": first}}
    for name, recipe in (("mean", MEAN), ("sum", {"recipe": "sum"})):
        project = bench.run(
            seed, task, [recipe], languages=pair, baselines=["indv"], changes=changes
        )
        found = results(project, task)
        cosine = inspect_adapters(adapters(project, task)).total.cosine[0][1]
        table.add(" ".join(pair), "cosine", seed, cosine)
        loss = found.score("INDV").value - found.score().value
        table.add(" ".join(pair), f"loss of the {name}", seed, loss)


def _correlate(table: Table) -> None:
    """Spearman's correlation of cosine and loss over the pairs, seed by seed."""
    pairs = [row for row, column in table.figures if column == "cosine"]
    for name in ("loss of the mean", "loss of the sum"):
        for seed in table.figures[pairs[0], "cosine"]:
            columns = [
                [table.figures[pair, column][seed] for pair in pairs] for column in ("cosine", name)
            ]
            rho = float(spearmanr(*columns).statistic)
            table.add("rank correlation with the cosine", name, seed, rho)


def english(bench: Bench, seeds: Sequence[int], tasks: Sequence[str]) -> Iterator[Table]:
    """Why a merge may lose in English: too few steps of its own, or what the others bring?"""
    for task in tasks:
        table = Table(f"{task}: by language, on test")
        long = {"training": {"epochs": bench.epochs(task) * len(FIVE)}}
        for seed in seeds:
            kinds = [*BASELINES, "cross"]
            found = results(bench.run(seed, task, [TIES], baselines=kinds), task)
            project = bench.run(seed, task, [TIES], baselines=["indv"], changes=long)
            longer = results(project, task)
            for language in FIVE:
                for row, value in _ways(found, longer, language).items():
                    table.add(row, language, seed, value)
        yield table


def _ways(found: TaskResults, longer: TaskResults, language: str) -> dict[str, float]:
    """What each system, and each other language's adapter, reaches in this language."""
    scores = {
        "BASE": found.score("BASE", language),
        "its own adapter": found.score("INDV", language),
        "its own, as many steps as COMB": longer.score("INDV", language),
        **{
            f"{one}'s adapter": found.score("INDV" if one == language else f"{one} only", language)
            for one in FIVE
        },
        "MEAN": found.score("MEAN", language),
        "ties 1.0": found.score(None, language),
        "ties 1.0 of the longer ones": longer.score(None, language),
        "COMB": found.score("COMB", language),
    }
    return {row: one.value for row, one in scores.items()}


def on_test(
    bench: Bench,
    seed: int,
    task: str,
    candidate: Candidate,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> TaskResults:
    """One merge and COMB on test: where there is one candidate, nothing is chosen."""
    return results(bench.run(seed, task, [candidate], baselines=["comb"], changes=changes), task)


def title(candidate: Candidate) -> str:
    """What results call this merge."""
    return system_of(MergeSettings.model_validate(candidate)).title


def add_scores(
    table: Table, row: str, seed: int, found: TaskResults, system: str | None = None
) -> None:
    """Each language's score on test, the mean over them, and the difference of means to COMB.

    By default of the chosen merge.
    """
    for language in found.languages:
        table.add(row, language, seed, found.score(system, language).value)
    mean = found.score(system).value
    table.add(row, "mean", seed, mean)
    table.add(row, "against COMB", seed, mean - found.score("COMB").value)


Study = Callable[[Bench, Sequence[int], Sequence[str]], Iterator[Table]]
THREE, ONE = ("topic", "choice", "summary"), ("topic",)
STUDIES: Mapping[str, tuple[Study, Sequence[str]]] = {
    "eight": (eight, THREE),
    "density": (density, ONE),
    "update": (update, ONE),
    "clusters": (clusters, ONE),
    "across": (across, THREE),
    "languages": (languages, ONE),
    "orthogonality": (orthogonality, ONE),
    "english": (english, ("sentiment",)),
}
"""Every study, and the tasks that it takes unless told otherwise."""

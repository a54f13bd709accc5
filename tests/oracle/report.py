"""A report, once more, from what lies in a finished project's `.koinize`: the result rows, the
lines of the ledger, the manifests, the releases, the adapters. No line of koinize is used. What a
figure is, docs/report.md, docs/metrics.md and docs/ledger.md say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.oracle.account import Account
from tests.oracle.costs import costs
from tests.oracle.quality import Quality
from tests.oracle.releases import releases
from tests.oracle.task_costs import TaskCosts

Place = tuple[str, ...]

NAMING = (
    *("task", "split", "metric", "system", "reference", "language", "version", "name", "label"),
    *("run", "scope"),
)
"""What tells the rows of a list apart; those of a timeline the step, of what varies the kind of
work; all others their place.
"""

UNCHECKED: Mapping[str, str] = {
    "format": "a constant",
    "created": "when the report was made",
    "version": "koinize's",
    "project": "koinize.yaml",
    "spec": "koinize.yaml with its defaults: tests/spec",
    "tasks/*/name": "koinize.yaml",
    "tasks/*/kind": "koinize.yaml",
    "tasks/*/metrics": "koinize.yaml",
    "tasks/*/labels": "koinize.yaml",
    "tasks/*/languages": "koinize.yaml",
    "tasks/*/margins": "koinize.yaml",
    "tasks/*/reference": "always COMB",
    "tasks/*/systems/*/kind": "koinize.yaml: what the system was asked for as",
    "tasks/*/systems/*/settings": "koinize.yaml",
    "tasks/*/selection/*/kind": "koinize.yaml",
    "tasks/*/selection/*/settings": "koinize.yaml",
    "tasks/*/halved": "koinize.yaml; halving has tests of its own in tests/search",
    "tasks/*/scores/*/signature": "how it was made, in words: golden values in tests/metrics",
    "tasks/*/verdicts/*/signature": "how it was made, in words: golden values in tests/metrics",
    "tasks/*/pooled/*/signature": "how it was made, in words: golden values in tests/metrics",
    "tasks/*/against_mean/signature": "how it was made, in words: golden values in tests/metrics",
    "releases/*/scores/*/signature": "how it was made, in words: golden values in tests/metrics",
    "costs/breakdown/*/kind": "a colour",
    "costs/timeline/lanes": "where a bar is drawn",
    "costs/timeline/bars/*/lane": "where a bar is drawn",
    "costs/timeline/bars/*/kind": "what stands in a bar",
    "costs/timeline/bars/*/name": "what stands in a bar",
    "costs/timeline/bars/*/tone": "a colour",
    "notes": "sentences: tests/report and tests/pipeline",
}
"""Everything in a report's JSON that is not recomputed, and why. `*` is any row of a list."""


def leaves(value: object, at: Place = ()) -> Iterator[tuple[Place, object]]:
    """Every number, word and nothing of a report, by where it stands."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from leaves(one, (*at, str(key)))
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        taken = Counter[str]()
        for number, one in enumerate(value):
            own = "step" if "start_seconds" in one else "kind" if "percent" in one else ""
            names = [one[own]] if own else [one.get(key) for key in NAMING]
            name = "|".join(str(name) for name in names if name is not None) or str(number)
            taken[name] += 1
            again = f" ({taken[name]})" if taken[name] > 1 else ""
            yield from leaves(one, (*at, name + again))
    else:
        yield at, value


def recomputed(home: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is not listed above. Of `said`, a report, no figure is read."""
    account = Account(home, said)
    tasks = [TaskCosts(account, one) for one in said["tasks"]]
    quality = [Quality(one, one.said) for one in tasks]
    drift = [
        releases(home, name, measure, not one.labels, account.judges(name, measure.name))
        for one in quality
        for name, measure in [(one.said["name"], one.measures[0])]
    ]
    prices = {tuple(sorted(one.items())): dict(one) for one in map(account.price, account.pieces)}
    return {
        "prices": [one for one in prices.values() if one],
        "currency": account.currency,
        "tasks": [
            {**_named(one.said), **one.results(), "costs": one.costs.results()} for one in quality
        ],
        "releases": [one for one in drift if one],
        "costs": costs(account, tasks),
    }


def _named(task: Mapping[str, Any]) -> dict[str, str]:
    return {key: task[key] for key in ("name", "reference")}


def disagreements(home: Path, said: Mapping[str, Any]) -> list[str]:
    """Where a report and the oracle differ, or one has a figure that the other lacks."""
    return differences(said, recomputed(home, said)) + [
        f"tasks/{task['name']}/selection: not the best first"
        for task in said["tasks"]
        for means in [[one["mean"]["value"] for one in task["selection"] if one["mean"]]]
        if any(after > before + 1e-9 for before, after in pairwise(means))
    ]


def differences(said: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two of a form differ, each leaf by its place."""
    report = {place: one for place, one in leaves(said) if not unchecked(place)}
    found = {place: one for place, one in leaves(other) if not unchecked(place)}
    wrong = [
        f"{'/'.join(place)}: {report.get(place, 'nothing')!r} and not {_shown(found, place)}"
        for place in report.keys() | found.keys()
        if place not in report
        or place not in found
        or not _equal(report[place], found[place], _digits(place))
    ]
    return sorted(wrong)


def left(said: Mapping[str, Any]) -> tuple[int, Counter[str]]:
    """How many leaves there are, and how many are left out by each line of the list."""
    listed = [listed_as(place) for place, _ in leaves(said)]
    return len(listed), Counter(one for one in listed if one)


def unchecked(place: Place) -> bool:
    """Whether a leaf, or something that it is a part of, is listed."""
    return bool(listed_as(place))


def listed_as(place: Place) -> str:
    """The line of the list that leaves it out; empty for what is recomputed."""
    return next((one for one in UNCHECKED if _stands_in(place, one.split("/"))), "")


def _stands_in(place: Place, pattern: Sequence[str]) -> bool:
    return len(place) >= len(pattern) and all(
        one in ("*", part) for one, part in zip(pattern, place, strict=False)
    )


def _shown(found: Mapping[Place, Any], place: Place) -> str:
    one = found.get(place, "nothing")
    return repr(one) if one is None or isinstance(one, (str, list, bool)) else repr(float(one))


def _digits(place: Place) -> float:
    """How close a figure has to be: adapters are decomposed in other ways here, from float32."""
    return 1e-5 if "interference" in place else 1e-9


def _equal(one: Any, other: Any, digits: float) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        if one and all(isinstance(each, str) for each in [*one, *other]):
            return sorted(one) == sorted(other)
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_equal(*pair, digits) for pair in pairs)
    if isinstance(one, (int, float)) and other is not None and not isinstance(other, (str, list)):
        return math.isclose(one, other, rel_tol=digits, abs_tol=digits)
    return bool(one == other)

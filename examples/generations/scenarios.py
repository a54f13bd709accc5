"""Which rows a training sees, decided by keys and a seed alone: pure functions, no model.

Rows are `{language: examples}`, in the order in which a seed draws them, so that the first third
of a language is what it had before it changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from koinize.digest import digest
from koinize.tasks import Example

Rows = Mapping[str, tuple[Example, ...]]


@dataclass(frozen=True)
class Branching:
    """How a branch is trained: epochs, peak learning rate, share of the others' rows as anchors."""

    name: str
    epochs: int
    learning_rate: float
    anchors: float


FULL = Branching("branch", epochs=2, learning_rate=3e-4, anchors=0.25)
# Where COMB sees every row once, two epochs would cost four fifths of it: a branch at 28 %.
LEAN = Branching("lean", epochs=1, learning_rate=5e-4, anchors=0.1)

BEFORE = 1 / 3
"""The share of its rows that a language had before it changed."""
MONTHS = ("de", "ja", "fr", "zh", "en", "ja")
"""Whose rows arrive in each month of half a year."""
SHARES = (0.1, 0.2, 0.5)
"""Of every language's rows, what a trunk sees that is no COMB."""
ROUNDS = (2, 4)
"""How often adapters that are trained apart meet in their mean."""
AT_FIRST = 0.75
"""The share of its rows that a language has before the first month."""


def drawn(rows: Iterable[Example], seed: int, count: int | None) -> tuple[Example, ...]:
    """At most `count` rows, in an order that (seed, key) decides."""
    order = sorted(rows, key=lambda row: digest([seed, row.language, row.key]))
    return tuple(order[:count])


def part(rows: Sequence[Example], share: float) -> tuple[Example, ...]:
    """The first `share` of the rows, rounded up."""
    return tuple(rows[: math.ceil(share * len(rows) - 1e-9)])


def with_part(rows: Rows, languages: Iterable[str], share: float) -> Rows:
    """The rows of which these languages have only the first share; with 0 they are left out."""
    changed = set(languages)
    kept = {one: part(rows[one], share) if one in changed else rows[one] for one in rows}
    return {one: own for one, own in kept.items() if own}


def anchors(rows: Rows, language: str, share: float, seed: int) -> tuple[Example, ...]:
    """A share of every other language's rows, drawn by (seed, key): the same for every update."""
    found: list[Example] = []
    for other in sorted(rows.keys() - {language}):
        order = sorted(rows[other], key=lambda row: digest(["anchor", seed, row.language, row.key]))
        found += part(order, share)
    return tuple(found)


def branch_rows(
    known: Rows, today: Rows, language: str, branching: Branching, seed: int
) -> tuple[Example, ...]:
    """All of a language's rows of today and the anchors among the rows that the trunk knew."""
    return (*today[language], *anchors(known, language, branching.anchors, seed))


def all_of(rows: Rows) -> tuple[Example, ...]:
    """The rows of all languages."""
    return tuple(row for language in sorted(rows) for row in rows[language])


def equal_compute(rows: Rows, visits: int) -> tuple[tuple[Example, ...], int]:
    """Rows of all languages in even shares, and epochs, for about `visits` rows seen in all."""
    total = sum(map(len, rows.values()))
    epochs = math.ceil(visits / total)
    share = min(1.0, visits / epochs / total)
    return all_of(with_part(rows, rows, share)), epochs


def steps(rows: int, epochs: int, batch_size: int) -> int:
    """Optimizer steps of a training."""
    return epochs * math.ceil(rows / batch_size)


def epochs_of(wanted: float, rows: int, batch_size: int) -> int:
    """As many epochs over so many rows as come next to the wanted number of steps."""
    return max(1, round(wanted / steps(rows, 1, batch_size)))


def rounds(rows: Sequence[Example], count: int) -> tuple[tuple[Example, ...], ...]:
    """The rows in so many parts that differ by one row at most, in order."""
    ends = [len(rows) * number // count for number in range(count + 1)]
    return tuple(tuple(rows[begin:end]) for begin, end in pairwise(ends))


def groups(languages: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Two and three languages that change in one release: the last two, and the first beside."""
    return tuple(languages[-2:]), (languages[0], *languages[-2:])


def months(languages: Iterable[str], rotation: Sequence[str] = MONTHS) -> tuple[str, ...]:
    """Who changes in each month, of the languages that there are."""
    known = set(languages)
    return tuple(one for one in rotation if one in known)


def rows_of_month(rows: Rows, changes: Sequence[str], month: int) -> Rows:
    """The rows after so many months: what is left arrives in even parts whenever it is one's turn.

    `changes` is what `months` says; a language that never changes has all its rows at first.
    """
    found = {}
    for language, own in rows.items():
        turns = changes.count(language)
        past = changes[:month].count(language)
        share = AT_FIRST + (1 - AT_FIRST) * past / turns if turns else 1.0
        found[language] = part(own, share)
    return found


def sum_weights(trunk: str, branches: Sequence[str], weight: float) -> dict[str, float]:
    """trunk + weight x sum of (branch - trunk), as weights of the adapters themselves."""
    found = {trunk: 1.0 - weight * len(branches)}
    return found | dict.fromkeys(branches, weight)

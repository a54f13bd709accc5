"""In which order dev rows are answered by parts, so that any part is like the whole."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

TOGETHER = 3.0  # times as much as in its own language a label counts in all languages together


class _Balance:
    """How many rows of each label were taken, and how many there are."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.rows, self.all = Counter(labels), len(labels)
        self.taken, self.done = Counter[str](), 0

    def behind(self, label: str) -> float:
        """By how many rows it will be behind its share when one more is taken, of another label."""
        return self.rows[label] / self.all * (self.done + 1) - self.taken[label]

    def take(self, label: str) -> None:
        self.taken[label] += 1
        self.done += 1


def balanced(gold: Sequence[Sequence[str]]) -> list[list[int]]:
    """The places of each language's rows, given the gold label of each, in the order in which they
    are answered: the next one is the first of the label that is furthest behind its share, among
    the language's rows and, above all, among those of all languages.

    The languages take turns as `halving.part` lets their rows in.
    """
    left = [_by_label(labels) for labels in gold]
    own = [_Balance(labels) for labels in gold]
    whole = _Balance([label for labels in gold for label in labels])
    order: list[list[int]] = [[] for _ in gold]
    turns = [
        ((number - place / len(gold)) / len(labels), place)
        for place, labels in enumerate(gold)
        for number in range(1, len(labels) + 1)
    ]
    for _, place in sorted(turns):
        behind = {
            label: own[place].behind(label) + TOGETHER * whole.behind(label)
            for label, places in left[place].items()
            if places
        }
        label = max(behind, key=behind.__getitem__)
        order[place].append(left[place][label].popleft())
        for balance in (own[place], whole):
            balance.take(label)
    return order


def _by_label(labels: Sequence[str]) -> dict[str, deque[int]]:
    """The places of each label's rows; the labels in alphabetical order, which decides ties."""
    return {
        label: deque(place for place, one in enumerate(labels) if one == label)
        for label in sorted(set(labels))
    }

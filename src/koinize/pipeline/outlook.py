"""When a new generation would pay, and what it would cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from koinize.ledger.address import BRANCH, TRUNK
from koinize.pipeline.estimate import Estimate, Rates, together
from koinize.pipeline.step import Step

MANY = 0.5
"""The share of a task's languages that left its trunk, from which a new one is suggested: each more
adds its rank to the release, and two branches know nothing of what the other learnt."""


@dataclass(frozen=True)
class Outlook:
    """One task: the languages that left the trunk, of how many, and what another trunk takes.

    `known`: whether the ledger has trained a trunk, or COMB, so that the time is no first guess.
    """

    task: str
    branches: tuple[str, ...]
    languages: int
    trunk: Estimate
    known: bool


def outlooks(steps: Sequence[Step], present: Collection[str], rates: Rates) -> Iterator[Outlook]:
    """The tasks for which a new generation is suggested."""
    steps = [one for one in steps if one.stands and not one.seed]
    for trunk in (one for one in steps if one.address.role == TRUNK):
        if trunk.kind != "train" or trunk.id not in present:
            continue
        own = [one for one in steps if one.task == trunk.task]
        branches = tuple(one.language for one in own if one.address.role == BRANCH)
        languages = len({one.language for one in own if one.kind == "evaluate"})
        if len(branches) > 1 and len(branches) >= MANY * languages and "share" not in trunk.inputs:
            rate = rates.step(trunk)
            seconds = together([(rate, rate.seconds(trunk.units))])
            yield Outlook(trunk.task, branches, languages, seconds, rate.learnt)

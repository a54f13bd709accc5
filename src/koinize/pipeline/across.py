"""Tasks whose adapters are merged into one: what its parts are called, and how it is chosen.

With `merge.across` a merge is one of tasks x languages. Each of its parts is called such as
`topic.ja`, and a candidate names them by their task, by their language, or so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from koinize.merge.recipe import MergeSettings, merge_settings
from koinize.spec import Spec


def sharing(spec: Spec, task: str) -> tuple[str, ...]:
    """The tasks that one adapter serves, of which this is one; this alone where it shares none."""
    return spec.merge.across if task in spec.merge.across else (task,)


def part_of(spec: Spec, task: str, language: str) -> str:
    """What an adapter is called among those that it is merged with."""
    return f"{task}.{language}" if task in spec.merge.across else language


def language_of(part: str) -> str:
    """The language of what is called so; no language has a full stop in its code."""
    return part.rpartition(".")[2]


def task_of(part: str) -> str:
    """Its task; empty where all that is merged is of one."""
    return part.rpartition(".")[0]


def spelled_out(settings: MergeSettings, parts: Iterable[str]) -> MergeSettings:
    """The same merge with every part named: a weight or a group may name a task or a language, and
    means all of its parts. A part's weight is the product of those that name it.

    Raises InputError for a part that is in two groups.
    """
    known = sorted(parts)

    def weights(stated: Mapping[str, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in stated:
            for one in _named(name, known):
                found[one] = found.get(one, 1.0) * stated[name]
        return found

    def options(own: Mapping[str, Any]) -> dict[str, Any]:
        return {**own, "weights": weights(own["weights"])} if "weights" in own else {**own}

    apart = {one: weight for one, weight in weights(settings.weights).items() if weight != 1.0}
    groups = [[one for name in some for one in _named(name, known)] for some in settings.groups]
    overrides = {pattern: options(own) for pattern, own in settings.overrides.items()}
    given = {**settings.given(), "weights": apart, "groups": groups, "overrides": overrides}
    return merge_settings(**given)


def _named(name: str, parts: Iterable[str]) -> list[str]:
    """What a name means: all of a language or of a task, or the one part that is called so."""
    return [one for one in parts if name in (one, task_of(one), language_of(one))]


def criterion(spec: Spec, task: str) -> object:
    """What decides a choice besides the scores, as a plain value."""
    if task not in spec.merge.across:
        return own_criterion(spec, task)
    tasks = sharing(spec, task)
    return {one: [own_criterion(spec, one), stated_margin(spec, one)] for one in tasks}


def own_criterion(spec: Spec, task: str) -> object:
    """The same of a choice for one task."""
    definition = spec.tasks[task]
    return [definition.metrics[0], list(definition.label_set)]


def stated_margin(spec: Spec, task: str) -> float | None:
    """Points of a task's first metric that a language may lose, where koinize.yaml says so."""
    definition = spec.tasks[task]
    name = definition.metrics[0]
    return definition.margins.get(name, spec.margins.get(name))

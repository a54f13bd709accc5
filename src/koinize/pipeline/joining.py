"""Which of the steps that are ready one worker does at once (`machine.together`, decision 012)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

from koinize.pipeline.plan import Missing
from koinize.pipeline.step import PART, Step
from koinize.spec import Spec

ROUNDING = 1 + 1e-9
# Seconds of work: what is lost when a worker is killed should not grow because steps were joined,
# and beside so much of it putting an adapter on the base counts for nothing.
LONG = 30.0


def joined(ready: Sequence[Missing], free: int, spec: Spec) -> list[Missing]:
    """The first that is ready, and what the same worker does with it: at most `machine.together`
    steps of its company, and no more than leave each of the `free` workers, of which it takes one,
    an equal part of the company's work. If that is 1, what one system is asked in all languages,
    unless it takes long or another worker would be left without work.
    """
    first, shares = ready[0], spec.machine.together > 1
    company = partial(_company, spec=spec) if shares else _system
    if company(first.step) is None:
        return [first]
    same = [one for one in ready if company(one.step) == company(first.step)]
    part = ROUNDING * sum(one.seconds for one in (same if shares else ready)) / free
    at_most = spec.machine.together if shares else len(same)
    if not shares:
        part = min(part, LONG)
    group, taken = [first], first.seconds
    for one in same[1:]:
        if len(group) < at_most and taken + one.seconds <= part:
            group.append(one)
            taken += one.seconds
    return group


def in_turn(steps: Sequence[Step]) -> bool:
    """Whether a worker does these one after another, each with seconds of its own, and not at once:
    one system's languages, which differ where those of systems with the same rows do not.
    """
    return steps[0].kind == "evaluate" and len({one.language for one in steps}) > 1


def _system(step: Step) -> Hashable:
    """Equal for what one system is asked in each language; None for any other step."""
    if step.kind == "evaluate":
        return step.task, step.split, step.system, step.address.role, *step.uses.ids()
    return None


def _company(step: Step, spec: Spec) -> Hashable:
    """Equal for steps that can share the base's forward passes; None for one that cannot.

    Trainings can, unless dropout or factors in bfloat16 keep them alone, or a program of the user's
    own does them; and systems that choose among the options of the same rows.
    """
    if step.kind == "train":
        dropout = spec.lora.of(step.language).dropout
        shares = dropout == 0 and spec.training.adapter_dtype == "float32"
        return step.kind if shares and not spec.training.is_commanded else None
    if step.kind == "evaluate" and spec.tasks[step.task].mode == "options":
        part = step.settings.get(PART, {})
        return step.kind, step.task, step.language, step.split, part.get("first"), part.get("last")
    return None

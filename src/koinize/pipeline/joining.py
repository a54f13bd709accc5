"""Which of the steps that are ready one worker does at once (`machine.together`, decision 012)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from koinize.pipeline.plan import Missing
from koinize.pipeline.step import PART, Step
from koinize.spec import Spec

ROUNDING = 1 + 1e-9


def joined(ready: Sequence[Missing], free: int, spec: Spec) -> list[Missing]:
    """The first that is ready, and what the same worker does at once with it: at most
    `machine.together` steps of its company, and no more than leave each of the `free` workers, of
    which it takes one, an equal part of the company's work.
    """
    first, *others = ready
    group = [first]
    company = _company(first.step, spec)
    if company is None or spec.machine.together == 1:
        return group
    others = [one for one in others if _company(one.step, spec) == company]
    part = ROUNDING * sum(one.seconds for one in [first, *others]) / free
    taken = first.seconds
    for one in others:
        if len(group) < spec.machine.together and taken + one.seconds <= part:
            group.append(one)
            taken += one.seconds
    return group


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
        return step.kind, step.task, step.language, step.split, *part.values()
    return None

"""Whether another worker loads the model, or what is ready waits for a worker that has it.

Loading takes a worker as long as some steps do, and its time is paid for. So another one loads
where at least as much work is left for it as loading takes, or where nobody else is free soon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from koinize.pipeline.estimate import PATIENCE
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.plan import Missing
from koinize.pipeline.step import Step
from koinize.spec import Spec


@dataclass
class Warm:
    """How many workers have each model, as far as a run can know: those that are at work are taken
    to be among them, since work goes to whoever was free last.

    `load`: seconds to load one; 0 where nobody knows, so that every free worker is used.
    """

    spec: Spec
    load: float
    having: Counter[Hashable] = field(default_factory=Counter)

    def worth(
        self, ready: Sequence[Missing], free: int, left: Sequence[float]
    ) -> tuple[list[Missing], int]:
        """Of what is ready, what may start; and how many of the `free` workers the first is for,
        together with what is ready for the same model.

        `left`: in how many seconds each of the other workers is expected to be free.
        """
        work: dict[Hashable, float] = {}
        for one in ready:
            model = _model(one.step, self.spec)
            work[model] = work.get(model, 0.0) + one.seconds
        useful = {model: self._useful(model, work[model], free, left) for model in work}
        able = [one for one in ready if useful[_model(one.step, self.spec)]]
        return able, useful[_model(able[0].step, self.spec)] if able else 0

    def take(self, step: Step, workers: int, busy: int) -> float:
        """A worker takes the step in hand while so many others are at work; returns the seconds
        that it is expected to load first.
        """
        model = _model(step, self.spec)
        if model is None or self.having[model] > busy:
            return 0.0
        self.having[model] += 1
        for other in [one for one in self.having if one != model]:  # a worker keeps one
            self.having[other] = min(self.having[other], workers - self.having[model])
        return self.load

    def lose(self, step: Step) -> None:
        """The worker that had it in hand is no more."""
        model = _model(step, self.spec)
        self.having[model] = max(0, self.having[model] - 1)

    def _useful(self, model: Hashable, work: float, free: int, left: Sequence[float]) -> int:
        """How many free workers this work is for: those that have the model, and every other that
        would be left with as much of it as loading takes, the others loading as well.
        """
        if model is None:
            return free
        idle = most = min(free, max(0, self.having[model] - len(left)))
        # Of `most` workers each has (work + (most - idle) load) / most to do, loading included.
        while most < free and work >= (idle + most + 1) * self.load:
            most += 1
        if not most and not (self.having[model] and min(left) <= PATIENCE * self.load):
            return 1
        return most


def _model(step: Step, spec: Spec) -> Hashable:
    """Equal for steps that need the same model in a worker's memory; None for one without."""
    if (step.kind == "train" and spec.training.is_commanded) or not KINDS[step.kind].needs_model:
        return None
    in_4bit = step.kind == "train" and spec.training.load_in_4bit
    return step.kind == "judge", step.address.metric if step.kind == "judge" else "", in_4bit

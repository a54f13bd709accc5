"""Metrics by a model that decide: a score below a threshold is a fault.

The threshold is set in each language on references, which are taken to be right, so that of right
texts no more than a stated share is called wrong: split conformal prediction with the model's score
as the measure of conformity (Vovk et al. 2005, "Algorithmic Learning in a Random World").
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import ClassVar

from koinize.metrics._judged import JudgedMetric
from koinize.model.judge import JudgeSpec

ROUNDING = 1e-5
"""More than a probability in float32 depends on which texts the model reads beside it, so that what
is like the reference that sets the threshold is not below it by chance.
"""


class CalibratedMetric(JudgedMetric):
    """The share of texts whose score is not below the threshold of their language."""

    fault: ClassVar[str]
    """What a text below it is called."""
    chance: ClassVar[str]
    """What the score is a probability of, after that word."""

    @abstractmethod
    def false_alarm(self, spec: JudgeSpec) -> float:
        """The share of right texts that may be called wrong, between 0 and 1."""

    def threshold(self, spec: JudgeSpec, scores: Sequence[float]) -> float:
        """The floor((n + 1) x false alarm)-th smallest of n scores of references.

        Of n + 1 scores in random order at most that many places are below it, so a further right
        text is with a probability of at most the false alarm. Raises ValueError for too few.
        """
        if why := self.too_few(spec, len(scores)):
            raise ValueError(f"{len(scores)} references are {why}")
        return sorted(scores)[self._place(spec, len(scores)) - 1]

    def at_worst(self, spec: JudgeSpec, references: int) -> float:
        """The share of right texts that is called wrong, at most, with 95 % of all draws of so many
        references: the rate of one draw is Beta(place, n + 1 - place) distributed (Vovk 2012,
        "Conditional validity of inductive conformal predictors"), or below where scores are equal.
        """
        from scipy.special import betaincinv

        place = self._place(spec, references)
        return float(betaincinv(place, references + 1 - place, 0.95))

    def _place(self, spec: JudgeSpec, references: int) -> int:
        return int((references + 1) * _exactly(self.false_alarm(spec)))

    def passed(self, score: float, threshold: float) -> float:
        """1 for a score that is not below the threshold, 0 for one that is."""
        return float(score > threshold - ROUNDING)

    def too_few(self, spec: JudgeSpec, references: int) -> str:
        """Why so few references set no threshold, and what to do; empty where they do."""
        fewest = ceil(1 / _exactly(self.false_alarm(spec))) - 1
        if references >= fewest:
            return ""
        return (
            f"too few for {self.name}: a false-alarm rate of {self.false_alarm(spec):g} takes "
            f"{fewest}; give more, raise judges.{self.name}.false_alarm, or take the metric out"
        )


def _exactly(share: float) -> Fraction:
    """As it is written: 0.29 is 29/100, and no number beside it."""
    return Fraction(str(share))

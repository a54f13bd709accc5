"""Metrics that need a model: it judges every text once, and its scores are kept beside the rows.

A row then has, under the metric's name, `{"judge": ..., "score": ...}`. So whoever reads rows needs
no model, and every such metric is a mean like all others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from koinize.digest import digest, short
from koinize.errors import InputError
from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.model.judge import JudgeSpec, Reader


@dataclass(frozen=True)
class JudgedMetric(MeanMetric):
    """The mean of a model's score of each text, from 0 to 1.

    `judges` are the identities of the judges that the scores have to be by, with the language of
    each; none: by whichever.
    """

    judges: tuple[tuple[str, str], ...] = ()

    reads: ClassVar[Literal["options", "text"]] = "text"
    architecture: ClassVar[str]
    """The class of transformers that its model is loaded as."""
    asks: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """What its entry under `judges` says besides the model, and what holds where it does not; with
    None it has to."""

    @abstractmethod
    def unfit(self, spec: JudgeSpec, config: Mapping[str, Any]) -> str:
        """Why a model of this configuration cannot judge; empty where it can."""

    @abstractmethod
    def judged(self, reader: Reader, spec: JudgeSpec, rows: Sequence[ResultRow]) -> Iterator[float]:
        """The score of each text, from 0 to 1, in the order of the rows."""

    def identity(self, spec: JudgeSpec, model: str) -> str:
        """What decides its scores: its version, the model's digest, and the settings."""
        asked = {name: self.asked(spec, name) for name in self.asks}
        return digest([self.name, self.version, self.fixed(), model, asked])

    def asked(self, spec: JudgeSpec, name: str) -> Any:  # noqa: ANN401 - a number of some kind
        """A setting of its own, as it is given or by default."""
        given = getattr(spec, name)
        return self.asks[name] if given is None else given

    def by(self, judges: Mapping[str, str]) -> JudgedMetric:
        """This metric, of the scores by the judge of each language alone."""
        return replace(self, judges=tuple(sorted(judges.items())))

    @property
    def judge(self) -> str:
        """The judge; where languages have their own the digest of all; empty where it is open."""
        found = {one for _, one in self.judges}
        return digest(self.judges) if len(found) > 1 else "".join(found)

    def fixed(self) -> Mapping[str, object]:
        """What its numbers depend on besides the model."""
        return {}

    def settings(self) -> Mapping[str, object]:
        """The judge, and what is fixed."""
        by = {"judge": short(self.judge)} if self.judge else {}
        return {**by, **self.fixed()}

    def has(self, row: ResultRow) -> bool:
        """Whether the row was judged, and by the right judge."""
        if not isinstance(row.get(self.name), Mapping):
            return False
        whose = row.get("language"), row[self.name].get("judge")
        return not self.judges or whose in self.judges

    def row_score(self, row: ResultRow) -> float:
        """As the judge gave it."""
        if not self.has(row):
            raise InputError(
                f"row '{row.get('key')}' was not judged for {self.name}, or by another model",
                remedy="`koinize run` has answers judged, and `koinize promote` those of a release",
            )
        return float(row[self.name]["score"])

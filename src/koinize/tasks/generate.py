"""Generate: a text of the model's own, compared with a reference."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from koinize.data import Row
from koinize.errors import InputError
from koinize.settings import EvaluationSection, EvaluationSpec
from koinize.tasks import _reading
from koinize.tasks._task import Example, Metrics, Task


class Generate(Task):
    """The model writes until a stop text, its end of text, or `max_new_tokens`."""

    mode: ClassVar[Literal["options", "text"]] = "text"
    unworded: ClassVar[frozenset[str]] = Task.unworded | {"max_new_tokens", "stop"}

    kind: Literal["generate"] = "generate"
    target: str = Field(default="target", description="the column with the reference text")
    max_new_tokens: int = Field(default=96, ge=1, description="the longest text the model writes")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("\n",), description="a text ends before the first of these"
    )
    metrics: Metrics = ("rouge-l", "rouge-1")

    def example(self, row: Row, language: str, key: str) -> Example:
        """Raises InputError for a reference that is empty or that `stop` would cut."""
        prompt = self._prompt(row, language)
        column, answer = self._answer(row, self.target)
        target = _reading.scalar(answer, row, column)
        self._check(target.strip(), row, column)
        if self.prompt is not None or "messages" in row.columns:
            # A row of prompt and completion says itself what stands between the two.
            target = _reading.continuing(prompt, target.strip())
        return Example(key=key, language=language, prompt=prompt, target=target)

    def describe(self) -> str:
        """The reference's column and the longest answer."""
        return f"generate: column '{self.target}', at most {self.max_new_tokens} tokens"

    def evaluation(self, section: EvaluationSection, split: str) -> EvaluationSpec:  # noqa: ARG002
        """With the longest answer and where it ends."""
        return EvaluationSpec(
            **section.model_dump(), max_new_tokens=self.max_new_tokens, stop=self.stop
        )

    def _check(self, reference: str, row: Row, column: str) -> None:
        if not reference:
            what = f"the column '{column}' is empty"
            raise InputError(what, where=row.where, expected="the text to generate")
        if cut := [stop for stop in self.stop if stop in reference]:
            raise InputError(
                f"the column '{column}' contains {cut[0]!r}, at which generation stops",
                where=row.where,
                remedy="put the text on one line, or give the task another `stop`",
            )


task = Generate

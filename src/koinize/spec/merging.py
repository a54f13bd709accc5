"""The part of koinize.yaml that says what is merged, and how one of the merges is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_validator,
)

from koinize.frozen import Frozen
from koinize.merge.recipe import MergeSettings
from koinize.search.space import Space
from koinize.spec.grid import AVERAGE, expand

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
"""Of a task, or of the project."""


def _two_or_more(tasks: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(tasks)) == 1:
        raise ValueError(f"'{tasks[0]}' alone shares its adapter with no task; name two or more")
    return tuple(sorted(set(tasks)))


class MergeSection(Frozen):
    """Which merges are tried; the best on dev becomes the multilingual adapter."""

    candidates: tuple[Annotated[tuple[MergeSettings, ...], BeforeValidator(expand)], ...] = Field(
        default=("paper",),
        validate_default=True,
        min_length=1,
        description="'paper' (the paper's eight), 'average' (of a trunk and its branches), a "
        "recipe's name, or a mapping of settings in which a list makes a grid, such as {recipe: "
        "ties, density: [0.3, 0.5]}",
    )
    across: Annotated[tuple[Name, ...], AfterValidator(_two_or_more)] = Field(
        default=(), description="tasks whose adapters are merged into one that serves all of them"
    )
    mean_scales: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        default=(1.0, 1.5, 2.0),
        min_length=1,
        description="the MEAN baseline's scales, the best chosen on dev",
    )
    scale: Literal["stated", "search"] = Field(
        default="stated",
        description="of every candidate, and of MEAN: as it is `stated`, or a `search` on dev that "
        "begins there",
    )
    choose: Literal["all", "halving"] = Field(
        default="all",
        description="`all` candidates are scored on all dev rows, or on growing shares of them the "
        "better half goes on (`halving`)",
    )
    explore: Space | None = Field(
        default=None,
        description="a space in which Optuna proposes more candidates, with `choose: halving`",
    )
    update: Literal["choose", "keep"] = Field(
        default="keep",
        description="when only training rows changed: `keep` the recipe, or `choose` anew; always "
        "`choose` beside `across`, `scale: search` and `choose: halving`",
    )

    @field_serializer("candidates", mode="wrap")
    def _average_by_name(self, candidates: object, handler: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401
        """As people write it; its settings depend on how many branches there are."""
        found = handler(candidates)
        return type(found)(one or AVERAGE for one in found)

    @property
    def is_searched(self) -> bool:
        """Whether scores decide which merges there are to choose among."""
        return (self.scale, self.choose) != ("stated", "all")

    @model_validator(mode="before")
    @classmethod
    def _kept_where_it_can_be(cls, stated: Any) -> Any:  # noqa: ANN401
        """What is not stated is `choose` where nothing could be kept."""
        if not isinstance(stated, Mapping) or "update" in stated:
            return stated
        searched = stated.get("scale") == "search" or stated.get("choose") == "halving"
        return {**stated, "update": "choose"} if stated.get("across") or searched else stated

    @model_validator(mode="after")
    def _one_choice(self) -> MergeSection:
        if self.explore and self.choose != "halving":
            raise ValueError(
                "explore: so many merges are chosen among on growing shares of the dev rows; add "
                "choose: halving"
            )
        if self.update == "keep" and (self.across or self.is_searched):
            raise ValueError(
                "update: only a recipe that is chosen for one task, from candidates as they are "
                "stated, can be kept; leave it out, or write down what the search found"
            )
        if self.across and self.is_searched:
            halved = self.choose == "halving"
            key = "choose" if halved else "scale"
            instead = "set it to all" if halved else "list scales in the candidates"
            raise ValueError(
                f"{key}: a search goes by the dev rows of one task, and tasks that share an "
                f"adapter are chosen for together; {instead}"
            )
        return self

    @property
    def averages(self) -> bool:
        """Whether the average of a trunk and its branches is a candidate."""
        return () in self.candidates

    @property
    def settings(self) -> tuple[MergeSettings, ...]:
        """Every candidate once, in the order of the file, but for the average."""
        return self.relative_to(0)

    def relative_to(self, branches: int) -> tuple[MergeSettings, ...]:
        """Every candidate once, in the order of the file, where a trunk has so many branches.

        The average of trunk and branches is the trunk and 1 / (1 + branches) of each difference
        from it: for one branch the two weights' mean of WiSE-FT (arXiv 2109.01903), for more a
        uniform model soup (arXiv 2203.05482). A fixed weight adds what branches share as often as
        there are branches (docs/log.md).
        """
        average = (MergeSettings(recipe="sum", scale=round(1 / (1 + branches), 4)),)
        listed = [one for entry in self.candidates for one in entry or average * bool(branches)]
        return tuple({one.model_dump_json(): one for one in listed}.values())

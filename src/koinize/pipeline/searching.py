"""The steps of a search, as far as it is known.

A search looks at something, decides by its scores, and looks further. Every decision is a step: it
reads scores, and its artifact says what comes next. So the graph of a project is unfolded from what
the store holds. Nothing else remembers how far a search is: a run that was killed goes on where its
last finished step left it, and the same scores lead to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from koinize.digest import digest
from koinize.ledger.address import SEARCH, Address, System
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.lineage import History
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.systems import system_of
from koinize.search.line import first
from koinize.spec import Spec

Merges = Callable[[Iterable[MergeSettings]], Iterable[Step]]
"""The steps that merge by some settings."""
Evaluate = Callable[[System, str, str, Uses], Step]

NLL = "the gold label's NLL"


class Search:
    """The searches of one task. `goes_on`: whether one of them is not at its end yet."""

    def __init__(self, spec: Spec, task: str, history: History, evaluate: Evaluate) -> None:
        self.spec, self.task, self.history = spec, task, history
        self.evaluate = evaluate
        self.goes_on = False
        self._steps: dict[Address, Step] = {}

    def take(self) -> Iterator[Step]:
        """The steps since the last call, in an order in which each comes after its needs."""
        steps, self._steps = self._steps, {}
        yield from steps.values()

    def scales(self, stated: Iterable[MergeSettings], merges: Merges) -> list[MergeSettings]:
        """The candidates at the scales that were found for them, where they are searched."""
        if self.spec.merge.scale == "stated":
            return list(stated)
        return [self._scale(one, merges, SEARCH) for one in stated]

    def means(self, merges: Merges) -> list[MergeSettings]:
        """What the MEAN baseline is chosen among: its scales, or the one found from them on."""
        scales = self.spec.merge.mean_scales
        if self.spec.merge.scale == "stated":
            return [MergeSettings(recipe="mean", scale=scale) for scale in scales]
        return [self._scale(MergeSettings(recipe="mean"), merges, "mean", scales)]

    def _scale(
        self, stated: MergeSettings, merges: Merges, role: str, grid: Sequence[float] = ()
    ) -> MergeSettings:
        """A merge at the scale that was found for it; as it is stated while that goes on.

        `grid` has the scales to begin with; `role` is that of the steps that look at them.
        """
        scales = first(stated.scale, grid)
        while True:
            decision = self._decision(stated, merges, scales, role)
            manifest = self.history.store.manifest(decision.id)
            if manifest is None:
                self.goes_on = True
                return stated
            if manifest.facts["found"] is not None:
                return at_scale(stated, manifest.facts["found"])
            scales = (*scales, *manifest.facts["next"])

    def _decision(
        self, stated: MergeSettings, merges: Merges, scales: Sequence[float], role: str
    ) -> Step:
        """The step that decides by the scores of these scales, after the steps that it needs."""
        made = [_at(stated, scale, merges).at(role=role) for scale in scales]
        scores = {
            (one.system, language): self.evaluate(
                one.system, language, "dev", Uses(adapter=one.id)
            ).at(role=role)
            for one in made
            for language in self.spec.languages
        }
        settings = {
            "stated": stated.scale,
            "scales": {one.system.title: at for one, at in zip(made, scales, strict=True)},
        }
        task = self.spec.tasks[self.task]
        system = system_of(stated)
        looked = System(digest([system.key, settings]), f"{system.title}, {len(scales)} scales")
        decision = Step(
            Address(SEARCH, self.task, looked, role="" if role == SEARCH else role),
            inputs={
                "metric": digest([task.metrics[0], list(task.label_set)]),
                "line": digest(settings),
            },
            uses=Uses(scores={place: one.id for place, one in scores.items()}),
            units=1,
            sort=self.task,
            languages=self.spec.languages,
            settings={"line": settings},
        )
        made.sort(
            key=lambda one: one.uses.adapter != ""
        )  # what others are multiples of comes first
        self._steps |= {one.address: one for one in (*made, *scores.values(), decision)}
        return decision


def at_scale(settings: MergeSettings, scale: float) -> MergeSettings:
    """The same merge at another scale."""
    return MergeSettings.model_validate({**settings.given(), "scale": scale})


def _at(stated: MergeSettings, scale: float, merges: Merges) -> Step:
    """A candidate's merge at a scale: a multiple of the one at the stated scale.

    It is merged anew relative to a trunk, which is added whole, and where modules have a scale of
    their own.
    """
    settings = at_scale(stated, scale)
    (made,) = merges([stated if scale == stated.scale else settings])
    own = any("scale" in options for options in stated.overrides.values())
    if scale == stated.scale or made.uses.trunk or own:
        return made
    (one,) = merges([stated])
    multiple = {"of": scale / stated.scale}
    return replace(
        made,
        inputs={**made.inputs, "multiple": digest(multiple)},
        uses=replace(made.uses, adapter=one.id),
        sort="another scale",
        settings={"multiple": multiple},
    )


def scale_found(facts: Mapping[str, Any]) -> str:
    """What a search for a scale came to, for people; `facts` are those of its last decision."""
    seen = ", ".join(f"{one['scale']:g} ({one['points']:.1f})" for one in facts["seen"])
    looked = f"{facts['metric']} on dev at scales {seen}"
    if not facts["by"]:
        return f"stays at scale {facts['found']:g}: dev cannot tell another one from it; {looked}"
    by, digits = (NLL, 3) if facts["by"] == "nll" else (facts["by"], 1)
    better, error = (f"{facts['evidence'][one]:.{digits}f}" for one in ("difference", "error"))
    return (
        f"scale {facts['found']:g}: at {facts['lead']:g} {by} is better by {better} (standard "
        f"error {error}) than at the stated scale, towards which it was shrunk; {looked}"
    )

"""The steps of a search, as far as it is known.

A search looks at something, decides by its scores, and looks further. Every decision is a step: it
reads scores, and its artifact says what comes next. So the graph of a project is unfolded from what
the store holds. Nothing else remembers how far a search is: a run that was killed goes on where its
last finished step left it, and the same scores lead to the same end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from koinize.digest import digest
from koinize.errors import InputError
from koinize.ledger.address import SEARCH, Address, System
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.judging import Judging
from koinize.pipeline.lineage import History
from koinize.pipeline.step import PART, Step, Uses
from koinize.pipeline.systems import system_of
from koinize.search.halving import Rung, part, rounds, rungs
from koinize.search.line import first
from koinize.search.space import Space
from koinize.spec import Spec

Merges = Callable[[Iterable[MergeSettings]], Iterable[Step]]
"""The steps that merge by some settings."""
Evaluate = Callable[[System, str, str, Uses], Step]

NLL = "the gold label's NLL"


class Search:
    """The searches of one task. `goes_on`: whether one of them is not at its end yet."""

    def __init__(
        self, spec: Spec, task: str, history: History, evaluate: Evaluate, judging: Judging
    ) -> None:
        self.spec, self.task, self.history, self.judging = spec, task, history, judging
        self.evaluate = evaluate
        self.goes_on = False
        self._steps: dict[Address, Step] = {}

    def take(self) -> Iterator[Step]:
        """The steps since the last call, in an order in which each comes after its needs."""
        steps, self._steps = self._steps, {}
        yield from steps.values()

    def candidates(self, stated: Iterable[MergeSettings], merges: Merges) -> list[MergeSettings]:
        """Those that are left to choose among, at the scales that were found for them."""
        left = list(stated)
        tried = 0.0
        if self.spec.merge.explore:
            left, tried = self._explored(left, self.spec.merge.explore, merges)
            if self.goes_on:
                return left[:1]
        if self.spec.merge.choose == "halving":
            left = self._halved(left, merges, tried)
        if self.spec.merge.scale == "stated" or self.goes_on:
            return left
        return [self._scale(one, merges, SEARCH) for one in left]

    def _explored(
        self, stated: list[MergeSettings], space: Space, merges: Merges
    ) -> tuple[list[MergeSettings], float]:
        """The candidates and, one round after the other, what was proposed besides; and the share
        of the dev rows that all of them answered on the way.
        """
        known, points = {system_of(one): one for one in stated}, dict[str, dict[str, Any]]()
        languages = next(iter(merges(stated[:1]))).languages
        share = rungs(len(known) + space.trials)[0].share
        for count in rounds(space.trials):
            made = self._made(known.values(), merges)
            scores = self._parts(made, 0, (0.0, share))
            _require_rows(scores, len(known) + space.trials)
            settings = {
                "space": space.model_dump(mode="json"),
                "languages": languages,
                "count": count,
                "share": share,
                "candidates": {f"{one.title}, part 0": one.title for one in made},
                "points": points,
                "known": sorted(one.key for one in known),
            }
            title = f"proposals, after {len(known)} candidates"
            asked = self._decide(System(digest(settings), title), "", {"explore": settings}, scores)
            self._add(*made.values(), *scores.values(), asked)
            manifest = self.history.store.manifest(asked.id)
            if manifest is None:
                self.goes_on = True
                break
            for point in manifest.facts["points"]:
                one = space.settings(point, languages)
                points = {**points, one.describe(): point}
                known[system_of(one)] = one
            if manifest.facts["ended"]:
                break
        return list(known.values()), share

    def _made(self, stated: Iterable[MergeSettings], merges: Merges) -> dict[System, Step]:
        return {step.system: step.at(role=SEARCH) for step in _multiples(stated, merges)}

    def _halved(
        self, stated: list[MergeSettings], merges: Merges, tried: float
    ) -> list[MergeSettings]:
        """The candidate that is left in the end. While that is open, the rungs to come are planned
        as if those that are listed first went on, since the others would take as long.

        `tried` is the share of the dev rows that they answered when they were proposed.
        """
        made = self._made(stated, merges)
        if not (all_rungs := rungs(len(made))):
            return stated
        alive, before = list(made), tried
        parts = self._parts(made, 0, (0.0, tried))
        self._add(*made.values(), *parts.values())
        for number, rung in enumerate(all_rungs, 1):
            asked = self._parts({one: made[one] for one in alive}, number, (before, rung.share))
            parts |= asked
            _require_rows(parts, len(made))
            decision = self._rung(alive, number, rung, parts)
            steps = [*asked.values(), decision]
            self._add(*(replace(one, waits=self.goes_on) for one in steps))
            manifest = None if self.goes_on else self.history.store.manifest(decision.id)
            self.goes_on = manifest is None
            kept = manifest.facts["kept"] if manifest else [one.title for one in alive[: rung.keep]]
            alive, before = [one for one in alive if one.title in kept], rung.share
        settings = made[alive[0]].merge
        return [settings] if settings else []

    def _parts(
        self, made: Mapping[System, Step], number: int, shares: tuple[float, float]
    ) -> dict[tuple[System, str], Step]:
        """The evaluations on the dev rows between two shares, by candidate's part and language."""
        found = {}
        languages = self.spec.languages
        balanced = bool(self.spec.tasks[self.task].label_set)
        for system, merge in made.items():
            own = System(digest([system.key, number]), f"{system.title}, part {number}")
            uses = Uses(adapter=merge.id)
            wholes = [self.evaluate(system, one, "dev", uses) for one in languages]
            asked = {label: one.inputs[label] for one in wholes for label in one.rows}
            for place, (language, whole) in enumerate(zip(languages, wholes, strict=True)):
                ((label, rows),) = whole.rows.items()
                first, last = (part(rows, share, place, len(languages)) for share in shares)
                if first == last:
                    continue
                places: dict[str, Any] = {"first": first, "last": last}
                inputs = {**whole.inputs, PART: digest(places)}
                if balanced:
                    places["balanced"] = list(languages)
                    # All rows are among the inputs, so that these no longer tell the language.
                    inputs |= {**asked, PART: digest([language, places])}
                found[own, language] = replace(
                    whole.at(system=own, role=SEARCH),
                    inputs=inputs,
                    rows={label: last - first},
                    units=round(whole.units * (last - first) / rows),
                    settings={**whole.settings, PART: places},
                )
        return found

    def _rung(
        self,
        alive: Sequence[System],
        number: int,
        rung: Rung,
        parts: Mapping[tuple[System, str], Step],
    ) -> Step:
        """The step that decides who goes on from a rung."""
        whose = {
            f"{one.title}, part {before}": one.title
            for one in alive
            for before in range(0 if self.spec.merge.explore else 1, number + 1)
        }
        settings = {"share": rung.share, "keep": rung.keep, "candidates": whose}
        if self.spec.merge.explore:
            settings["tempered"] = True
        scores = {place: step for place, step in parts.items() if place[0].title in whose}
        title = f"rung {number}, {len(alive)} candidates"
        return self._decide(System(digest(settings), title), "", {"rung": settings}, scores)

    def _decide(
        self,
        about: System,
        role: str,
        settings: Mapping[str, Mapping[str, Any]],
        scores: Mapping[tuple[System, str], Step],
    ) -> Step:
        """The step of a decision by these scores."""
        task = self.spec.tasks[self.task]
        return Step(
            Address(SEARCH, self.task, about, role=role),
            inputs={
                "metric": digest([task.metrics[0], list(task.label_set)]),
                **{name: digest(one) for name, one in settings.items()},
            },
            uses=Uses(scores=self.judging.read_by_choices(scores)),
            units=1,
            sort=self.task,
            languages=self.spec.languages,
            settings=settings,
        )

    def _add(self, *steps: Step) -> None:
        self._steps |= {one.address: one for one in steps}

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
        system = system_of(stated)
        looked = System(digest([system.key, settings]), f"{system.title}, {len(scales)} scales")
        own_role = "" if role == SEARCH else role
        decision = self._decide(looked, own_role, {"line": settings}, scores)
        made.sort(key=lambda one: one.uses.adapter != "")  # multiples after what they are of
        self._add(*made, *scores.values(), decision)
        return decision


def _require_rows(parts: Mapping[tuple[System, str], Step], candidates: int) -> None:
    """Raise InputError where the first share of the dev rows is none of them."""
    if not parts:
        raise InputError(
            f"of so few dev rows the first share, by which {candidates} candidates are halved, is "
            "none",
            where="merge.choose",
            remedy="list fewer candidates, allow fewer trials, or give more dev rows",
        )


def at_scale(settings: MergeSettings, scale: float) -> MergeSettings:
    """The same merge at another scale."""
    return MergeSettings.model_validate({**settings.given(), "scale": scale})


def _multiples(stated: Iterable[MergeSettings], merges: Merges) -> Iterator[Step]:
    """The merge of every candidate; of those that differ in scale alone, multiples of the first."""
    firsts: dict[str, MergeSettings] = {}
    for one in stated:
        family = digest(at_scale(one, math.copysign(1.0, one.scale)).identity())
        yield _at(firsts.setdefault(family, one), one.scale, merges)


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


def exploring_found(steps: Sequence[Mapping[str, Any]]) -> str:
    """What exploring came to, for people; `steps` are the facts of its decisions in their order."""
    count = sum(len(one["points"]) for one in steps)
    took = sum(one["hours"] for one in steps[-1:])
    said = f"Optuna proposed {count} merges in {len(steps)} rounds"
    ended = steps[-1]["ended"]
    return f"{said}, and no more since {ended} ({took:.2g} hours of work)" if ended else said


def halving_found(steps: Sequence[Mapping[str, Any]]) -> str:
    """What halving came to, for people; `steps` are the facts of its decisions in their order."""
    asked = ", ".join(f"{len(one['standings'])} on {one['answered']}" for one in steps)
    last = steps[-1]
    first, second = last["standings"][:2]
    share = 100 * last["best_in"][first["candidate"]]
    return (
        f"{first['candidate']} was left of {len(steps[0]['standings'])} candidates ({asked} dev "
        f"rows); at last it had {first['points']:.1f} {last['metric']}, and {second['candidate']} "
        f"{second['points']:.1f}: it would have won on {share:.0f} % of the resamples"
    )

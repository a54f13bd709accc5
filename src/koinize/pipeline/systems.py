"""The systems of a task: who is scored, and which merges the release is chosen among."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import product

from koinize.digest import digest
from koinize.errors import InputError
from koinize.ledger.address import System
from koinize.merge.division import divided
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.across import part_of, sharing, spelled_out
from koinize.spec import Spec

BASE, INDV, SINGLE, COMB, COMB_CONTINUED, MEAN, PAPER, TRUNK = map(
    System.named,
    ("BASE", "INDV", "SINGLE", "COMB", "COMB-CONTINUED", "MEAN", "PAPER", "TRUNK"),
)


def only(language: str) -> System:
    """The system in which this language's adapter serves every language."""
    return System.named(f"{language} only")


def system_of(settings: MergeSettings) -> System:
    """The system that a merge is: equal for settings that define the same merge, since at density 1
    nothing is trimmed or drawn.
    """
    return System(digest(settings.identity()), settings.describe())


def distinct(candidates: Iterable[MergeSettings]) -> dict[System, tuple[MergeSettings, ...]]:
    """Each merge once, with all the settings that define it, the first of which name it."""
    found: dict[System, tuple[MergeSettings, ...]] = {}
    for one in candidates:
        system = system_of(one)
        found[system] = (*found.get(system, ()), one)
    return found


def similar(settings: MergeSettings) -> str:
    """What a merge's time is learnt from: recipes, spaces and dialects differ a hundredfold."""
    given = settings.given()
    return " ".join(
        [settings.recipe, *(given[one] for one in ("space", "dialect") if one in given)]
    )


def candidates(spec: Spec, branches: Collection[str] | None, task: str = "") -> list[MergeSettings]:
    """The merges that the release is chosen among; relative to a trunk, those of its branches, and
    of a task that shares an adapter, those of the languages of all tasks that do.

    Raises InputError for one that gives all that it merges, or a group of that, the weight 0.
    """
    merged = spec.languages if branches is None else tuple(branches)
    listed = stated = spec.merge.relative_to(len(branches or ()))
    if task in spec.merge.across:
        merged = tuple(part_of(spec, *one) for one in product(sharing(spec, task), spec.languages))
        listed = tuple(spelled_out(one, merged) for one in listed)
    whole = branches is None and not spec.merge.across
    found = [among(one, merged) if one.groups or not whole else one for one in listed]
    for wanted, one in zip(stated, found, strict=True):
        for together in one.groups or (merged,):
            if together and not any(one.weights.get(language, 1.0) for language in together):
                every = "branch" if branches is not None else "language"
                of = " of a group" if one.groups else ""
                raise InputError(
                    f"'{wanted.describe()}' gives every {every}{of} the weight 0: "
                    + ", ".join(together),
                    where="merge.candidates",
                    remedy="give one of them a weight",
                )
    return list({one.model_dump_json(): one for one in found}.values())


def among(settings: MergeSettings, languages: Collection[str]) -> MergeSettings:
    """The same merge of these languages alone: nothing in it names another one, and of groups each
    of them is in one.
    """

    def kept(weights: Mapping[str, float]) -> dict[str, float]:
        return {one: weights[one] for one in weights if one in languages}

    overrides = {}
    for pattern, options in settings.overrides.items():
        own = {**options, "weights": kept(options.get("weights", {}))}
        if own := {name: value for name, value in own.items() if value != {}}:
            overrides[pattern] = own
    given = {
        **settings.given(),
        "weights": kept(settings.weights),
        "overrides": overrides,
        "groups": divided(settings.groups, languages),
    }
    return MergeSettings.model_validate(given)

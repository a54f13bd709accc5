"""Which merges of a space to look at next: Optuna proposes, by what was seen of earlier ones.

Optuna keeps nothing here. It is told every earlier trial and asked for more; what it answers is for
the caller to keep, so that a search goes on as it began, whatever Optuna's version (decision 020).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from koinize.digest import digest
from koinize.errors import InputError
from koinize.search.halving import BUDGET
from koinize.search.space import Range, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

PATIENCE = 20  # points asked for, for each one wanted: others are there already


@dataclass(frozen=True)
class Trial:
    """A point that was looked at, and its place among all of them; 0 is the best."""

    point: Mapping[str, Any]
    place: int


@dataclass(frozen=True)
class Taken:
    """Seconds that so many candidates took, one step after the other."""

    candidates: int
    merging: float
    scoring: float

    @property
    def hours(self) -> float:
        """All of it."""
        return (self.merging + self.scoring) / 3600


def over_budget(
    space: Space, taken: Taken, known: int, count: int, share: float, per_hour: float
) -> str:
    """Why no more are proposed: with so many more, merged and scored on a share of the rows, and
    halving all of them, it would take more than the space allows. Empty where it would not.
    """
    if not taken.candidates:
        return ""
    scoring = taken.scoring / taken.candidates
    more = count * (taken.merging / taken.candidates + scoring)
    halving = max(0.0, BUDGET - (known + count) * share) * scoring / share
    hours = taken.hours + (more + halving) / 3600
    if space.hours is not None and hours > space.hours:
        return f"more would take {hours:.2g} hours, and {space.hours:g} are allowed"
    if space.cost is not None and hours * per_hour > space.cost:
        return f"more would cost {hours * per_hour:.2g}, and {space.cost} is allowed"
    return ""


def require_optuna() -> None:
    """Raise InputError where it is not installed."""
    if find_spec("optuna") is None:
        raise InputError(
            "merge.explore asks Optuna what to try, which is not installed",
            remedy="pip install 'koinize[search]'",
        )


def propose(
    space: Space,
    languages: tuple[str, ...],
    trials: Sequence[Trial],
    count: int,
    known: Collection[str] = (),
) -> list[dict[str, Any]]:
    """So many new points; fewer where the space has no more. `known` are the digests of merges that
    are there already (`MergeSettings.identity`).

    The same arguments give the same points: at random for the first ones, then by a tree-structured
    Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization").
    """
    require_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental
        study = _study(space, languages, trials)
        found, seen = list[dict[str, Any]](), set(known)
        for _ in range(PATIENCE * count):
            if len(found) == count:
                break
            point = _ask(study, space, languages)
            merge = digest(space.settings(point, languages).identity())
            if merge not in seen:
                seen.add(merge)
                found.append(point)
    return found


def _study(space: Space, languages: tuple[str, ...], trials: Sequence[Trial]) -> Study:
    """As if Optuna had made these trials itself."""
    import optuna

    sampler = optuna.samplers.TPESampler(
        seed=(space.seed + len(trials)) % 2**32,
        n_startup_trials=max(1, space.trials // 4),
        constant_liar=True,
    )
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler, direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)
    for one in trials:
        dimensions = _distributions(space, one.point["recipe"], languages)
        study.add_trial(
            optuna.trial.create_trial(
                params={name: one.point[name] for name in dimensions},
                distributions=dimensions,
                value=float(one.place),
            )
        )
    return study


def _ask(study: Study, space: Space, languages: tuple[str, ...]) -> dict[str, Any]:
    trial = study.ask()
    point = {"recipe": trial.suggest_categorical("recipe", space.recipe)}
    for name, one in space.dimensions(point["recipe"], languages).items():
        if isinstance(one, Range):
            value = trial.suggest_float(name, one.low, one.high, log=_is_factor(name))
            # As a table shows it, and never beyond the ends.
            point[name] = min(max(float(f"{value:.3g}"), one.low), one.high)
        else:
            point[name] = trial.suggest_categorical(name, one)
    return point


def _distributions(
    space: Space, recipe: str, languages: tuple[str, ...]
) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, BaseDistribution] = {"recipe": CategoricalDistribution(space.recipe)}
    for name, one in space.dimensions(recipe, languages).items():
        if isinstance(one, Range):
            found[name] = FloatDistribution(one.low, one.high, log=_is_factor(name))
        else:
            found[name] = CategoricalDistribution(one)
    return found


def _is_factor(name: str) -> bool:
    """Whether twice and half are as far from 1."""
    return name != "density"

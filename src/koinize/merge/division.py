"""How languages are divided into groups that are merged first: what can be known without a tensor.

`koinize.merge.groups` does such a merge.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

from pydantic import AfterValidator

from koinize.merge.slots import SPACES


def _division(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Sorted, so that their order never matters.

    Raises ValueError for an empty group, and for a name that stands twice.
    """
    if () in groups:
        raise ValueError("a group is empty; leave it out, or name its languages")
    placed = [name for group in groups for name in group]
    for name in sorted(placed):
        if placed.count(name) > 1:
            raise ValueError(
                f"'{name}' stands {placed.count(name)} times in the groups; expected each language "
                "in one group, which may be its own"
            )
    return tuple(sorted(tuple(sorted(group)) for group in groups))


Groups = Annotated[tuple[tuple[str, ...], ...], AfterValidator(_division)]


def group_name(group: Sequence[str]) -> str:
    """What a group is called where a language would be, in the keys of random masks too."""
    return "+".join(group)


def divided(groups: Groups, merged: Collection[str]) -> Groups:
    """The groups of what is merged: a name that is in none is a group of its own.

    None where nothing would be merged first, or nothing after it: where every group has one name,
    or there is one group.
    """
    own = [tuple(name for name in group if name in merged) for group in groups]
    placed = {name for group in own for name in group}
    whole = sorted([*filter(None, own), *((name,) for name in merged if name not in placed)])
    is_division = len(whole) > 1 and any(len(group) > 1 for group in whole)
    return tuple(whole) if groups and is_division else ()


def inexact(space: str, *, linear: bool, whole: bool) -> str:
    """Why a recipe in this space cannot merge what groups became; empty where it can.

    linear: in the updates. whole: whether it trims over whole adapters.
    """
    if SPACES[space].apart or (SPACES[space].full and not linear):
        return (
            f"merges in space '{space}', where what a group becomes has no exact factors of a low "
            "rank; merge groups in space 'knots' or 'core', or by recipe 'mean' or 'sum'"
        )
    if whole:
        return (
            "trims over whole adapters, and what a group becomes is none yet; set scope to module"
        )
    return ""

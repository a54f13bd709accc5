"""Groups of languages that are merged first, and then what the groups became: a recipe twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from koinize.adapter import Factors
from koinize.merge.approximation import Approximation
from koinize.merge.compose import merge_module
from koinize.merge.division import Groups, group_name
from koinize.merge.recipe import MergeSettings


def merge_groups(
    module: str,
    groups: Groups,
    updates: Mapping[str, Factors],
    settings: MergeSettings,
    *,
    trunk: Factors | None = None,
    norm: bool = True,
) -> Approximation:
    """`merge_module` of each group at full rank and scale 1, and of the results.

    Languages have their weights within their group, and every group has weight 1. It is what two
    merges one after the other give, the second of adapters that are called by `group_name`.
    """
    within = settings.model_copy(update={"scale": 1.0, "rank": "full"})
    across = settings.model_copy(update={"weights": {}})

    def merged(group: Sequence[str]) -> Factors:
        theirs = {one: updates[one] for one in group}
        if trunk is None and not any(update.rank for update in theirs.values()):
            return theirs[group[0]]  # none of them adapts this module: there is nothing to merge
        return merge_module(module, theirs, within, trunk=trunk, norm=False).factors

    each = {group_name(group): merged(group) for group in groups}
    return merge_module(module, each, across, trunk=trunk, norm=norm)

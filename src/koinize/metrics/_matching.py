"""Rows of two systems that are one example, found by their keys."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.errors import InputError
from koinize.metrics._metric import Metric, ResultRow
from koinize.metrics._paired import Pair


def matched(sides: Sequence[Pair], metric: Metric) -> list[Pair]:
    """The rows of a candidate and of a reference, with one seed after the other, in the order of
    their keys. Raises InputError for a repeated key, for keys that are not the same everywhere, and
    for one key with two truths.
    """
    found: list[Pair] = [_paired(*side, metric) for side in sides]
    for ours, _ in found[1:]:
        _paired(found[0][0], ours, metric)
    return found


def _paired(
    candidate: Sequence[ResultRow], reference: Sequence[ResultRow], metric: Metric
) -> tuple[list[ResultRow], list[ResultRow]]:
    """Both sides in the order of their keys."""
    ours, theirs = _by_key(candidate, "candidate"), _by_key(reference, "reference")
    alone = ours.keys() ^ theirs.keys()
    if alone:
        raise InputError(
            f"{len(alone)} rows have no partner, the first with key '{min(alone)}'",
            expected=f"the same keys on both sides, not {len(ours)} and {len(theirs)} rows",
            remedy="evaluate both on the same split",
        )
    keys = sorted(ours)
    for key in keys:
        if ours[key].get(metric.truth) != theirs[key].get(metric.truth):
            raise InputError(
                f"row '{key}' has two different values of '{metric.truth}'",
                expected="the same example on both sides",
                remedy="evaluate both on the same version of the data",
            )
    return [ours[key] for key in keys], [theirs[key] for key in keys]


def _by_key(rows: Sequence[ResultRow], side: str) -> dict[str, ResultRow]:
    found: dict[str, ResultRow] = {}
    for row in rows:
        key = row["key"]
        if key in found:
            raise InputError(
                f"the {side} has two rows with key '{key}'",
                expected="one row per key",
                remedy="compare one language and one split at a time",
            )
        found[key] = row
    return found

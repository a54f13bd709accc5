"""The weighted mean: sum w_i X_i / sum w_i."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.merge.combine._linear import Linear


def _shares(weights: Sequence[float]) -> list[float]:
    whole = sum(weights)
    return [weight / whole for weight in weights]


combine = Linear(_shares)

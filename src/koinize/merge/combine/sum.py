"""The weighted sum (task arithmetic): sum w_i X_i."""

from __future__ import annotations

from koinize.merge.combine._linear import Linear

combine = Linear(list)

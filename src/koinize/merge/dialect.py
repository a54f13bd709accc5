"""How other tools read what the papers leave open, so that their results can be reproduced.

docs/dialects.md explains every entry. The default dialect is koinize's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERY_RECIPE = "*"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One tool's conventions.

    normalize: recipe -> what its election divides by; the recipes listed are those it has.
    spaces, combines: recipe -> slot, where it differs from the recipe's own.
    vote: whether signs are elected on the weighted values or on the plain ones.
    zero_sign: the sign of a sum of exactly 0: "plus", or the "majority" of all elected signs.
    extra: how many entries trimming keeps beyond int(density n).
    rescale: after dropping, divide by the density ("inverse") or restore the L1 norm ("l1").
    scope: whether trimming looks at one module or at the whole adapter.
    folded: whether alpha / r is part of an update.
    """

    normalize: Mapping[str, str]
    spaces: Mapping[str, str] = field(default_factory=dict)
    combines: Mapping[str, str] = field(default_factory=dict)
    vote: str = "weighted"
    zero_sign: str = "plus"
    extra: int = 0
    rescale: str = "inverse"
    scope: str = "module"
    folded: bool = True


DIALECTS: Mapping[str, Dialect] = {
    "koinize": Dialect(normalize={EVERY_RECIPE: "weights"}),
    "peft": Dialect(
        normalize={
            "sum": "none",
            "ties": "count",
            "dare-ties": "count",
            "dare-linear": "none",
            "magnitude-prune": "none",
        },
        spaces=dict.fromkeys(
            ("sum", "ties", "dare-ties", "dare-linear", "magnitude-prune"), "factor"
        ),
        combines={"dare-linear": "sum"},
        vote="plain",
    ),
    "mergekit": Dialect(
        normalize={
            "mean": "weights",
            "sum": "none",
            "ties": "weights",
            "dare-ties": "none",
            "dare-linear": "none",
            "della": "weights",
            "breadcrumbs": "none",
            "sce": "weights",
        },
        combines={"dare-linear": "sum"},
        rescale="l1",
    ),
    "knots": Dialect(
        normalize=dict.fromkeys(
            ("sum", "mean", "ties", "dare-ties", "knots-ties", "knots-dare-ties"), "count"
        ),
        vote="plain",
        zero_sign="majority",
        extra=1,
        scope="adapter",
        folded=False,
    ),
}

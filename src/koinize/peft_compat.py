"""PEFT's `add_weighted_adapter`, with its arguments, on folders: no model is loaded.

docs/coming-from.md says where the result is not PEFT's, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koinize.adapter import read_header
from koinize.engine import MergeReport, merge_adapters
from koinize.errors import InputError, did_you_mean
from koinize.files import telling_names

DEFAULT_TYPE, TOTAL, SVD = "svd", "total", "svd"
RECIPES: Mapping[str, str] = {
    "svd": "sum",
    "linear": "sum",
    "cat": "sum",
    "ties": "ties",
    "ties_svd": "ties",
    "dare_ties": "dare-ties",
    "dare_linear": "dare-linear",
    "dare_ties_svd": "dare-ties",
    "dare_linear_svd": "dare-linear",
    "magnitude_prune": "magnitude-prune",
    "magnitude_prune_svd": "magnitude-prune",
}
"""PEFT's combination_type -> our recipe."""
WHOLE = ("linear", "svd", "cat")  # types that drop no entry


def add_weighted_adapter(
    adapters: Sequence[Path | str],
    weights: Sequence[float],
    adapter_name: Path | str,
    combination_type: str = DEFAULT_TYPE,
    svd_rank: int | None = None,
    svd_clamp: float | None = None,
    svd_full_matrices: bool = True,  # noqa: ARG001 - how PEFT decomposes, not what comes of it
    svd_driver: str | None = None,
    density: float | None = None,
    majority_sign_method: str = TOTAL,
    *,
    seed: int = 0,
) -> MergeReport:
    """Merge the PEFT folders `adapters` into the new folder `adapter_name`, as PEFT would.

    weights: one for each adapter. combination_type: any of PEFT's. svd_rank: the rank of the types
    that end in `svd`; the largest of the adapters' if not given. density: the share of entries that
    is kept, above 0 and up to 1, where the type drops some. seed: of the masks of `dare_*`, which
    PEFT draws from torch's global state.

    Raises InputError for what PEFT refuses, and for what it would ignore: an option that the type
    does not read, a folder that exists. `svd_clamp` and `svd_driver` have no meaning here.
    """
    if combination_type not in RECIPES:
        raise InputError(
            f"combination_type is '{combination_type}'",
            remedy=did_you_mean(combination_type, RECIPES),
        )
    if not adapters:
        raise InputError("there is no adapter to merge")
    if len(adapters) != len(weights):
        raise InputError(
            f"there are {len(adapters)} adapters and {len(weights)} weights",
            expected="one weight for each adapter",
        )
    for name, value in (("svd_clamp", svd_clamp), ("svd_driver", svd_driver)):
        if value is not None:
            raise InputError(f"{name} has no meaning here", remedy=f"leave {name} out")
    folders = [Path(one) for one in adapters]
    names = telling_names(folders)
    options = _options(combination_type, folders, svd_rank, density)
    if majority_sign_method != TOTAL:
        options["sign"] = majority_sign_method
    if combination_type.startswith("dare"):
        options["seed"] = seed
    return merge_adapters(
        dict(zip(names, folders, strict=True)),
        recipe=RECIPES[combination_type],
        dialect="peft",
        weights=dict(zip(names, weights, strict=True)),
        out=adapter_name,
        **options,
    )


def _options(
    kind: str, folders: Sequence[Path], rank: int | None, density: float | None
) -> dict[str, Any]:
    """The settings that follow from the type: its space, its rank, and its density."""
    if kind not in WHOLE and density is None:
        raise InputError(f"combination_type '{kind}' needs a density", expected="above 0, up to 1")
    options: dict[str, Any] = {} if density is None else {"density": density}
    if kind.endswith(SVD):
        options["rank"] = rank or max(map(_rank, folders))
    elif rank is not None:
        raise InputError(
            f"combination_type '{kind}' does not use svd_rank",
            remedy=f"leave it out, or say '{SVD if kind in WHOLE else f'{kind}_{SVD}'}'",
        )
    return {**options, "space": "dense"} if kind == "cat" or kind.endswith(SVD) else options


def _rank(folder: Path) -> int:
    """The largest rank of the adapter's modules."""
    return max(module.rank for module in read_header(folder).modules.values())

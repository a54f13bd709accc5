"""DARE then the weighted mean of the deltas."""

from koinize.recipe import Recipe

recipe = Recipe(
    title="DARE then the weighted mean of the deltas.",
    paper="Yu et al. 2024, arXiv 2311.03099",
    space="dense",
    sparsify=("drop",),
    combine="mean",
    options=(
        "density",
        "seed",
    ),
)

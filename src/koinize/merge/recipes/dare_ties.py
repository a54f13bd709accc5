"""DARE then TIES' election on the deltas: drop entries at random, rescale, elect."""

from koinize.recipe import Recipe

recipe = Recipe(
    title="DARE then TIES' election on the deltas: drop entries at random, rescale, elect.",
    paper="Yu et al. 2024, arXiv 2311.03099",
    space="dense",
    sparsify=("drop",),
    combine="elect",
    options=(
        "density",
        "seed",
    ),
)

"""Drop entries at random and rescale, then take the weighted mean."""

from koinize.merge.recipe import DROP, Recipe

recipe = Recipe(
    title="Drop entries at random and rescale, then take the weighted mean.",
    paper="Yu et al. 2024, arXiv 2311.03099",
    space="dense",
    sparsify=("drop",),
    combine="mean",
    options=("space", *DROP),
)

"""Drop entries at random and rescale, then elect signs as TIES does."""

from koinize.merge.recipe import DROP, ELECT, Recipe

recipe = Recipe(
    title="Drop entries at random and rescale, then elect signs as TIES does.",
    paper="Yu et al. 2024, arXiv 2311.03099",
    space="dense",
    sparsify=("drop",),
    combine="elect",
    options=("space", *DROP, *ELECT),
)

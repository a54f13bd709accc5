"""Drop small entries more often than large ones, rescale, then elect signs."""

from koinize.merge.recipe import DROP, ELECT, Recipe

recipe = Recipe(
    title="Drop small entries more often than large ones, rescale, then elect signs.",
    paper="Deep et al. 2024, arXiv 2406.11617",
    space="dense",
    sparsify=("magprune",),
    combine="elect",
    options=("space", "epsilon", *DROP, *ELECT),
)

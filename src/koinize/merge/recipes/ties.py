"""Trim small entries, elect a sign per entry, average those that agree."""

from koinize.merge.recipe import ELECT, TRIM, Recipe

recipe = Recipe(
    title="Trim small entries, elect a sign per entry, average those that agree.",
    paper="Yadav et al. 2023, arXiv 2306.01708",
    space="dense",
    sparsify=("trim",),
    combine="elect",
    options=("space", *TRIM, *ELECT),
)

"""TIES on the deltas: trim small entries, elect a sign, average those that agree."""

from koinize.recipe import Recipe

recipe = Recipe(
    title="TIES on the deltas: trim small entries, elect a sign, average those that agree.",
    paper="Yadav et al. 2023, arXiv 2306.01708",
    space="dense",
    sparsify=("trim",),
    combine="elect",
    options=("density",),
)

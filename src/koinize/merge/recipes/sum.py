"""Weighted sum of the updates (task arithmetic), exact on factors."""

from koinize.merge.recipe import Recipe

recipe = Recipe(
    title="Weighted sum of the updates (task arithmetic), exact on factors.",
    paper="Ilharco et al. 2023, arXiv 2212.04089",
    space="dense",
    combine="sum",
    options=("space",),
)

"""Weighted mean of the updates, exact on factors."""

from koinize.merge.recipe import Recipe

recipe = Recipe(
    title="Weighted mean of the updates, exact on factors.",
    paper="Wortsman et al. 2022, arXiv 2203.05482",
    space="dense",
    combine="mean",
)

"""Trim small entries, then add up."""

from koinize.merge.recipe import TRIM, Recipe

recipe = Recipe(
    title="Trim small entries, then add up.",
    paper="PEFT magnitude_prune",
    space="dense",
    sparsify=("trim",),
    combine="sum",
    options=("space", *TRIM),
)

"""Add up, then make all singular values equal to their mean."""

from koinize.merge.recipe import Recipe

recipe = Recipe(
    title="Add up, then make all singular values equal to their mean.",
    paper="Marczak et al. 2025, arXiv 2502.04959",
    space="core",
    combine="isotropic",
)

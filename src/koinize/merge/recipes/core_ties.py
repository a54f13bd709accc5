"""TIES in the common column and row spaces of the factors."""

from koinize.merge.recipe import ELECT, TRIM, Recipe

recipe = Recipe(
    title="TIES in the common column and row spaces of the factors.",
    paper="Panariello et al. 2025, arXiv 2509.17786",
    space="core",
    sparsify=("trim",),
    combine="elect",
    options=(*TRIM, *ELECT),
)

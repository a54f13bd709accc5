"""DARE-TIES in the common column and row spaces of the factors."""

from koinize.merge.recipe import DROP, ELECT, Recipe

recipe = Recipe(
    title="DARE-TIES in the common column and row spaces of the factors.",
    paper="Panariello et al. 2025, arXiv 2509.17786",
    space="core",
    sparsify=("drop",),
    combine="elect",
    options=(*DROP, *ELECT),
)

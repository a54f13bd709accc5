"""DARE-TIES in the basis of the SVD of all updates side by side."""

from koinize.merge.recipe import DROP, ELECT, Recipe

recipe = Recipe(
    title="DARE-TIES in the basis of the SVD of all updates side by side.",
    paper="Stoica et al. 2025, arXiv 2410.19735",
    space="knots",
    sparsify=("drop",),
    combine="elect",
    options=(*DROP, *ELECT),
)

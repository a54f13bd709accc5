"""TIES in the basis of the SVD of all updates side by side."""

from koinize.merge.recipe import ELECT, TRIM, Recipe

recipe = Recipe(
    title="TIES in the basis of the SVD of all updates side by side.",
    paper="Stoica et al. 2025, arXiv 2410.19735",
    space="knots",
    sparsify=("trim",),
    combine="elect",
    options=(*TRIM, *ELECT),
)

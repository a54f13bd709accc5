"""TIES in the basis that the SVD of all deltas side by side gives."""

from koinize.recipe import Recipe

recipe = Recipe(
    title="TIES in the basis that the SVD of all deltas side by side gives.",
    paper="Stoica et al. 2025, arXiv 2410.19735",
    space="knots",
    sparsify=("trim",),
    combine="elect",
    options=("density",),
)

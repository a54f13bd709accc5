"""DARE then TIES' election in the basis that the SVD of all deltas side by side gives."""

from koinize.recipe import Recipe

recipe = Recipe(
    title="DARE then TIES' election in the basis that the SVD of all deltas side by side gives.",
    paper="Stoica et al. 2025, arXiv 2410.19735",
    space="knots",
    sparsify=("drop",),
    combine="elect",
    options=(
        "density",
        "seed",
    ),
)

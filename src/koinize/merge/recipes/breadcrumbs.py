"""Remove the largest outliers and the small entries, then add up."""

from koinize.merge.recipe import Recipe

recipe = Recipe(
    title="Remove the largest outliers and the small entries, then add up.",
    paper="Davari and Belilovsky 2023, arXiv 2312.06795",
    space="dense",
    sparsify=("breadcrumbs",),
    combine="sum",
    options=("space", "density", "outliers"),
)

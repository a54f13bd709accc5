"""Keep each update's strongest singular directions and decorrelate them."""

from koinize.merge.recipe import Recipe

recipe = Recipe(
    title="Keep each update's strongest singular directions and decorrelate them.",
    paper="Gargiulo et al. 2025, arXiv 2412.00081",
    space="core",
    combine="tsv",
    options=("density",),
)

"""Select entries that vary between adapters, weight by energy, erase minority signs."""

from koinize.merge.recipe import Recipe

recipe = Recipe(
    title="Select entries that vary between adapters, weight by energy, erase minority signs.",
    paper="Wan et al. 2024, arXiv 2408.07990",
    space="dense",
    combine="sce",
    options=("space", "density"),
)

"""Named merges, one file each: a recipe composes the plug-ins of the three slots."""

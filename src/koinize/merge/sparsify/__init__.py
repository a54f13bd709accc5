"""Which entries of one adapter take part: one file each."""

"""Where a merge happens: each space gives the coordinates of the deltas and the way back."""

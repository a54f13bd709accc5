"""Choosing by few scores: what dev can tell of two systems, and which merge to look at next.

`evidence` compares two systems on the same dev rows; `line` looks for a candidate's scale,
`halving` chooses among many candidates, and `luck` says how often another one would have won. All
are functions of result rows, so that a search can be repeated, simulated and resumed.
"""

from __future__ import annotations

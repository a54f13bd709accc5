"""The specification of a project, read from `koinize.yaml`: frozen, and validated at once.

Each part's settings live beside the part (`BaseSpec`, `LoraSpec`, `MergeSettings`, a task kind's
own class); this module composes them. `load` reads a file and names every mistake in one pass.
"""

from __future__ import annotations

from koinize.spec.grid import PAPERS_EIGHT
from koinize.spec.merging import MergeSection
from koinize.spec.read import SPEC_FILE, load
from koinize.spec.schema import schema
from koinize.spec.shape import (
    FROM_THE_BASE,
    Baseline,
    LoraSection,
    MachineSection,
    Price,
    Spec,
)

__all__ = [
    "FROM_THE_BASE",
    "PAPERS_EIGHT",
    "SPEC_FILE",
    "Baseline",
    "LoraSection",
    "MachineSection",
    "MergeSection",
    "Price",
    "Spec",
    "load",
    "schema",
]

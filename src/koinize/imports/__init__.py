"""What other tools are configured with, read as ours.

`mergekit` turns a mergekit configuration over `base+lora` into a merge, or says key by key what
has no meaning here. It asks `models` which adapters, which base and which trunk are meant, and
`reading` for values with mergekit's filters, and for a place in the file to every mistake.
"""

from __future__ import annotations

from koinize.imports.mergekit import Imported, read_mergekit

__all__ = ["Imported", "read_mergekit"]

"""koinize: one LoRA adapter per language, merged into one, re-merged when one language changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koinize.engine import merge_adapters

__version__ = "0.1.0"
__all__ = ["__version__", "merge_adapters"]


def __getattr__(name: str) -> object:
    """`koinize.merge_adapters`, imported on first use so that the package itself stays light."""
    if name == "merge_adapters":
        from koinize.engine import merge_adapters

        return merge_adapters
    raise AttributeError(f"module 'koinize' has no attribute '{name}'")

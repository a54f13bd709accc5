"""koinize: one LoRA adapter per language, merged into one, re-merged when one language changes."""

__version__ = "0.1.0"

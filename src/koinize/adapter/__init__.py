"""A LoRA adapter as low-rank factors, and the PEFT folder that it is read from and written to.

`read_header` looks at file headers only and never touches a tensor; `open_adapter` reads the
factors of one module at a time; `AdapterWriter` writes a folder that appears whole
or not at all. Importing this package imports no torch.
"""

from koinize.adapter.factors import Adapter, Factors, open_adapter
from koinize.adapter.header import (
    ADAPTER_FILES,
    AdapterHeader,
    ModuleHeader,
    files_digest,
    read_header,
)
from koinize.adapter.writer import AdapterWriter, ModuleShape

__all__ = [
    "ADAPTER_FILES",
    "Adapter",
    "AdapterHeader",
    "AdapterWriter",
    "Factors",
    "ModuleHeader",
    "ModuleShape",
    "files_digest",
    "open_adapter",
    "read_header",
]

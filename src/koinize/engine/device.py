"""Where the arithmetic of a merge happens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from koinize.errors import InputError

if TYPE_CHECKING:
    import torch


def merge_device(name: str) -> torch.device:
    """The device of "cpu", "cuda", "cuda:N", or "auto": CUDA where there is any, else the CPU.

    Raises InputError for another name, or for CUDA where torch finds none.
    """
    import torch

    if not re.fullmatch(r"cpu|auto|cuda(:\d+)?", name):
        raise InputError(f"device '{name}' is unknown", expected="cpu, cuda, cuda:N or auto")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if found else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= found:
        raise InputError(
            f"device '{name}' was asked for, and torch finds {found or 'no'} CUDA "
            + ("device" if found == 1 else "devices"),
            remedy="use device cpu, or auto to take CUDA only where there is any",
        )
    return device

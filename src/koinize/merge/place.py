"""Where tensors are, and what that asks of the code that goes through them piece by piece.

A core wants pieces that stay in its cache. A GPU wants few and large ones, because each of them
costs a launch.
"""

from __future__ import annotations

from torch import Tensor


def on_cpu(tensor: Tensor) -> bool:
    """Whether a core works on it, rather than a GPU."""
    return tensor.device.type == "cpu"

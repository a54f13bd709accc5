"""Random numbers by key and counter: the same entry always gets the same draw.

The key is (seed, what, language, module) and the counter is the entry's index, so a mask depends
on neither the order of the calls, nor the other languages, nor tiles, nor threads. The generator is
Philox (Salmon et al. 2011), whose raw output numpy promises never to change.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koinize.digest import digest

WORDS_PER_COUNT = 8  # one step of the counter gives four 64-bit numbers


def keep(
    seed: int,
    language: str,
    module: str,
    start: int,
    shape: tuple[int, ...],
    probability: float | Tensor,
    device: torch.device | None = None,
) -> Tensor:
    """Boolean tensor: True with the given probability for entries start, start + 1, ...

    The probability, one for all or one for each, is exact to 2^-32. The draws are made on the CPU,
    so that they are the same on every device.
    """
    draws = words((seed, "drop", language, module), start, math.prod(shape)).reshape(shape)
    if isinstance(probability, Tensor):
        mask = draws < probability.double().cpu().numpy() * 2**32
    else:
        mask = draws <= np.uint32(math.ceil(probability * 2**32) - 1)
    return torch.from_numpy(mask).to(device)


def signs(module: str, rows: int, columns: int) -> Tensor:
    """Float32 matrix of random +1 and -1, by module: the test matrix of a randomized SVD."""
    drawn = words((0, "sketch", "", module), 0, (rows * columns + 31) // 32)
    bits = np.unpackbits(drawn.view(np.uint8))[: rows * columns]
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1).reshape(rows, columns)


def words(key: tuple[int | str, ...], start: int, count: int) -> NDArray[np.uint32]:
    """32-bit random numbers [start, start + count) of the sequence that belongs to the key."""
    identity = int(digest(key)[:32], 16)
    generator = np.random.Philox(key=[identity >> 64, identity & (2**64 - 1)])
    skipped, offset = divmod(start, WORDS_PER_COUNT)
    generator.advance(skipped)
    raw = generator.random_raw((offset + count + 1) // 2)
    # Little-endian halves on every machine.
    return raw.astype("<u8", copy=False).view("<u4")[offset : offset + count]

"""How much of a batch passes the model at once: less of it where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from koinize.errors import StepError
from koinize.train.schedule import Row

T = TypeVar("T")

CPU_REFUSAL = "DefaultCPUAllocator"
"""What torch's error of a failed allocation on a CPU says, which has no class of its own."""

logger = logging.getLogger(__name__)


class Budget:
    """Padded tokens of one forward pass. They bound memory and change nothing but rounding."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._said = False

    def fit(self, work: Callable[[], T], undo: Callable[[], None], rows: Sequence[Row]) -> T:
        """Do work that takes these rows in passes of `tokens`; where memory runs out, undo it and
        do it again with half as many, from now on. That is said once.

        Raises StepError where the longest row alone is too much.
        """
        longest = max(row.tokens.longest for row in rows)
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Not in the handler: while the error is held, so are the tensors of its frames.
            undo()
            if self.tokens <= longest:
                raise StepError(
                    f"memory ran out on a single row of {longest} tokens",
                    remedy="set machine.gradient_checkpointing, lower training.max_length, use a "
                    "smaller base model or a larger machine, or fewer machine.workers",
                )
            self.tokens = max(longest, self.tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._say()

    def _say(self) -> None:
        if not self._said:
            logger.warning(
                "memory ran out: passes are cut in half, to %d tokens now; set "
                "training.batch_tokens to begin with that, which changes no identity",
                self.tokens,
            )
        self._said = True


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or CPU_REFUSAL in str(error)

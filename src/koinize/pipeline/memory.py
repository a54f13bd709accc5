"""What the missing trainings will take of the memory, said before anything is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from koinize import machine
from koinize.model.memory import (
    Decoder,
    TrainingMemory,
    decoder_in,
    tokens_of_pass,
    training_memory,
)
from koinize.pipeline.inputs import Inputs
from koinize.pipeline.lengths import SPECIAL_TOKENS
from koinize.pipeline.step import Step
from koinize.spec import Spec

HERE = frozenset({"local", "inline"})
"""The executors whose workers are on this machine."""


@dataclass(frozen=True)
class Need:
    """The most that one of the missing trainings takes, for each of `workers`.

    `machine_bytes` is the memory of this machine; None where a GPU's is needed.
    """

    memory: TrainingMemory
    workers: int
    machine_bytes: int | None
    recomputed: bool = False

    def __str__(self) -> str:
        one = self.memory
        more = ", and up to half as much again where rows differ much in length"
        tokens = f"{one.pass_tokens:,} tokens; less if not{more if self.machine_bytes else ''}"
        return (
            f"a training needs roughly {_gigabytes(one.total)} for each worker if its passes are "
            f"full ({tokens}), of which {_gigabytes(one.base)} are the base model"
        )

    @property
    def warning(self) -> str:
        """What is worth a word where all workers together need more than there is."""
        needed = self.memory.of_workers(self.workers)
        if self.machine_bytes is None or needed <= self.machine_bytes:
            return ""
        count = f"{self.workers} workers that train" if self.workers > 1 else "a worker that trains"
        ways = ["lower training.batch_tokens"]
        ways += ["lower machine.workers"] * (self.workers > 1)
        ways += ["set machine.gradient_checkpointing"] * (not self.recomputed)
        return (
            f"{count} may need {_gigabytes(needed)} and this machine has "
            f"{_gigabytes(self.machine_bytes)}: {' or '.join(ways)}"
        )


def needed(
    spec: Spec, steps: Sequence[Step], inputs: Inputs, base: Path | None, workers: int
) -> Need | None:
    """What these steps need where they train; None where nobody can say.

    So it is as long as the base model is not here, for families that were not looked into, where a
    program of the user's own trains, and on other machines than this.
    """
    trainings = [one for one in steps if one.kind == "train"]
    known = base and spec.machine.executor in HERE and not spec.training.is_commanded
    decoder = decoder_in(base) if base and known and trainings else None
    if decoder is None:
        return None
    together = min(spec.machine.together, len(trainings))
    found = [_of(one, spec, inputs, decoder, together) for one in trainings]
    if None in found:
        return None
    largest = max((one for one in found if one), key=lambda one: one.total)
    side_by_side = min(workers, len(trainings))
    here = None if machine.gpus() else machine.memory()
    return Need(largest, side_by_side, here, spec.machine.gradient_checkpointing)


def _of(
    step: Step, spec: Spec, inputs: Inputs, decoder: Decoder, together: int
) -> TrainingMemory | None:
    """Of the longest rows that a step trains on, or has a dev loss of."""
    training, on_cpu = spec.training, not machine.gpus()
    longest = training.max_length
    if not inputs.manner.is_chat:  # no token is shorter than a byte
        splits = inputs.splits.items()
        rows = [facts.longest for (task, _, _), facts in splits if task == step.task]
        longest = min(longest, max(rows, default=longest) + SPECIAL_TOKENS)
    budget = tokens_of_pass(training.batch_tokens, on_cpu=on_cpu)
    tokens = max(longest, min(budget, training.batch_size * longest))
    passed = tokens if on_cpu else tokens * together
    return training_memory(
        decoder,
        spec.lora.of("" if step.address.role else step.language),
        training,
        dtype=spec.base.dtype,
        pass_tokens=passed,
        target_tokens=passed,
        adapters=together,
        on_cpu=on_cpu,
        recomputed=spec.machine.gradient_checkpointing,
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

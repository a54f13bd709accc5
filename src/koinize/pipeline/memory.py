"""What the missing trainings will take of the memory, said before anything is spent on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from koinize import machine
from koinize.model.memory import (
    FILLED,
    Decoder,
    TrainingMemory,
    decoder_in,
    tokens_of_pass,
    tokens_that_fit,
    training_memory,
)
from koinize.pipeline.inputs import Inputs
from koinize.pipeline.lengths import SPECIAL_TOKENS
from koinize.pipeline.step import Step
from koinize.settings import CPU_TOKENS
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
        return (
            f"a training needs roughly {_gigabytes(one.total)} for each worker if its passes are "
            f"full ({one.pass_tokens:,} tokens; less if not), of which {_gigabytes(one.base)} are "
            "the base model"
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


@dataclass(frozen=True)
class Passes:
    """What `training.batch_tokens: auto` is on this machine's GPUs, for each of `adapters` that
    share a pass; None where nothing is known of the memory that a training takes. `gpu_bytes` are a
    worker's.
    """

    tokens: int | None
    adapters: int
    gpu_bytes: int

    def __str__(self) -> str:
        what = f"training.batch_tokens: auto is {self.tokens or CPU_TOKENS:,} here"
        if self.tokens is None:
            return f"{what}, since how much memory such trainings take is not known"
        if self.adapters > 1:
            what += f" for each of {self.adapters} adapters that share a pass"
        takes = "which is" if self.tokens > CPU_TOKENS else "since more is not"
        share = f"{100 * FILLED:.0f} % of a worker's {_gigabytes(self.gpu_bytes)} of GPU memory"
        return f"{what}, {takes} reckoned to fit into {share}"


def passes_here(
    spec: Spec, steps: Sequence[Step], base: Path | None, workers: int
) -> Passes | None:
    """What `auto` will be where these steps train; None where that is on a CPU, or nobody can say,
    as on other machines than this and as long as the base model is not here.
    """
    trainings = _trainings(spec, steps)
    if not (base and trainings and machine.gpus()) or spec.training.batch_tokens != "auto":
        return None
    whole = machine.gpu_memory()
    if whole is None:
        return None
    own, together = whole // workers_of_a_gpu(spec, workers), _together(spec, trainings)
    return Passes(reckoned_tokens(spec, decoder_in(base), own, together), together, own)


def reckoned_tokens(
    spec: Spec, decoder: Decoder | None, gpu_bytes: int, adapters: int
) -> int | None:
    """What `auto` is on a GPU with so many bytes for a worker, where so many adapters share a pass:
    as many tokens as the largest adapter of the project leaves room for. None where nobody can say.
    """
    if decoder is None:
        return None
    found = [
        tokens_that_fit(
            decoder,
            lora,
            spec.training,
            dtype=spec.base.dtype,
            gpu_bytes=gpu_bytes,
            adapters=adapters,
            recomputed=spec.machine.gradient_checkpointing,
        )
        for lora in {spec.lora.of(language) for language in ("", *spec.languages)}
    ]
    known = [one for one in found if one is not None]
    return min(known) if len(known) == len(found) else None


def workers_of_a_gpu(spec: Spec, workers: int) -> int:
    """How many of a machine's workers share the memory of one of its GPUs."""
    if spec.machine.executor in HERE:
        return math.ceil(workers / max(1, len(machine.gpus())))
    share = spec.machine.gpus
    return int(1 / share) if share != "auto" and 0 < share < 1 else 1


def needed(
    spec: Spec,
    steps: Sequence[Step],
    inputs: Inputs,
    base: Path | None,
    workers: int,
    passes: Passes | None = None,
) -> Need | None:
    """What these steps need where they train; None where nobody can say.

    So it is as long as the base model is not here, for families that were not looked into, where a
    program of the user's own trains, and on other machines than this; and on a GPU whose memory
    nobody knows, where `passes` is to be chosen by it.
    """
    trainings = _trainings(spec, steps)
    decoder = decoder_in(base) if base and trainings else None
    on_gpu, budget = bool(machine.gpus()), spec.training.pass_tokens
    if on_gpu and spec.training.batch_tokens == "auto":
        budget = passes.tokens if passes and passes.tokens else 0
    if decoder is None or not budget:
        return None
    together = _together(spec, trainings)
    found = [_of(one, spec, inputs, decoder, together, budget) for one in trainings]
    if None in found:
        return None
    largest = max((one for one in found if one), key=lambda one: one.total)
    side_by_side = min(workers, len(trainings))
    here = None if machine.gpus() else machine.memory()
    return Need(largest, side_by_side, here, spec.machine.gradient_checkpointing)


def _trainings(spec: Spec, steps: Sequence[Step]) -> list[Step]:
    """Those among the steps that koinize itself trains, on this machine."""
    ours = spec.machine.executor in HERE and not spec.training.is_commanded
    return [one for one in steps if ours and one.kind == "train"]


def _together(spec: Spec, trainings: Sequence[Step]) -> int:
    """How many of them a worker does at once, at most."""
    shares = spec.training.adapter_dtype == "float32"
    return min(spec.machine.together, len(trainings)) if shares else 1


def _of(
    step: Step, spec: Spec, inputs: Inputs, decoder: Decoder, together: int, budget: int
) -> TrainingMemory | None:
    """Of the longest rows that a step trains on, or has a dev loss of."""
    training, on_cpu = spec.training, not machine.gpus()
    longest = training.max_length
    if not inputs.manner.is_chat:  # no token is shorter than a byte
        splits = inputs.splits.items()
        rows = [facts.longest for (task, _, _), facts in splits if task == step.task]
        longest = min(longest, max(rows, default=longest) + SPECIAL_TOKENS)
    budget = tokens_of_pass(budget, on_cpu=on_cpu)
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

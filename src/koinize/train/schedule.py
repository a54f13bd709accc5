"""Which rows come when, and at what learning rate: the same for one adapter and for many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from koinize.digest import digest
from koinize.errors import InputError
from koinize.model.encoding import Tokens
from koinize.model.loaded import Loaded
from koinize.settings import TrainingSpec
from koinize.tasks import Example

# Batches are cut from windows of this many batches, sorted by length: little padding, and yet
# other neighbours in every epoch.
WINDOW_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """An example as token ids; its identity is (language, key)."""

    identity: tuple[str, str]
    tokens: Tokens

    @property
    def target(self) -> tuple[int, ...]:
        """The tokens that the loss is computed for."""
        return self.tokens.targets[0]

    @property
    def line(self) -> tuple[int, ...]:
        """What the model reads: the last token predicts nothing."""
        return self.tokens.prompt + self.target[:-1]


def encode_rows(
    loaded: Loaded,
    train_examples: Iterable[Example],
    dev_examples: Iterable[Example],
    training: TrainingSpec,
) -> tuple[list[Row], list[Row]]:
    """The rows to train on and those of the dev loss, in the order of their identities.

    Raises InputError where there is nothing to train on, and for early stopping without a dev loss.
    """
    rows = _encode(loaded, train_examples, training.max_length)
    dev_rows = _encode(loaded, dev_examples, training.max_length)
    if not rows:
        raise InputError("there is nothing to train on", expected="at least one training example")
    if training.patience is not None and not dev_rows:
        raise InputError(
            "early stopping has no dev examples to look at",
            remedy="give a dev split, or remove training.patience",
        )
    return rows, dev_rows


def _encode(loaded: Loaded, examples: Iterable[Example], max_length: int) -> list[Row]:
    rows = []
    for example in examples:
        tokens = loaded.encoder.encode(
            example.prompt,
            [example.target],
            turns=example.turns,
            max_length=max_length,
            # An option is scored as it stands; a generated text must learn where to end.
            end=not example.options,
            where=f"example {example.key}",
        )
        rows.append(Row((example.language, example.key), tokens))
    return sorted(rows, key=lambda row: (row.identity, row.tokens.prompt, row.target))


def planned_steps(rows: Sequence[Row], training: TrainingSpec) -> int:
    """Optimizer steps of all epochs."""
    return training.epochs * math.ceil(len(rows) / training.batch_size)


def target_tokens(rows: Iterable[Row]) -> int:
    """Tokens that a loss is computed for."""
    return sum(len(row.target) for row in rows)


def epoch_batches(rows: Sequence[Row], training: TrainingSpec, epoch: int) -> list[list[Row]]:
    """One epoch's batches: shuffled by (seed, epoch, key), near-equal lengths together.

    A row's place follows from its own identity, so one added row moves few of the others.
    """
    size = training.batch_size

    def shuffled(row: Row) -> str:
        return digest([training.seed, epoch, *row.identity])

    order = sorted(rows, key=shuffled)
    batches = []
    for start in range(0, len(order), size * WINDOW_BATCHES):
        window = order[start : start + size * WINDOW_BATCHES]
        window.sort(key=lambda row: row.tokens.longest)
        batches += [window[at : at + size] for at in range(0, len(window), size)]
    # Short before long would be a curriculum that nobody asked for.
    return sorted(batches, key=lambda batch: min(map(shuffled, batch)))


def rate(step: int, planned: int, training: TrainingSpec) -> float:
    """The learning rate of a step (from 0), as a share of its peak: warmup, then decay to 0."""
    warmup = round(training.warmup_ratio * planned)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (planned - step) / max(1, planned - warmup)
    match training.schedule:
        case "constant":
            return 1.0
        case "linear":
            return left
        case "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))

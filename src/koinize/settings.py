"""What training and evaluation can be told: frozen, torch-free, part of every identity."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from koinize.digest import digest
from koinize.frozen import Frozen

Targets = Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)]
Normalization = Literal["none", "length", "pmi"]


MEMORY_ONLY = frozenset({"batch_tokens"})
"""Settings that bound memory and change nothing else, so that they are no part of an identity."""


def differing(settings: BaseModel, exclude: Collection[str] = MEMORY_ONLY) -> dict[str, Any]:
    """What differs from the defaults: a new option at its default rebuilds nothing."""
    return settings.model_dump(mode="json", exclude=set(exclude), exclude_defaults=True)


class LoraSpec(Frozen):
    """The shape of one LoRA adapter (Hu et al., 2021), in PEFT's words.

    The update B A is scaled by alpha / r, by alpha / sqrt(r) with `rslora` (Kalajdzievski, 2023).
    """

    r: int = Field(default=16, ge=1, description="rank of the update")
    alpha: float = Field(default=32.0, gt=0, description="numerator of the scale")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r)")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the input of A")
    targets: Targets = Field(
        default="all-linear", description="'all-linear', or the last parts of module names"
    )
    seed: int = Field(default=0, ge=0, description="of A's first values, per module name")


class UpdateSpec(Frozen):
    """How an adapter follows its language's rows, and what training on is like (decision 006)."""

    mode: Literal["retrain", "continue"] = Field(
        default="retrain",
        description="from the base on all rows, or from the last adapter on the new rows",
    )
    replay: float = Field(
        default=0.25, ge=0, le=1, description="share of the old rows that is seen again"
    )
    gone: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the rows learnt that may have been edited or removed since; above "
        "it, and where nothing is new, the adapter is retrained from the base",
    )
    epochs: int = Field(default=2, ge=1, description="over the new and the replayed rows")
    learning_rate: float | None = Field(
        default=None, gt=0, description="at its peak; by default that of the first training"
    )
    patience: int | None = Field(
        default=1, ge=1, description="epochs without a better dev loss before an early stop"
    )


class TrainingSpec(Frozen):
    """One training run. The loss is the mean over the target tokens of each optimizer step."""

    epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0, description="at its peak, after the warmup")
    batch_size: int = Field(default=8, ge=1, description="sequences per optimizer step")
    batch_tokens: int = Field(
        default=1024, ge=1, description="padded tokens per forward pass: bounds memory only"
    )
    warmup_ratio: float = Field(default=0.05, ge=0, le=1, description="share of all steps")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=512, ge=2, description="tokens of prompt and target together")
    patience: int | None = Field(
        default=None, ge=1, description="epochs without a better dev loss before an early stop"
    )
    seed: int = Field(default=0, ge=0, description="of the order of the rows and of dropout")
    adapter_dtype: Literal["float32", "bfloat16"] = "float32"
    update: UpdateSpec = UpdateSpec()

    @property
    def identity(self) -> str:
        """Digest of what a training from the base reads: how it is updated later is no part, nor is
        how much of a batch passes the model at once.
        """
        return digest(differing(self, {"update", *MEMORY_ONLY}))

    @property
    def continued(self) -> TrainingSpec:
        """The settings of training on from an adapter: these, with those of `update`."""
        update = self.update
        own = {
            "epochs": update.epochs,
            "patience": update.patience,
            "learning_rate": update.learning_rate or self.learning_rate,
        }
        return self.model_copy(update=own)


class EvaluationSection(Frozen):
    """How examples are scored or answered, for every task alike. Decoding is greedy, always."""

    batch_tokens: int = Field(
        default=4096, ge=1, description="padded tokens per forward pass: bounds memory only"
    )
    max_length: int = Field(default=512, ge=2, description="tokens of prompt and answer together")
    normalize: Normalization = Field(
        default="none",
        description="which option wins: the highest sum of log-probabilities ('none'), that sum "
        "per token ('length'), or less the option's own sum without its prompt ('pmi')",
    )


class EvaluationSpec(EvaluationSection):
    """The same, and what a task that generates says itself."""

    max_new_tokens: int = Field(default=96, ge=1, description="of a generated text")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="a generated text ends before the first of these"
    )

"""What training and evaluation can be told: frozen, torch-free, part of every identity."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from koinize.digest import digest
from koinize.frozen import Frozen

Targets = Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)]
MOST = 1_000_000_000
LARGEST_RANK = 65_536
LARGEST_SEED = (1 << 63) - 1
MOST_RETRIES = 20
MOST_SEEDS = 20
SEEDS_APART = 1000
"""From a seed of the comparison to the next one; the tries at a training lie between."""
Normalization = Literal["none", "length", "pmi"]


# A CPU is fastest when a pass stays near its caches: 740 tokens/s at 1,024 tokens a pass and 590
# at 4,096 or more, on Gemma 3 270M.
CPU_TOKENS = 1024


MEMORY_ONLY = frozenset({"batch_tokens"})
"""Settings that bound memory and change nothing else, so that they are no part of an identity."""


NOT_OF_A_TRAINING = frozenset({"update", "trunk", "branch", "retries", "seeds", *MEMORY_ONLY})
"""Settings that say nothing of a training from the base."""

BRANCH_RATE = 0.5
"""A branch's learning rate, as a share of the trunk's: it starts where the trunk ended."""


def differing(settings: BaseModel, exclude: Collection[str] = MEMORY_ONLY) -> dict[str, Any]:
    """What differs from the defaults: a new option at its default rebuilds nothing."""
    return settings.model_dump(mode="json", exclude=set(exclude), exclude_defaults=True)


class LoraSpec(Frozen):
    """The shape of one LoRA adapter (Hu et al., 2021), in PEFT's words.

    The update B A is scaled by alpha / r, by alpha / sqrt(r) with `rslora` (Kalajdzievski, 2023).
    """

    r: int = Field(default=16, ge=1, le=LARGEST_RANK, description="rank of the update")
    alpha: float = Field(default=32.0, gt=0, description="numerator of the scale")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r)")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the input of A")
    targets: Targets = Field(
        default="all-linear",
        description="'all-linear', or the last parts of the names of layers and of experts' "
        "parameters",
    )
    seed: int = Field(
        default=0, ge=0, le=LARGEST_SEED, description="of A's first values, per module name"
    )

    def of_try(self, number: int, further: int = 0) -> LoraSpec:
        """The same with the seed of a try, the first of which is 1, with a further seed."""
        return self.model_copy(update={"seed": _later_seed(self.seed, number, further)})


def _later_seed(seed: int, number: int, further: int) -> int:
    return (seed + SEEDS_APART * further + number - 1) % (LARGEST_SEED + 1)


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
    epochs: int = Field(default=2, ge=1, le=MOST, description="over the new and the replayed rows")
    learning_rate: float | None = Field(
        default=None, gt=0, description="at its peak; by default that of the first training"
    )
    patience: int | None = Field(
        default=1,
        ge=1,
        le=MOST,
        description="epochs without a better dev loss before an early stop",
    )


class TrunkFrom(Frozen):
    """A trunk that is there already: an adapter by its folder, or a release of the same task."""

    adapter: str | None = Field(
        default=None, min_length=1, description="PEFT folder of an adapter of this base"
    )
    release: str | None = Field(
        default=None, pattern=r"^v[1-9][0-9]*$", description="a release of the task, such as v3"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> TrunkFrom:
        if (self.adapter is None) == (self.release is None):
            raise ValueError("a trunk is one of: adapter: FOLDER, release: vN")
        return self


def _trunk(value: object) -> object:
    """Refuse what is none of the ways to a trunk, in one sentence."""
    if isinstance(value, Mapping):
        return TrunkFrom.model_validate(value)
    named = isinstance(value, TrunkFrom) or value in ("none", "joint")
    share = isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < 1
    if named or share:
        return value
    raise ValueError(
        f"{value!r} is no trunk; write none, joint, a share of the rows such as 0.2, "
        "{adapter: FOLDER} or {release: vN}"
    )


Trunk = Annotated[Literal["none", "joint"] | float | TrunkFrom, BeforeValidator(_trunk)]


class BranchSpec(Frozen):
    """How a language is trained on from the trunk of its generation (decision 011)."""

    anchors: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the other languages' rows that is seen too, drawn when the trunk is "
        "made and frozen with it",
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="over its own rows and the anchors; as training by default",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="at its peak; half of training's by default"
    )
    schedule: Literal["linear", "cosine", "constant"] = "linear"


PLACES = ("rows", "dev", "settings", "base", "start", "out")
"""What a trainer's command may name, as {rows}: the files and folders that it is given."""


class TrainerCommand(Frozen):
    """A program that trains in koinize's place, and what it is given."""

    command: Annotated[
        tuple[Annotated[str, Field(max_length=10_000)], ...], Field(min_length=1, max_length=1000)
    ] = Field(
        description="the program and its arguments, never through a shell; {rows}, {dev}, "
        "{settings}, {base}, {start} and {out} stand for paths"
    )
    version: str = Field(
        default="", max_length=1000, description="of the program, as you call it; part of identity"
    )
    rows: Literal["prompt-completion", "messages"] = Field(
        default="prompt-completion", description="the columns of the JSON lines that it is given"
    )
    hours: float = Field(
        default=24.0, gt=0, le=10_000, exclude=True, description="after which it is stopped"
    )

    @field_validator("command")
    @classmethod
    def _known_places(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command[0] or any("\0" in one for one in command):
            raise ValueError("write a list of a program and its arguments, each a text")
        for name in re.findall(r"\{([a-z_]+)\}", " ".join(command)):
            if name not in PLACES:
                known = ", ".join(f"{{{one}}}" for one in PLACES)
                raise ValueError(f"nothing stands for {{{name}}}; there are {known}")
        return command

    @property
    def goes_on(self) -> bool:
        """Whether it can train on from an adapter, as far as its command tells."""
        return any("{start}" in one for one in self.command)


def _trainer(value: object) -> object:
    """Refuse what is neither, in one sentence."""
    if value == "koinize" or isinstance(value, Mapping | TrainerCommand):
        return value
    raise ValueError(f"{value!r} is no trainer; write koinize, or {{command: [PROGRAM, ...]}}")


class TrainingSpec(Frozen):
    """One training run. The loss is the mean over the target tokens of each optimizer step."""

    epochs: int = Field(default=3, ge=1, le=MOST)
    learning_rate: float = Field(default=5e-4, gt=0, description="at its peak, after the warmup")
    batch_size: int = Field(default=8, ge=1, le=MOST, description="sequences per optimizer step")
    batch_tokens: Annotated[int, Field(ge=1, le=MOST)] | Literal["auto"] = Field(
        default="auto",
        description="padded tokens per forward pass: bounds memory only; auto: 1,024 on a CPU, on "
        "a GPU as many as fit, up to 8,192",
    )
    warmup_ratio: float = Field(default=0.05, ge=0, le=1, description="share of all steps")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    average: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of all steps, the last ones, over which the parameters are averaged; at "
        "0 the adapter is that of the last step",
    )
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(
        default=512, ge=2, le=MOST, description="tokens of prompt and target together"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="epochs without a better dev loss before an early stop",
    )
    seed: int = Field(
        default=0, ge=0, le=LARGEST_SEED, description="of the order of the rows and of dropout"
    )
    retries: int = Field(
        default=0,
        ge=0,
        le=MOST_RETRIES,
        description="how often a training that ended badly on dev is repeated, with other seeds",
    )
    seeds: int = Field(
        default=1,
        ge=1,
        le=MOST_SEEDS,
        description="how often every training of the comparison is made, with a seed each; the "
        "first is what is released",
    )
    adapter_dtype: Literal["float32", "bfloat16"] = "float32"
    load_in_4bit: bool = Field(
        default=False,
        description="train on the base in 4 bit (NF4); it is merged, scored and served as it is",
    )
    update: UpdateSpec = UpdateSpec()
    trunk: Trunk = Field(
        default="none",
        description="what every language starts from: the base ('none'), one training on all "
        "languages' rows ('joint') or on a share of them (0.2), {adapter: FOLDER}, {release: vN}",
    )
    branch: BranchSpec = BranchSpec()
    trainer: Annotated[Literal["koinize"] | TrainerCommand, BeforeValidator(_trainer)] = Field(
        default="koinize", description="koinize, or {command: [PROGRAM, ...]}: a program of yours"
    )

    @model_validator(mode="after")
    def _one_end(self) -> TrainingSpec:
        if self.average and self.patience is not None:
            raise ValueError(
                "average: with patience dev chooses the epoch whose adapter is kept, and no mean "
                "of the last steps; remove one of them"
            )
        if self.retries and self.is_commanded:
            raise ValueError(
                "retries: dev tells how a training ended, and a trainer of your own does not say "
                "its dev loss; remove retries, or the trainer"
            )
        if self.load_in_4bit and self.is_commanded:
            raise ValueError(
                "load_in_4bit: a trainer of your own loads the base itself; remove load_in_4bit"
            )
        return self

    @model_validator(mode="after")
    def _seeds_reach_every_training(self) -> TrainingSpec:
        if self.seeds == 1:
            return self
        if self.update.mode == "continue":
            raise ValueError(
                "seeds: an adapter that is trained on has one history, and further seeds begin at "
                "the base; remove seeds, or set update.mode to retrain"
            )
        if isinstance(self.trunk, TrunkFrom):
            raise ValueError(
                "seeds: a trunk from elsewhere was trained with one seed; remove seeds, or have it "
                "trained here"
            )
        return self

    @property
    def identity(self) -> str:
        """Digest of what a training from the base reads: what may follow later is no part, nor is
        how much of a batch passes the model at once.
        """
        return digest(differing(self, NOT_OF_A_TRAINING))

    @property
    def pass_tokens(self) -> int:
        """`batch_tokens` as a number: of auto, what it is where nobody knows the device."""
        return CPU_TOKENS if self.batch_tokens == "auto" else self.batch_tokens

    @property
    def has_trunk(self) -> bool:
        """Whether languages are branches of something that all of them started from."""
        return self.trunk != "none"

    @property
    def is_commanded(self) -> bool:
        """Whether a program of the user's own trains."""
        return isinstance(self.trainer, TrainerCommand)

    def of_try(self, number: int, further: int = 0) -> TrainingSpec:
        """The same with the seed of a try, the first of which is 1, with a further seed."""
        return self.model_copy(update={"seed": _later_seed(self.seed, number, further)})

    @property
    def branched(self) -> TrainingSpec:
        """The settings of a branch: these, with those of `branch`."""
        branch = self.branch
        own = {
            "epochs": branch.epochs or self.epochs,
            "learning_rate": branch.learning_rate or BRANCH_RATE * self.learning_rate,
            "schedule": branch.schedule,
            "patience": None,
        }
        return self.model_copy(update=own)

    @property
    def continued(self) -> TrainingSpec:
        """The settings of training on from an adapter: these, with those of `update`."""
        update = self.update
        own = {
            "epochs": update.epochs,
            "patience": update.patience,
            "average": 0.0 if update.patience is not None else self.average,
            "learning_rate": update.learning_rate or self.learning_rate,
        }
        return self.model_copy(update=own)


class EvaluationSection(Frozen):
    """How examples are scored or answered, for every task alike. Decoding is greedy, always."""

    batch_tokens: int = Field(
        default=4096,
        ge=1,
        le=MOST,
        description="padded tokens per forward pass: bounds memory only",
    )
    max_length: int = Field(
        default=512, ge=2, le=MOST, description="tokens of prompt and answer together"
    )
    normalize: Normalization = Field(
        default="none",
        description="which option wins: the highest sum of log-probabilities ('none'), that sum "
        "per token ('length'), or less the option's own sum without its prompt ('pmi')",
    )


AFTER_A_LABEL = 1
"""Tokens that may be written after the longest label, so that a text which goes on is seen to."""


class EvaluationSpec(EvaluationSection):
    """The same, and what a task in which the model writes says itself."""

    max_new_tokens: int = Field(default=96, ge=1, le=MOST, description="of a generated text")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="a generated text ends before the first of these"
    )
    free: bool = Field(default=False, description="where an option is chosen, write one, too")

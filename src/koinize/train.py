"""Training: (base, examples, settings) -> one LoRA adapter in a PEFT folder.

One loop: batches of near-equal lengths, hidden states from the backbone, cross-entropy on the
target tokens only, AdamW. The loss of a step is the mean over all target tokens of its batch,
however the batch is cut into forward passes.

In a bfloat16 base the adapter's float32 factors stay the masters and only the products run in
bfloat16 (torch.autocast): small steps are not lost to rounding.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from koinize.adapter import read_header
from koinize.digest import digest
from koinize.errors import InputError, StepError
from koinize.model.encoding import Tokens, buckets
from koinize.model.loaded import HEAD_ROWS, Loaded, pad, peak_bytes, reset_peak
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

# Batches are cut from windows of this many batches, sorted by length: little padding, and yet
# other neighbours in every epoch.
WINDOW_BATCHES = 4

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What one training run did. Losses are mean natural-log losses per target token."""

    steps: int
    examples: int
    truncated: int  # examples whose prompt lost tokens to max_length
    tokens: int  # real tokens seen, padding left out, over all epochs
    target_tokens: int  # those among them that a loss was computed for
    losses: tuple[float, ...]  # one per optimizer step
    dev_losses: tuple[float, ...]  # one per epoch; empty without dev examples
    kept_epoch: int  # the epoch, from 1, whose adapter was written
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class _Row:
    identity: tuple[str, str]
    tokens: Tokens

    @property
    def target(self) -> tuple[int, ...]:
        return self.tokens.targets[0]


def train(
    loaded: Loaded,
    train_examples: Sequence[Example],
    dev_examples: Sequence[Example],
    lora: LoraSpec,
    training: TrainingSpec,
    out: Path,
    progress: Progress | None = None,
    *,
    start: Path | None = None,
) -> TrainingReport:
    """Trains one adapter and writes it to `out` as a PEFT folder; the base is left as it was.

    The result depends on the examples, not on their order, and on nothing random but the seeds.
    With `patience` the adapter of the best dev loss is written, else the last. `start` is the PEFT
    folder of an adapter to train on from, with a fresh optimizer, instead of a fresh one.
    `progress` gets (steps done, steps planned, loss). Raises InputError for unusable examples or
    targets, or a start of another shape than `lora`, and StepError when the loss is no longer a
    number.
    """
    started = time.perf_counter()
    reset_peak(loaded.device)
    rows = _encode(loaded, train_examples, training.max_length)
    dev_rows = _encode(loaded, dev_examples, training.max_length)
    if not rows:
        raise InputError("there is nothing to train on", expected="at least one training example")
    if training.patience is not None and not dev_rows:
        raise InputError(
            "early stopping has no dev examples to look at",
            remedy="give a dev split, or remove training.patience",
        )
    with _injected(loaded, lora, training, start) as peft_model:
        report = _Loop(loaded, peft_model, training, progress).run(rows, dev_rows)
        _save(loaded, peft_model, out)
    return replace(
        report, seconds=time.perf_counter() - started, peak_bytes=peak_bytes(loaded.device)
    )


def _encode(loaded: Loaded, examples: Iterable[Example], max_length: int) -> list[_Row]:
    rows = []
    for example in examples:
        tokens = loaded.encoder.encode(
            example.prompt,
            [example.target],
            max_length=max_length,
            # An option is scored as it stands; a generated text must learn where to end.
            end=not example.options,
            where=f"example {example.key}",
        )
        rows.append(_Row((example.language, example.key), tokens))
    return sorted(rows, key=lambda row: (row.identity, row.tokens.prompt, row.target))


class _Loop:
    """The training loop and its state: the optimizer, the counts, the best adapter so far."""

    def __init__(
        self,
        loaded: Loaded,
        peft_model: PeftModel,
        training: TrainingSpec,
        progress: Progress | None,
    ) -> None:
        self.loaded, self.training, self.progress = loaded, training, progress
        self.parameters = [p for p in peft_model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.losses: list[float] = []
        self.dev_losses: list[float] = []
        self.kept_epoch = 0
        self.best: list[Tensor] = []

    def run(self, rows: list[_Row], dev_rows: list[_Row]) -> TrainingReport:
        training = self.training
        planned = training.epochs * math.ceil(len(rows) / training.batch_size)
        for epoch in range(training.epochs):
            for batch in epoch_batches(rows, training, epoch):
                self._step(batch, planned)
            if dev_rows:
                self.dev_losses.append(self._dev_loss(dev_rows))
            if self._should_stop(epoch + 1):
                break
        self._restore_best()
        return self._report(rows, epoch + 1)

    def _step(self, batch: list[_Row], planned: int) -> None:
        step = len(self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * rate(step, planned, self.training)
        targets = sum(len(row.target) for row in batch)
        loss = 0.0
        for part in self._passes(batch):
            loss += self._backward(part, targets)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            raise StepError(
                f"the loss is {loss} and its gradient's norm {float(norm)} at step {step + 1}",
                remedy="lower training.learning_rate, or use dtype bfloat16 or float32",
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss)
        if self.progress:
            self.progress(step + 1, planned, loss)

    def _backward(self, part: list[_Row], batch_targets: int) -> float:
        """Adds one forward pass's share of the batch's gradient; returns its share of the loss."""
        hidden, targets = self._hidden(part)
        # The output layer goes piece by piece, each with its own backward pass, so that no more
        # than HEAD_ROWS rows of logits ever live at once.
        rows = hidden.detach().requires_grad_()
        loss = 0.0
        for piece in self._losses(rows, targets):
            (piece / batch_targets).backward()  # type: ignore[no-untyped-call]
            loss += float(piece.detach())
        if hidden.requires_grad:  # not so when the output layer alone is adapted
            hidden.backward(rows.grad)  # type: ignore[no-untyped-call]
        return loss / batch_targets

    @torch.no_grad()
    def _dev_loss(self, rows: list[_Row]) -> float:
        loss = 0.0
        for part in self._passes(rows):
            loss += sum(float(piece) for piece in self._losses(*self._hidden(part)))
        return loss / sum(len(row.target) for row in rows)

    def _passes(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        budget = self.loaded.pass_tokens(self.training.batch_tokens)
        return buckets(rows, lambda row: row.tokens.longest, budget)

    def _hidden(self, part: list[_Row]) -> tuple[Tensor, Tensor]:
        """Hidden states (n, hidden) that predict the part's n target tokens, and those tokens."""
        # Right padding needs no mask under causal attention, and the last token predicts nothing.
        lines = [row.tokens.prompt + row.target[:-1] for row in part]
        ids, _ = pad(lines, self.loaded.encoder.pad_token, self.loaded.device)
        chosen = torch.zeros_like(ids, dtype=torch.bool)
        for marks, row, line in zip(chosen, part, lines, strict=True):
            marks[len(row.tokens.prompt) - 1 : len(line)] = True
        targets = torch.tensor([token for row in part for token in row.target])
        with self._precision():
            hidden = self.loaded.backbone(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[chosen], targets.to(self.loaded.device)

    def _losses(self, hidden: Tensor, targets: Tensor) -> Iterator[Tensor]:
        """Summed cross-entropies of successive pieces of the rows."""
        pieces = torch.split(hidden, HEAD_ROWS), torch.split(targets, HEAD_ROWS)
        for some, wanted in zip(*pieces, strict=True):
            with self._precision():
                logits = self.loaded.head(some)
            yield cross_entropy(logits, wanted, reduction="sum")

    def _precision(self) -> AbstractContextManager[None]:
        dtype = self.loaded.dtype
        return torch.autocast(
            self.loaded.device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16)
        )

    def _should_stop(self, epoch: int) -> bool:
        if self.training.patience is None:
            self.kept_epoch = epoch
            return False
        if self.dev_losses[-1] <= min(self.dev_losses):
            self.kept_epoch = epoch
            self.best = [parameter.detach().clone() for parameter in self.parameters]
        return epoch - self.kept_epoch >= self.training.patience

    @torch.no_grad()
    def _restore_best(self) -> None:
        for parameter, best in zip(self.parameters, self.best or self.parameters, strict=True):
            parameter.copy_(best)

    def _report(self, rows: list[_Row], epochs: int) -> TrainingReport:
        return TrainingReport(
            steps=len(self.losses),
            examples=len(rows),
            truncated=sum(row.tokens.truncated for row in rows),
            tokens=epochs * sum(row.tokens.longest for row in rows),
            target_tokens=epochs * sum(len(row.target) for row in rows),
            losses=tuple(self.losses),
            dev_losses=tuple(self.dev_losses),
            kept_epoch=self.kept_epoch,
            seconds=0.0,
            peak_bytes=0,
        )


def epoch_batches(rows: Sequence[_Row], training: TrainingSpec, epoch: int) -> list[list[_Row]]:
    """One epoch's batches: shuffled by (seed, epoch, key), near-equal lengths together.

    A row's place follows from its own identity, so one added row moves few of the others.
    """
    size = training.batch_size

    def shuffled(row: _Row) -> str:
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


@contextmanager
def _injected(
    loaded: Loaded, lora: LoraSpec, training: TrainingSpec, start: Path | None
) -> Iterator[PeftModel]:
    """The base with LoRA layers, fresh or as in `start`, and without them again afterwards."""
    from peft import LoraConfig, get_peft_model
    from peft.helpers import disable_input_dtype_casting

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if lora.targets == "all-linear" else list(lora.targets),
        task_type="CAUSAL_LM",
        revision=loaded.revision,
    )
    try:
        peft_model = get_peft_model(loaded.model, config)
    except ValueError as error:
        raise InputError(
            f"no LoRA layers fit base model '{loaded.name}': {error}",
            where="lora.targets",
            remedy="use 'all-linear', or names of the model's linear layers",
        ) from error
    try:
        _initialize(peft_model, lora, training)
        if start is not None:
            _take_over(peft_model, start)
        with (
            disable_input_dtype_casting(peft_model, active=loaded.dtype != torch.float32),
            torch.random.fork_rng(),
        ):
            torch.manual_seed(training.seed)  # only dropout draws from it
            yield peft_model
    finally:
        peft_model.unload()


def _initialize(peft_model: PeftModel, lora: LoraSpec, training: TrainingSpec) -> None:
    """B = 0 and A uniform in +-1/sqrt(in), LoRA's usual start, drawn per module name.

    PEFT draws A in the order of the modules from one global generator; here a module's A depends
    on (seed, name) alone, so other targets, ranks of other modules or other code change nothing.
    """
    for name, module in _layers(peft_model).items():
        module.train(lora.dropout > 0)
        A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
        generator = torch.Generator().manual_seed(int(digest([lora.seed, name])[:15], 16))
        uniform = torch.rand(A.shape, generator=generator) * 2 - 1
        with torch.no_grad():
            A.copy_(uniform / math.sqrt(A.shape[1]))
            B.zero_()
        if training.adapter_dtype == "bfloat16":
            module.to(torch.bfloat16)


@torch.no_grad()
def _take_over(peft_model: PeftModel, start: Path) -> None:
    """The factors of the adapter that lies in `start`, whose modules, ranks and scales must be
    those of the LoRA layers.
    """
    from safetensors.torch import load_file

    header, layers = read_header(start), _layers(peft_model)
    shapes = {name: (one.rank, one.scale) for name, one in header.modules.items()}
    wanted = {name: (one.r["default"], one.scaling["default"]) for name, one in layers.items()}
    if shapes != wanted:
        differing = min(
            name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name)
        )
        raise InputError(
            f"has another shape than lora says, first at module '{differing}'",
            where=str(start),
            expected="the same modules, ranks and scales",
            remedy="train from the base instead",
        )
    tensors = load_file(header.weights)
    for name, module in layers.items():
        for factor in ("lora_A", "lora_B"):
            weight = getattr(module, factor)["default"].weight
            weight.copy_(tensors[f"base_model.model.{name}.{factor}.weight"])


def _layers(peft_model: PeftModel) -> dict[str, LoraLayer]:
    """The LoRA layers by the names of the modules that they adapt."""
    from peft.tuners.lora import LoraLayer

    named = peft_model.base_model.model.named_modules()
    return {name: module for name, module in named if isinstance(module, LoraLayer)}


def _save(loaded: Loaded, peft_model: PeftModel, out: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, byte for byte reproducible."""
    peft_model.peft_config["default"].base_model_name_or_path = loaded.name
    # 'auto' would ask the hub about the vocabulary; adapters here never resize it.
    peft_model.save_pretrained(str(out), save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's card is an empty form
    config = out / "adapter_config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    if isinstance(settings["target_modules"], list):  # from a set: its order changes between runs
        settings["target_modules"].sort()
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

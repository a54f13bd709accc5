"""Training, scoring and generating with a tiny model in float32: the GPU against the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.gpu.bases import choices, texts, tiny_base
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import Scale, work_folder
from koinize.evaluate import evaluate
from koinize.model.loaded import Loaded, with_adapter
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import Training, TrainingReport, train, train_together

LORA = LoraSpec(r=4, alpha=8)
TRAINING = TrainingSpec(epochs=2, batch_size=6, learning_rate=5e-3)
EVALUATION = EvaluationSpec(max_new_tokens=24, normalize="pmi")


def run(part: Part, scale: Scale) -> None:
    """Both families of the tiny example, each with what was trained on the CPU."""
    part.note(
        "float32 without TF32. What rounding explains: a few hundred times 2^-23 = 1.2e-7 for "
        "losses and scores, more for factors, because Adam divides small gradients by their size."
    )
    with work_folder(1 << 28) as folder:
        for family in ("llama", "gemma3"):
            bases = {device: tiny_base(family, device) for device in ("cpu", scale.device)}
            if scale.device == "cpu":
                bases = {"cpu": bases["cpu"], "again": tiny_base(family, "cpu")}
            part.attempt(f"training, {family}", 3, partial(training, part, folder, family, bases))
            there = next(base for device, base in bases.items() if device != "cpu")
            part.attempt(f"a group, {family}", 3, partial(group, part, folder, family, there))
            adapter = folder / f"{family}-cpu"
            if adapter.exists():
                part.attempt(f"answers, {family}", 3, partial(answers, part, adapter, bases))


ROWS = (*texts(18, 60, 12), *choices(18, 40))


def training(part: Part, folder: Path, family: str, bases: dict[str, Loaded]) -> None:
    """Losses and the update, trained on either side."""
    reports: list[TrainingReport] = []
    for device, base in bases.items():
        out = folder / f"{family}-{device}"
        reports.append(train(base, ROWS, ROWS[:6], LORA, TRAINING, out))
    here, there = (torch.tensor([*one.losses, *one.dev_losses]) for one in reports)
    apart = float(((there - here) / here).abs().max())
    how = f"{len(here)} losses, {float(here[0]):.3f} to {float(here[-1]):.3f}"
    part.row(f"{family}: losses", apart, "rel., largest", how)
    found, expected = (folder / f"{family}-{device}" for device in reversed(bases))
    part.row(f"{family}: factors", distance(found, expected), "rel. Frobenius", "the worst factor")


def group(part: Part, folder: Path, family: str, base: Loaded) -> None:
    """The same twice at once, on the GPU: each against the adapter that the CPU trained alone."""
    outs = [folder / f"{family}-{name}" for name in ("one", "two")]
    trainings = [Training(out.name, ROWS, ROWS[:6], LORA, TRAINING, out) for out in outs]
    for outcome in train_together(base, trainings):
        if isinstance(outcome, Exception):
            raise outcome
    worst = max(distance(out, folder / f"{family}-cpu") for out in outs)
    part.row(f"{family}: factors of two at once", worst, "rel. Frobenius", "the worst factor")


def distance(found: Path, expected: Path) -> float:
    """How far two adapters' factors are apart, the pair that differs most."""
    ours, theirs = (load_file(one / "adapter_model.safetensors") for one in (found, expected))
    return max(float((ours[key] - one).norm() / one.norm()) for key, one in theirs.items())


def answers(part: Part, adapter: Path, bases: dict[str, Loaded]) -> None:
    """Scores of options and generated texts, with one adapter on both sides."""
    family = adapter.name.partition("-")[0]
    # Prompts of many lengths in one batch: padding on the left, wholly masked rows included.
    prompts = choices(12, 50, "de")
    scored: list[torch.Tensor] = []
    written: list[list[Text]] = []
    for base in bases.values():
        with with_adapter(base, adapter) as adapted:
            rows = evaluate(adapted, choices(24, 60), "options", EVALUATION)
            scored.append(torch.tensor([[*row["scores"], *row["unconditional"]] for row in rows]))
            written += [texts_of(adapted, prompts, together) for together in (True, False)]
    here, there = scored
    apart = float(((there - here) / here).abs().max())
    part.row(f"{family}: scores", apart, "rel., largest", f"{here.numel()} log-probabilities")
    together, alone, far_together, far_alone = written
    for name, one, other in (
        ("equal texts", together, far_together),
        ("equal texts, one by one", alone, far_alone),
        ("equal texts, one by one against a batch, GPU", far_alone, far_together),
    ):
        same = sum(first == second for first, second in zip(one, other, strict=True))
        part.row(f"{family}: {name}", same, f"of {len(one)}", first_difference(one, other))


Text = tuple[int, ...]


@torch.inference_mode()
def texts_of(loaded: Loaded, rows: Sequence[Example], together: bool) -> list[Text]:
    """The characters of what is written after each prompt, in one batch or one by one."""
    groups = [list(rows)] if together else [[row] for row in rows]
    found = [row for group in groups for row in evaluate(loaded, group, "text", EVALUATION)]
    by_key = {row["key"]: str(row["prediction"]) for row in found}
    return [tuple(map(ord, by_key[row.key])) for row in rows]


def first_difference(here: Sequence[Text], there: Sequence[Text]) -> str:
    """How long the texts are and where those that differ begin to."""
    lengths = f"{sum(map(len, here))} and {sum(map(len, there))} characters"
    places = [
        next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), -1)
        for one, two in zip(here, there, strict=True)
        if one != two
    ]
    return f"{lengths}; differ from {sorted(places)}" if places else lengths

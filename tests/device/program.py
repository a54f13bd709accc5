"""Merges, trains and answers on the device of far.py and on the CPU; prints how far they are apart.

python tests/device/program.py merges|models FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import far

DEVICE = far.install()

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from koinize.engine import merge_adapters, merging  # noqa: E402
from koinize.errors import ManyErrors  # noqa: E402
from koinize.evaluate import evaluate  # noqa: E402
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer  # noqa: E402
from koinize.merge.recipe import RECIPES  # noqa: E402
from koinize.model.loaded import Loaded, adopt, with_adapter  # noqa: E402
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec  # noqa: E402
from koinize.tasks import Example  # noqa: E402
from koinize.train import Training, train, train_together  # noqa: E402

CPU = torch.device("cpu")
SHAPES = {"q": (24, 40), "down": (600, 700)}  # on both sides of merge.approximation.EXACT_SIDE
TRAINING = TrainingSpec(epochs=2, batch_size=4, learning_rate=5e-3)
EVALUATION = EvaluationSpec(max_new_tokens=6, normalize="pmi")


def merges(folder: Path) -> dict[str, float]:
    """Relative Frobenius distances, the worst module's, by recipe and way."""
    *branches, trunk = (written(folder / f"adapter-{seed}", seed) for seed in range(4))
    adapters = dict(zip(("de", "en", "fr"), branches, strict=True))
    ways = {
        "whole": {"rank": "full"},
        "by energy": {"rank": 0.9},
        "thin": {"density": 0.3, "rank": 3},
        "from a trunk": {"trunk": trunk, "rank": 5},
    }
    choose = merging.merge_device
    merging.merge_device = lambda name: DEVICE if name == "far" else choose(name)
    apart = {}
    for name in RECIPES.names():
        for what, options in ways.items():
            found = []
            for device in ("far", "cpu"):
                out = folder / f"{name}-{len(apart)}-{device}"
                try:
                    merge_adapters(adapters, out=out, device=device, recipe=name, **options)
                except ManyErrors:
                    continue  # a recipe without a density
                found.append(load_file(out / "adapter_model.safetensors"))
            if found:
                apart[f"{name} {what}"] = farthest(*found)
    return apart


def written(folder: Path, seed: int) -> Path:
    """A random adapter of rank 4 with two modules."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in SHAPES.items():
        key = f"base_model.model.layers.0.{name}.lora_"
        decay = torch.tensor([1.0, 0.5, 0.25, 0.125])
        tensors[f"{key}A.weight"] = torch.randn(4, inputs, generator=draw)
        tensors[f"{key}B.weight"] = torch.randn(outputs, 4, generator=draw) * decay
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": list(SHAPES)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def farthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The relative distance of the update that differs most."""
    pairs = zip(updates(found), updates(expected), strict=True)
    return largest(float((one - other).norm() / other.norm()) for one, other in pairs)


def updates(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """B A by module, in float64."""
    keys = sorted(key for key in tensors if ".lora_A." in key)
    return [tensors[key.replace("_A", "_B")].double() @ tensors[key].double() for key in keys]


def models(folder: Path) -> dict[str, float]:
    """Relative distances of updates, losses and scores, and the share of texts that differ."""
    apart = {}
    for family in ("llama", "gemma3"):
        there, here = (base(family, device) for device in (DEVICE, CPU))
        rows, lora = examples(), LoraSpec(r=2, alpha=4)
        out = [folder / f"{family}-{side}" for side in ("there", "here", "one", "two")]
        far_report = train(there, rows, rows[:4], lora, TRAINING, out[0])
        report = train(here, rows, rows[:4], lora, TRAINING, out[1])
        apart[f"{family} losses"] = distance(
            [*far_report.losses, *far_report.dev_losses], [*report.losses, *report.dev_losses]
        )
        together = [Training(path.name, rows, rows[:4], lora, TRAINING, path) for path in out[2:]]
        for outcome in train_together(there, together):
            if isinstance(outcome, Exception):
                raise outcome
        expected = load_file(out[1] / "adapter_model.safetensors")
        for path in (out[0], out[2], out[3]):
            found = load_file(path / "adapter_model.safetensors")
            apart[f"{path.name} update"] = farthest(found, expected)
        apart |= answers(family, there, here, out[1])
    return apart


def base(family: str, device: torch.device) -> Loaded:
    """The tiny example's model there or here."""
    model = tiny_model(0, family=family).to(device).requires_grad_(False)
    return adopt(model, tiny_tokenizer(), device, name=f"org/{family}")


def examples() -> list[Example]:
    """Rows of many lengths, some with options."""
    options = (" yes", " no way")
    return [
        Example(f"k{i}", "en", "ab" * (i + 1), options[i % 2], options, ("y", "n"), i % 2)
        if i % 3
        else Example(f"k{i}", "en", "ab" * (i + 1), " a longer text")
        for i in range(12)
    ]


def answers(family: str, there: Loaded, here: Loaded, adapter: Path) -> dict[str, float]:
    """Scores and texts with one adapter on both."""
    scores, texts = [], []
    for one in (there, here):
        with with_adapter(one, adapter) as adapted:
            chosen = [row for row in examples() if row.options]
            rows = evaluate(adapted, chosen, "options", EVALUATION)
            scores.append([s for row in rows for s in (*row["scores"], *row["unconditional"])])
            rows = evaluate(adapted, examples(), "text", EVALUATION)
            texts.append([row["prediction"] for row in rows])
    differing = sum(one != other for one, other in zip(*texts, strict=True))
    return {f"{family} scores": distance(*scores), f"{family} texts": differing / len(texts[0])}


def distance(found: list[float], expected: list[float]) -> float:
    """The largest relative difference."""
    return largest(abs(one / other - 1) for one, other in zip(found, expected, strict=True))


def largest(distances: Iterable[float]) -> float:
    """The largest, which is NaN where one of them is: Python's own `max` may step over it."""
    return float(torch.tensor(list(distances)).max())


if __name__ == "__main__":
    measure = {"merges": merges, "models": models}[sys.argv[1]]
    sys.stdout.write(json.dumps(measure(Path(sys.argv[2]))) + "\n")

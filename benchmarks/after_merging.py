"""Four ways to better a finished merge, on a generated base and generated rows, over three seeds.

    python benchmarks/after_merging.py

Three languages with words of their own and shared signs, one adapter each from the base, and COMB
on all rows. Every merge has the scale that is best on dev (of SCALES), and is scored on test:
`plain` is the sum; `equal norms` divides every adapter by its Frobenius norm; `depth` has a factor
of its own for each of the two layers, chosen on dev; `gram` solves, in every module, for the middle
matrix M that makes B M A answer as each adapter does on that language's own unlabelled inputs
(their Gram matrices in the space of the factors: RegMean, arXiv 2212.09849, in the adapters' span);
`polish` trains the plain sum on for 20 steps of 16 rows of all languages, at each of RATES; COMB is
trained on likewise at the lowest of them.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from koinize import merge_adapters
from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import Loaded, adopt, with_adapter
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train

LANGUAGES, SEEDS = ("x", "y", "z"), (0, 1, 2)
SCALES = (0.25, 0.5, 0.71, 1.0, 1.41)
RATES, STEPS, BATCH = (5e-4, 2e-3, 5e-3), 20, 16
FACTORS = (0.6, 1.0, 1.6)
ROWS, DEV, TEST = 200, 100, 200
RANK, ALPHA = 4, 8
TRAINING = TrainingSpec(epochs=6, batch_size=4, learning_rate=1e-2)
WEIGHTS = "adapter_model.safetensors"


def words(language: str, count: int = 6) -> tuple[list[str], list[str], list[str]]:
    """A language's words that say yes, that say no, and that say nothing."""
    draw = random.Random(f"words {language}")
    letters = "abcdefghijklmnopqrstuvwxyz"
    some = ["".join(draw.choice(letters) for _ in range(5)) for _ in range(3 * count)]
    return some[:count], some[count : 2 * count], some[2 * count :]


def rows(language: str, count: int, seed: int, wrong: float = 0.0) -> list[Example]:
    """Two telling words and one that is not, in any order."""
    yes, no, neutral = words(language)
    draw, found = random.Random(f"{language} {seed}"), []
    for number in range(count):
        good = draw.random() < 0.5
        said = [draw.choice(yes if good else no) for _ in range(2)] + [draw.choice(neutral)]
        draw.shuffle(said)
        label = good if draw.random() >= wrong else not good
        found.append(
            Example(
                key=f"{language}-{seed}-{number}",
                language=language,
                prompt=" ".join(said) + " = ",
                target="+" if label else "-",
                options=("+", "-"),
                labels=("good", "bad"),
                gold=0 if label else 1,
            )
        )
    return found


Scored = tuple[float, float]


def scored(loaded: Loaded, adapter: Path, asked: Mapping[str, Sequence[Example]]) -> Scored:
    """Accuracy in points, and the NLL of the gold label: means over languages."""
    accuracy, losses = [], []
    for some in asked.values():
        with with_adapter(loaded, adapter) as model:
            found = evaluate(model, some, "options", EvaluationSpec())
        accuracy.append(100 * fmean(row["prediction"] == row["gold"] for row in found))
        golds = torch.tensor([0 if row["gold"] == "good" else 1 for row in found])
        logs = torch.log_softmax(torch.tensor([row["scores"] for row in found]), dim=1)
        losses.append(float(-logs[torch.arange(len(found)), golds].mean()))
    return fmean(accuracy), fmean(losses)


def best(loaded: Loaded, made: Sequence[Path], dev: Mapping[str, Sequence[Example]]) -> Path:
    """By accuracy on dev, then by the NLL."""

    def key(one: Path) -> tuple[float, float]:
        accuracy, loss = scored(loaded, one, dev)
        return accuracy, -loss

    return max(made, key=key)


class Task:
    """One seed: its rows, its adapters, and the ways to merge them."""

    def __init__(self, loaded: Loaded, seed: int, home: Path) -> None:
        self.loaded, self.seed, self.home = loaded, seed, home
        self.learnt = {one: rows(one, ROWS, 10 * seed + 1, 0.05) for one in LANGUAGES}
        self.dev = {one: rows(one, DEV, 10 * seed + 2) for one in LANGUAGES}
        self.test = {one: rows(one, TEST, 10 * seed + 3) for one in LANGUAGES}
        self.adapters = {one: self.train(one, self.learnt[one]) for one in LANGUAGES}
        self.comb = self.train("comb", [row for some in self.learnt.values() for row in some])

    def train(self, name: str, some: Sequence[Example]) -> Path:
        """An adapter from the base."""
        out, training = self.home / name, TRAINING.model_copy(update={"seed": self.seed})
        lora = LoraSpec(r=RANK, alpha=ALPHA, seed=self.seed)
        train(self.loaded, some, (), lora, training, out)
        return out

    def polished(self, start: Path, r: int, peak: float) -> Path:
        """Trained on for a few steps of rows of all languages."""
        everything = [row for some in self.learnt.values() for row in some]
        some = random.Random(self.seed).sample(everything, STEPS * BATCH)
        own = {"seed": self.seed, "epochs": 1, "batch_size": BATCH, "learning_rate": peak}
        out, lora = self.home / f"{start.name} {peak}", LoraSpec(r=r, alpha=ALPHA * r / RANK)
        train(self.loaded, some, (), lora, TRAINING.model_copy(update=own), out, start=start)
        return out

    def merged(self, name: str, **options: object) -> Path:
        """The sum, with these options."""
        out = self.home / name
        merge_adapters(self.adapters, out=out, recipe="sum", **options)
        return out

    def scaled(self, name: str, scales: Sequence[float] = SCALES, **options: object) -> Path:
        """The best of the scales on dev."""
        made = [self.merged(f"{name} {one}", scale=one, **options) for one in scales]
        return best(self.loaded, made, self.dev)

    def norms(self) -> dict[str, float]:
        """Weights that make the Frobenius norms of all adapters their mean."""
        found = {}
        for language, folder in self.adapters.items():
            pairs = factors(folder).values()
            found[language] = sum(float((B @ A).square().sum()) for A, B in pairs) ** 0.5
        mean = fmean(found.values())
        return {language: mean / one for language, one in found.items()}

    def depth(self, plain: Path) -> Path:
        """Around the best scale, a factor for each layer."""
        scale = float(plain.name.split()[-1])
        made = [
            self.merged(
                f"depth {first} {second}",
                scale=scale,
                overrides={
                    "layers.0.*": {"scale": scale * first},
                    "layers.1.*": {"scale": scale * second},
                },
            )
            for first, second in product(FACTORS, FACTORS)
        ]
        return best(self.loaded, made, self.dev)

    def gram(self) -> Path:
        """With the middle matrices, at each scale."""
        inputs = {one: self.grams(one) for one in LANGUAGES}
        experts = {one: factors(folder) for one, folder in self.adapters.items()}
        made = []
        for scale in SCALES:
            out = self.home / f"gram {scale}"
            shutil.copytree(self.merged(f"gram sum {scale}", scale=1.0), out)
            tensors = load_file(out / WEIGHTS)
            for name in experts["x"]:
                A = torch.cat([experts[one][name][0] for one in LANGUAGES]).double()
                B = torch.cat([experts[one][name][1] for one in LANGUAGES], dim=1).double()
                M = middle(A, [inputs[one][name] for one in LANGUAGES])
                whole = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
                assert whole[0].shape == A.shape  # noqa: S101
                factor = ALPHA / RANK / template_scale(out)
                tensors[f"{name}.lora_A.weight"] = A.float().contiguous()
                tensors[f"{name}.lora_B.weight"] = (scale * factor * B @ M).float().contiguous()
            save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
            made.append(out)
        return best(self.loaded, made, self.dev)

    def grams(self, language: str) -> dict[str, Tensor]:
        """Inputs of every adapted module on this language's training rows without their labels, as
        X^T X (inputs, inputs), under the language's own adapter.
        """
        found: dict[str, Tensor] = {}
        with with_adapter(self.loaded, self.adapters[language]) as model, watched(model, found):
            evaluate(model, self.learnt[language], "options", EvaluationSpec())
        return found

    def own(self) -> float:
        """The mean accuracy of each adapter in its own language."""
        found = [
            scored(self.loaded, self.adapters[one], {one: self.test[one]})[0] for one in LANGUAGES
        ]
        return fmean(found)

    def results(self) -> Iterator[tuple[str, Path]]:
        """Every way, and what it made."""
        plain = self.scaled("plain")
        yield "plain", plain
        yield "equal norms", self.scaled("equal norms", weights=self.norms())
        yield "depth", self.depth(plain)
        yield "gram", self.gram()
        r, like = RANK * len(LANGUAGES), self.home / "as trained"
        as_trained(plain, like, r)
        for peak in RATES:
            yield f"polish at {peak}", self.polished(like, r, peak)
        yield "COMB", self.comb
        yield f"COMB, on at {RATES[0]}", self.polished(self.comb, RANK, RATES[0])


def as_trained(folder: Path, out: Path, r: int) -> None:
    """The same update at the scale that training gives an adapter of this rank."""
    shutil.copytree(folder, out)
    factor = template_scale(out) / (ALPHA / RANK)
    tensors = load_file(out / WEIGHTS)
    for name in tensors:
        if ".lora_B." in name:
            tensors[name] = tensors[name] * factor
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    data = json.loads((out / "adapter_config.json").read_text())
    data |= {"r": r, "lora_alpha": ALPHA * r / RANK, "rank_pattern": {}, "alpha_pattern": {}}
    (out / "adapter_config.json").write_text(json.dumps(data))


def template_scale(folder: Path) -> float:
    """alpha / r of a folder."""
    data = json.loads((folder / "adapter_config.json").read_text())
    return float(data["lora_alpha"]) / float(data["r"])


def factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every module."""
    tensors = load_file(folder / WEIGHTS)
    names = {name.partition(".lora_")[0] for name in tensors}
    return {
        one: (tensors[f"{one}.lora_A.weight"], tensors[f"{one}.lora_B.weight"])
        for one in sorted(names)
    }


def middle(A: Tensor, grams: Sequence[Tensor]) -> Tensor:
    """M (ranks, ranks) of the least sum over languages of |(B M A - B_i A_i) X_i|^2: with
    P_i = A G_i A^T and E_i, which picks the columns of B_i, M (sum of P_i) = sum of E_i P_i.
    """
    left, right = (
        torch.zeros(len(A), len(A), dtype=A.dtype),
        torch.zeros(len(A), len(A), dtype=A.dtype),
    )
    each = len(A) // len(grams)
    for number, gram in enumerate(grams):
        P = A @ gram.double() @ A.T
        P = P / P.diagonal().mean()
        left += P
        own = slice(number * each, (number + 1) * each)
        right[own] += P[own]
    ridge = 1e-4 * left.diagonal().mean() * torch.eye(len(A), dtype=A.dtype)
    return torch.linalg.solve(left + ridge, right.T + 0 * ridge).T


@contextmanager
def watched(model: Loaded, found: dict[str, Tensor]) -> Iterator[None]:
    """Adds up what goes into every adapted layer."""

    def hook(name: str) -> Callable[..., None]:
        def add(_: nn.Module, given: tuple[Tensor, ...], __: object) -> None:
            X = given[0].detach().flatten(0, -2)
            found[name] = found.get(name, torch.zeros(X.shape[1], X.shape[1])) + X.T @ X

        return add

    handles = []
    for name, module in model.model.named_modules():
        if hasattr(module, "lora_A"):
            handles.append(module.register_forward_hook(hook(f"base_model.model.{name}")))
    try:
        yield
    finally:
        for one in handles:
            one.remove()


def main() -> None:
    """Train, merge and print."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, list[Scored]] = {}
    for seed in SEEDS:
        loaded = adopt(
            tiny_model(1), tiny_tokenizer(), torch.device("cpu"), name="org/tiny", revision="r1"
        )
        with tempfile.TemporaryDirectory() as home:
            task = Task(loaded, seed, Path(home))
            print(seed, "own", task.own(), "COMB", scored(loaded, task.comb, task.test), flush=True)
            for name, folder in task.results():
                found.setdefault(name, []).append(scored(loaded, folder, task.test))
                print(seed, name, folder.name, found[name][-1], flush=True)
    print("\n| way | accuracy, seed by seed | against plain, mean (s.d.) | NLL, mean |")
    print("|---|---|---|---|")
    for name, each in found.items():
        less = [ours[0] - theirs[0] for ours, theirs in zip(each, found["plain"], strict=True)]
        shown = ", ".join(f"{accuracy:.1f}" for accuracy, _ in each)
        mean = fmean(loss for _, loss in each)
        print(f"| {name} | {shown} | {fmean(less):+.1f} ({stdev(less):.1f}) | {mean:.3f} |")


if __name__ == "__main__":
    main()

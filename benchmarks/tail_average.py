"""The spread over seeds with and without the tail average, on generated rows and a generated base.

    python benchmarks/tail_average.py

One line for each schedule and each share of the steps that is averaged: accuracy and the negative
log-likelihood of the gold label on other rows than those trained on.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch

from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import Loaded, adopt, with_adapter
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train

WORDS = {
    True: ["sunny", "lovely", "great", "calm", "warm", "happy", "sweet", "kind", "bright", "fresh"],
    False: ["rainy", "awful", "poor", "loud", "cold", "sad", "sour", "mean", "dark", "stale"],
}
NEUTRAL = ["the", "tea", "a", "room", "this", "day", "it", "was", "and", "very", "my"]
NEUTRAL += ["train", "house"]
SEEDS = range(8)
WRONG = 0.1  # the share of training rows with the other label


def rows(count: int, seed: int, wrong: float) -> list[Example]:
    """Two telling words and a neutral one, in any order."""
    draw, found = random.Random(seed), []
    for number in range(count):
        good = draw.random() < 0.5
        words = [draw.choice(WORDS[good]), draw.choice(WORDS[good]), draw.choice(NEUTRAL)]
        draw.shuffle(words)
        label = good if draw.random() > wrong else not good
        found.append(
            Example(
                key=f"k{seed}-{number}",
                language="en",
                prompt=" ".join(words) + " = ",
                target="+" if label else "-",
                options=("+", "-"),
                labels=("good", "bad"),
                gold=0 if label else 1,
            )
        )
    return found


def scored(loaded: Loaded, adapter: Path, asked: Sequence[Example]) -> tuple[float, float]:
    """Accuracy in points, and the mean NLL of the gold label."""
    with with_adapter(loaded, adapter) as model:
        found = evaluate(model, asked, "options", EvaluationSpec())
    right = sum(row["prediction"] == row["gold"] for row in found)
    golds = [0 if row["gold"] == "good" else 1 for row in found]
    logs = torch.log_softmax(torch.tensor([row["scores"] for row in found]), dim=1)
    nll = -logs[torch.arange(len(found)), torch.tensor(golds)].mean()
    return 100 * right / len(found), float(nll)


def main() -> None:
    """Train and print."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    device = torch.device("cpu")
    loaded = adopt(tiny_model(1), tiny_tokenizer(), device, name="org/tiny", revision="r1")
    learnt, asked = rows(200, 1, WRONG), rows(300, 2, 0.0)
    for schedule in ("constant", "linear"):
        for average in (0.0, 0.2, 0.5):
            found = []
            for seed in SEEDS:
                training = TrainingSpec(
                    epochs=5, batch_size=4, learning_rate=1e-2, seed=seed, average=average
                ).model_copy(update={"schedule": schedule})
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder) / "adapter"
                    train(loaded, learnt, (), LoraSpec(r=4, alpha=8, seed=seed), training, out)
                    found.append(scored(loaded, out, asked))
            accuracy, nll = zip(*found, strict=True)
            print(
                f"{schedule} {average}: accuracy {mean(accuracy):.1f}, s.d. {stdev(accuracy):.1f}, "
                f"worst {min(accuracy):.1f}; NLL {mean(nll):.3f}, s.d. {stdev(nll):.3f}"
            )


if __name__ == "__main__":
    main()

"""A task that needs transfer: what a language is asked about stands in the others' rows.

Good and bad words are shared by all languages, and each language's training rows show a third of
them. Its test asks about all. Adapters that are trained apart cannot know the rest; a trunk does,
and keeps it when one language changes.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from koinize.examples.tiny.make_base import write_tiny_base
from koinize.pipeline import Project
from koinize.pipeline.report_input import gather
from koinize.report import render_html, render_text, results
from tests.release.releasing import Quiet

pytestmark = pytest.mark.slow

WORDS = {"good": "abcdefghi", "bad": "jklmnopqr"}
LANGUAGES = ("de", "en", "ja")
ROWS, LATER = 48, 16

SPEC = """\
koinize: 1
name: transfer
base: {{model: base, dtype: float32}}
languages: [de, en, ja]
tasks:
  mood:
    kind: classify
    labels: [good, bad]
    verbalizers: {{good: "+", bad: "-"}}
    prompt: "{{text}} ="
lora: {{r: 4, alpha: 8, seed: {seed}}}
training: {{epochs: 4, learning_rate: 2.0e-2, batch_size: 8, max_length: 128, seed: {seed}{trunk}}}
machine: {{executor: inline}}
{more}
"""


def write_rows(folder: Path, seed: int, *, japanese: int) -> None:
    """Rows of three words each: in train a language's own third of them, elsewhere any."""
    (folder / "data").mkdir(exist_ok=True)
    for place, language in enumerate(LANGUAGES):
        for split, count in (("train", ROWS), ("dev", 24), ("test", 60)):
            draw = random.Random(f"{language} {split} {seed}")
            lines = []
            for number in range(count):
                label = ("good", "bad")[number % 2]
                known = (
                    WORDS[label][3 * place : 3 * place + 3] if split == "train" else WORDS[label]
                )
                text = f"{language} {split} {number}: " + " ".join(draw.choices(known, k=3))
                lines.append(json.dumps({"text": text, "label": label}))
            if split == "train" and language == "ja":
                lines = lines[:japanese]
            path = folder / "data" / f"{language}.{split}.jsonl"
            path.write_text("\n".join(lines) + "\n")


def chosen_score(folder: Path) -> float:
    """The mean over languages of what would be released, on test."""
    project = Project.at(folder / "koinize.yaml")
    _, outcome = project.run(Quiet(), lambda _: None)
    assert not outcome.failed
    (task,) = results(gather(project))["tasks"]
    return next(
        row["value"]
        for row in task["scores"]
        if (row["split"], row["system"], row["language"], row["metric"])
        == ("test", task["chosen"], None, "macro-f1")
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_trunk_and_a_branch_beat_adapters_that_were_trained_apart(
    tmp_path: Path, seed: int
) -> None:
    apart, together = tmp_path / "apart", tmp_path / "together"
    for folder, trunk, more in (
        (apart, "", "baselines: [mean]\nmerge: {candidates: [paper]}"),
        (together, ", trunk: joint, branch: {anchors: 0.25, learning_rate: 6.0e-3}", ""),
    ):
        folder.mkdir()
        write_tiny_base(folder / "base")
        (folder / "koinize.yaml").write_text(SPEC.format(seed=seed, trunk=trunk, more=more))
    write_rows(together, seed, japanese=LATER)
    at_first = chosen_score(together)
    for folder in (apart, together):
        write_rows(folder, seed, japanese=ROWS)
    after = chosen_score(together)
    (branch,) = (s for s in Project.at(together / "koinize.yaml").steps if "branch" in s.name)
    assert branch.language == "ja"
    # Alone, a language has seen a third of the words, so two thirds of the test's words are new to
    # it. By simulation over these seeds the two ways are 15 points and more apart.
    assert after > chosen_score(apart) + 10
    assert after > at_first - 5


def test_a_trunk_that_nothing_left_has_a_report(tmp_path: Path) -> None:
    """On every way to show it, with no update that a figure could be a mean of."""
    write_tiny_base(tmp_path / "base")
    (tmp_path / "koinize.yaml").write_text(SPEC.format(seed=0, trunk=", trunk: joint", more=""))
    write_rows(tmp_path, 0, japanese=LATER)
    chosen_score(tmp_path)
    found = results(gather(Project.at(tmp_path / "koinize.yaml")))
    systems = {row["system"] for row in found["tasks"][0]["pooled"]}
    assert systems == {"BASE"}, "an adapter is not compared with itself"
    console = Console(file=io.StringIO(), width=120)
    render_text(found, console)
    html = render_html(found)
    for said in (
        "The trunk is what would be released: no language has left it yet. It is COMB, the same "
        "adapter: there is nothing to compare.",
        "no language has left the trunk yet",
    ):
        assert said in html

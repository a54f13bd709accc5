"""Free answers: what `generate` writes, and only a label to the letter counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from koinize.evaluate import evaluate
from koinize.evaluate.free import parse
from koinize.evaluate.together import evaluate_together
from koinize.settings import EvaluationSpec
from koinize.tasks import Example
from tests.evaluate.test_together import adapters, choices, loaded

FREE = EvaluationSpec(free=True, max_new_tokens=16, stop=("\n",))
PLAIN = EvaluationSpec()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("gut", "good"),
        ("\u3000gut \n", "good"),
        ("scha\u0308big", "bad"),  # decomposed
        ("", ""),
        ("Gut", ""),
        ("gut.", ""),
        ("gut gut", ""),
        ("good", ""),  # the label's name is no verbalizer
        ("gu", ""),
    ],
)
def test_only_a_verbalizer_to_the_letter_is_a_label(text: str, label: str) -> None:
    example = Example("k", "de", "p", " gut", (" gut", "schäbig"), ("good", "bad"), 0)
    assert parse(text, example) == label


def test_scores_stay_and_texts_are_those_that_generation_writes() -> None:
    base, examples = loaded(), choices()
    rows = evaluate(base, examples, "options", FREE)
    written = ("written", "answer", "tokens")
    bare = [{name: row[name] for name in row if name not in written} for row in rows]
    assert bare == evaluate(base, examples, "options", PLAIN)
    texts = evaluate(base, examples, "text", EvaluationSpec(max_new_tokens=16, stop=("\n",)))
    assert [(row["written"], row["tokens"]) for row in rows] == [
        (row["prediction"], row["tokens"]) for row in texts
    ]


def test_the_room_is_that_of_the_longest_label_and_the_text_is_parsed(monkeypatch) -> None:
    """A token of the tiny base is a byte; one more shows whether a text goes on after a label."""
    asked: list[int] = []

    def say(_: object, prompts: list[object], settings: EvaluationSpec):
        asked.append(settings.max_new_tokens)
        yield from ((n, text, 3) for n, text in reversed(list(enumerate(("x" * 30, "y", "z")))))

    monkeypatch.setattr("koinize.evaluate.free.generate", say)
    examples = [
        replace(one, options=(" " + "x" * 30, " y"), labels=("long", "short")) for one in choices(3)
    ]
    rows = evaluate(loaded(), examples, "options", FREE)
    assert [(row["written"], row["answer"], row["tokens"]) for row in rows] == [
        ("x" * 30, "long", 3),
        ("y", "short", 3),
        ("z", "", 3),
    ]
    evaluate(loaded(), choices(3), "options", FREE)
    assert asked == [32, 16]


@pytest.mark.slow
def test_together_each_writes_with_its_own_adapter(tmp_path: Path) -> None:
    base, examples = loaded(), choices()
    folders = adapters(base, tmp_path)[:3]
    seen: list[tuple[int, int]] = []
    found = evaluate_together(
        base, folders, examples, "options", FREE, lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (len(folders) * len(examples),) * 2
    texts = evaluate_together(
        base, folders, examples, "text", FREE.model_copy(update={"free": False})
    )
    assert [[row["written"] for row in rows] for rows in found] == [
        [row["prediction"] for row in rows] for rows in texts
    ]
    assert len({str(rows) for rows in texts}) > 1, "the adapters write alike: nothing is shown"


def test_progress_is_told_where_the_time_goes() -> None:
    seen: list[int] = []
    evaluate(loaded(), choices(3), "options", FREE, lambda done, _: seen.append(done))
    assert seen == [1, 2, 3]
    assert torch.is_grad_enabled()

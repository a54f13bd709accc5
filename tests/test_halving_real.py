"""What benchmarks/halving_real.py makes of kept answers: halving on them, and the tables."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import halving_real as benchmark
from koinize.search.evidence import likelihoods

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LABELS = ["games", "media", "text"]


def kept(wrong: dict[str, float]) -> dict[str, Any]:
    """Candidates by the share of 60 rows a language that each gets wrong, and is unsure of."""
    draw = random.Random(0)
    gold = {one: [draw.randrange(3) for _ in range(60)] for one in ("de", "en")}
    candidates = {}
    for name, share in wrong.items():
        candidates[name] = {}
        for language, labels in gold.items():
            bad = [number < share * 60 for number in range(60)]
            candidates[name][language] = {
                "predicted": [(g + b) % 3 for g, b in zip(labels, bad, strict=True)],
                "nll": [2.0 if b else 0.1 for b in bad],
            }
    way = {"left": next(iter(wrong)), "test": [70.0, 68.0, 72.0], "rows": 240, "seconds": 8.0}
    shown = {"task": "topic", "seed": 3, "labels": LABELS, "gold": gold, "candidates": candidates}
    return {**shown, "halving": way, "all": way}


def test_kept_answers_are_read_back_as_rows() -> None:
    """With the label, the answer, and scores that give the likelihood that was kept."""
    one = kept({"a": 0.25})
    (rows,) = benchmark.read(one).values()
    assert [row["gold"] for row in rows["de"]] == [LABELS[number] for number in one["gold"]["de"]]
    wrong = [row["gold"] != row["prediction"] for row in rows["en"]]
    assert wrong == [number < 15 for number in range(60)]
    losses = likelihoods(LABELS, rows["en"])
    assert losses == pytest.approx(one["candidates"]["a"]["en"]["nll"], abs=1e-9)


def test_a_better_candidate_is_left_whatever_the_order() -> None:
    """One candidate of sixteen is never wrong, so every share of the rows shows it the best."""
    one = kept({f"c{number}": 0.6 if number != 9 else 0.0 for number in range(16)})
    same, other = benchmark.orders(one, 5)
    assert same.each == other.each == [0.0] * 5
    assert str(same) == "0.00 | 0.0 | 100%"


def test_what_is_lost_is_what_the_best_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    one = kept({"good": 0.0, "bad": 0.5})
    monkeypatch.setattr(benchmark, "halved", lambda *_: "bad")
    same, _ = benchmark.orders(one, 3)
    gold = np.array(one["gold"]["de"]), np.array(one["gold"]["en"])
    bad = [np.where(np.arange(60) < 30, (labels + 1) % 3, labels) for labels in gold]
    f1 = [
        np.mean(
            [
                2 * ((said == k) & (true == k)).sum() / ((said == k).sum() + (true == k).sum())
                for k in range(3)
            ]
        )
        for said, true in zip(bad, gold, strict=True)
    ]
    assert same.each == pytest.approx([100 - 100 * np.mean(f1)] * 3)


def test_the_table_says_what_choosing_cost(tmp_path: Path) -> None:
    one = kept({f"c{number}": number / 20 for number in range(8)})
    file = tmp_path / "topic-3.json.gz"
    file.write_bytes(gzip.compress(json.dumps(one).encode()))
    lines = list(benchmark.table([file], count=2))
    assert lines[2] == "| 3 | halving | c0 | 100.0 | 70.0 [68.0, 72.0] | 240 | 2.00 | 8 |"


@pytest.mark.slow
def test_the_page_shows_what_was_kept() -> None:
    files = sorted((RESULTS / "halving").glob("*.json.gz"))
    assert files
    shown = (RESULTS / "halving.md").read_text().splitlines()
    assert [line for line in benchmark.table(files) if line and line not in shown] == []

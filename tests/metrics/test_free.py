"""Metrics of what the model wrote freely, against arithmetic on paper."""

from __future__ import annotations

import unicodedata

import pytest

from koinize.errors import InputError
from koinize.metrics import metrics, score

TEXTS = {"de": ("gut", "schlecht"), "fr": ("bon", "mauvais"), "vi": ("tốt", "xấu")}
SAID = [
    # gold, written, answer
    ("good", "gut", "good"),
    ("good", "schlecht", "bad"),
    ("good", "bon", ""),
    ("bad", "schlecht", "bad"),
    ("bad", "Schlecht.", ""),
    ("bad", "", ""),
    ("bad", unicodedata.normalize("NFD", "xấu") + "\u3000", ""),
    ("bad", "gut", "good"),
]
ROWS = [
    {"key": str(n), "gold": gold, "prediction": "good", "written": written, "answer": answer}
    for n, (gold, written, answer) in enumerate(SAID)
]


def value(name: str, rows=ROWS) -> float:
    metric = metrics.get(name).over(("good", "bad")).among(TEXTS)
    return score(metric, rows, resamples=2).value


def test_on_paper() -> None:
    assert value("parsed") == 100 * 4 / 8
    assert value("free-accuracy") == 100 * 2 / 8
    # good: 1 hit, answered twice, 3 rows. bad: 1 hit, answered twice, 5 rows.
    assert value("free-macro-f1") == pytest.approx(100 * (2 / 5 + 2 / 7) / 2)
    assert value("label-language") == 100 * 6 / 8  # bon, and xấu decomposed


def test_a_word_that_two_languages_share_is_ones_own() -> None:
    assert value("label-language", [{**ROWS[0], "written": "bon", "answer": "good"}]) == 100.0


def test_the_signature_tells_other_verbalizers_apart() -> None:
    metric = metrics.get("label-language")
    found = {metric.among(texts).signature() for texts in ({}, TEXTS, {"de": TEXTS["de"]})}
    assert len(found) == 3
    again = metric.among({"x": ("xấu", "tốt", "bon"), "y": ("gut", "schlecht", "mauvais")})
    assert again.signature() == metric.among(TEXTS).signature()


def test_one_set_for_all_languages_has_no_foreign_label() -> None:
    assert metrics.get("label-language").among({}).refusal(["de"]) == (
        "label-language needs `verbalizers` per language: with one set for all none is foreign"
    )


def test_a_row_that_was_not_written_to_is_refused() -> None:
    row = {"key": "k", "gold": "good", "prediction": "good"}
    with pytest.raises(InputError, match=r"^parsed cannot read column 'answer' of row 'k'"):
        value("parsed", [row])

"""chrF against sacreBLEU in the same run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from koinize.metrics import metrics, score

SYSTEM = ["The cat sat on mat.", "東京は 晴れです", "", "Zu kurz", "abcdefgh", "Ü"]
REFERENCE = ["The cat is on the mat.", "京都は晴れでした", "Leer", "Zu", "xyz", "U"]

# Some 20 additions, products and quotients of numbers up to 100.
TOLERANCE = 20 * 100 * 2**-53


def ours(system: list[str], reference: list[str]) -> float:
    pairs = enumerate(zip(reference, system, strict=True))
    rows = [{"key": str(i), "reference": r, "prediction": p} for i, (r, p) in pairs]
    return score(metrics.get("chrf"), rows, resamples=2).value


def theirs(system: list[str], reference: list[str]) -> float:
    return CHRF().corpus_score(system, [reference]).score


def test_a_corpus_equals_sacrebleu() -> None:
    assert ours(SYSTEM, REFERENCE) == pytest.approx(theirs(SYSTEM, REFERENCE), abs=TOLERANCE)


@pytest.mark.parametrize("i", range(len(SYSTEM)))
def test_each_sentence_equals_sacrebleu(i: int) -> None:
    expected = theirs(SYSTEM[i : i + 1], REFERENCE[i : i + 1])
    assert ours(SYSTEM[i : i + 1], REFERENCE[i : i + 1]) == pytest.approx(expected, abs=TOLERANCE)


texts = st.text(alphabet="abc 東京", max_size=12)


@pytest.mark.slow
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_any_corpus_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    system, reference = ([pair[side] for pair in pairs] for side in (0, 1))
    assert ours(system, reference) == pytest.approx(theirs(system, reference), abs=TOLERANCE)


def test_the_signature_says_what_sacrebleus_says() -> None:
    metric = CHRF()
    metric.corpus_score(SYSTEM, [REFERENCE])
    named = dict(part.split(":") for part in str(metric.get_signature()).split("|"))
    found = dict(part.split(":") for part in metrics.get("chrf").signature().split("|")[1:])
    shared = ("case", "eff", "nc", "nw", "space")
    assert {key: found[key] for key in shared} == {key: named[key] for key in shared}


def test_nothing_against_nothing_is_0_as_in_sacrebleu() -> None:
    assert ours([""], [""]) == theirs([""], [""]) == 0.0

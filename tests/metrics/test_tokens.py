"""Tokens by script: what is one token, what is folded and what is kept."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.metrics._tokens import tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The CAT, sat.", ["the", "cat", "sat"]),
        ("für fär", ["für", "fär"]),
        ("Straße l'été", ["strasse", "l", "été"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("人々は〇", ["人", "々", "は", "〇"]),
        ("iPhone15を買う", ["iphone15", "を", "買", "う"]),
        ("ﾊﾟﾝ１２", ["パ", "ン", "12"]),  # half-width kana and full-width digits are the same text
        ("我爱NLP。", ["我", "爱", "nlp"]),
        ("ไปที่", ["ไ", "ป", "ที่"]),  # vowel sign and tone mark stay on their consonant
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs do not end a word
        ("한국어 문장", ["한국어", "문장"]),
        ("๑๒ บท", ["๑๒", "บ", "ท"]),  # digits are a number in any script
        ("می‌خواهم", ["میخواهم"]),  # zero-width non-joiner inside a word
        ("Sil\u00adbe", ["silbe"]),
        ("don't", ["don", "t"]),
        ("!? ok", ["ok"]),
        ("! ?", ["!", "?"]),
        ("👍", ["👍"]),
        (" \n", []),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    folded = [unicodedata.normalize("NFKC", token) for token in expected]
    assert tokens(text) == folded


@given(st.text(max_size=30))
def test_case_and_form_of_accents_do_not_matter(text: str) -> None:
    assert tokens(unicodedata.normalize("NFD", text)) == tokens(text)
    assert tokens(unicodedata.normalize("NFC", text)) == tokens(text)


@given(st.text(max_size=30))
def test_a_text_with_visible_characters_has_tokens_without_spaces(text: str) -> None:
    found = tokens(text)
    assert all(token and not any(c.isspace() for c in token) for token in found)
    assert found or not any(c.isalnum() for c in text)

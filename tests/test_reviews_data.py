"""The reviews example: sizes, balance, languages, and no leak between the splits."""

import itertools
import json
import re
import unicodedata
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path

import pytest

from koinize.examples import write_example

LANGUAGES = ("de", "en", "fr", "ja", "zh")
SIZES = {"train": 60, "dev": 24, "test": 42}
LABELS = ("positive", "negative", "mixed")
FILES = [(language, split) for language in LANGUAGES for split in SIZES]
HAN = re.compile("[\u4e00-\u9fff]")
KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
# Words of one language that are no words of the other two, as its most frequent ones.
FUNCTION_WORDS = {
    "de": {"und", "der", "das", "nicht", "ist", "ich", "mit", "auf", "ein", "auch"},
    "en": {"the", "and", "of", "that", "it", "my", "with", "to", "than", "they"},
    "fr": {"le", "la", "et", "les", "une", "je", "est", "que", "pour", "du"},
}


def text_of(language: str, split: str) -> str:
    folder = resources.files("koinize") / "examples" / "reviews" / "data"
    return (folder / f"{language}.{split}.jsonl").read_bytes().decode("utf-8")


@cache
def rows_of(language: str, split: str) -> tuple[dict[str, str], ...]:
    return tuple(json.loads(line) for line in text_of(language, split).splitlines())


def rows_of_language(language: str) -> list[dict[str, str]]:
    return [row for split in SIZES for row in rows_of(language, split)]


def folded(text: str) -> str:
    """Only letters and digits, in lower case: spacing and punctuation hide no copy."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def five_grams(text: str) -> frozenset[str]:
    plain = folded(text)
    return frozenset(plain[i : i + 5] for i in range(max(1, len(plain) - 4)))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)


def sentences(text: str) -> set[str]:
    """The sentences of a text, folded; ones too short to be telling are left out."""
    return {plain for s in re.split(r"[.!?。！？…]+", text) if len(plain := folded(s)) >= 8}


def test_jaccard_of_five_grams_on_paper() -> None:
    # abcdef -> {abcde, bcdef}; abcdeg -> {abcde, bcdeg}: one of three is shared.
    assert jaccard(five_grams("Abc, def!"), five_grams("ab cdeg")) == 1 / 3
    assert jaccard(five_grams("abc"), five_grams("a b c.")) == 1.0


@pytest.mark.parametrize(("language", "split"), FILES)
def test_file_is_plain_jsonl(language: str, split: str) -> None:
    text = text_of(language, split)
    assert text.endswith("}\n")
    assert not re.search("[\ufeff\ufffd\r\t]", text)
    assert all(line.strip() for line in text.splitlines())


@pytest.mark.parametrize(("language", "split"), FILES)
def test_rows_have_the_four_columns(language: str, split: str) -> None:
    for row in rows_of(language, split):
        assert list(row) == ["id", "product", "text", "label"]
        assert all(isinstance(value, str) and value for value in row.values()), row
        assert all(value == value.strip() for value in row.values()), row
        assert re.fullmatch(rf"{language}-\d{{4}}", row["id"]), row


@pytest.mark.parametrize(("language", "split"), FILES)
def test_labels_are_balanced(language: str, split: str) -> None:
    counts = Counter(row["label"] for row in rows_of(language, split))
    assert counts == dict.fromkeys(LABELS, SIZES[split] // len(LABELS))


@pytest.mark.parametrize(("language", "split"), FILES)
def test_label_order_is_shuffled(language: str, split: str) -> None:
    labels = [row["label"] for row in rows_of(language, split)]
    changes = sum(first != second for first, second in itertools.pairwise(labels))
    # Sorted labels change twice, alternating ones always; a shuffle changes about 2/3 of the time.
    assert len(labels) / 3 < changes < len(labels) - 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_ids_and_texts_are_unique(language: str) -> None:
    rows = rows_of_language(language)
    assert len(rows) == sum(SIZES.values())
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({folded(row["text"]) for row in rows}) == len(rows)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_texts_share_a_sentence(language: str) -> None:
    counts = Counter(s for row in rows_of_language(language) for s in sentences(row["text"]))
    assert [sentence for sentence, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_near_duplicates(language: str) -> None:
    grams = {row["id"]: five_grams(row["text"]) for row in rows_of_language(language)}
    close = [
        (first, second)
        for first, second in itertools.combinations(grams, 2)
        if jaccard(grams[first], grams[second]) >= 0.5
    ]
    assert close == []


@pytest.mark.parametrize("language", ["de", "en", "fr"])
def test_latin_languages_use_latin_letters(language: str) -> None:
    for row in rows_of_language(language):
        letters = {c for c in row["text"] + row["product"] if c.isalpha()}
        assert all(unicodedata.name(c).startswith("LATIN") for c in letters), row
        assert 8 <= len(row["text"].split()) <= 30, row


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("language", ["de", "en", "fr"])
def test_function_words_are_those_of_the_language(language: str, split: str) -> None:
    words = Counter(
        word
        for row in rows_of(language, split)
        for word in re.findall(r"[^\W\d_]+", row["text"].lower())
    )
    found = {code: sum(words[word] for word in own) for code, own in FUNCTION_WORDS.items()}
    others = sum(count for code, count in found.items() if code != language)
    assert found[language] > 10 * others, found


def test_japanese_has_kana() -> None:
    assert [row["id"] for row in rows_of_language("ja") if not KANA.search(row["text"])] == []


def test_chinese_has_han_and_no_kana() -> None:
    for row in rows_of_language("zh"):
        assert HAN.search(row["text"]), row
        assert not KANA.search(row["text"] + row["product"]), row


def test_what_comes_later_is_the_rest_of_the_japanese_rows(tmp_path: Path) -> None:
    write_example("reviews", tmp_path / "demo")
    first, later = (
        (tmp_path / "demo" / file).read_bytes()
        for file in ("data/ja.train.jsonl", "later/ja.jsonl")
    )
    assert (first + later).decode("utf-8") == text_of("ja", "train")
    for part, count in ((first, 20), (later, 40)):
        labels = Counter(json.loads(line)["label"] for line in part.splitlines())
        assert labels.total() == count
        assert min(labels[one] for one in LABELS) >= count // 5

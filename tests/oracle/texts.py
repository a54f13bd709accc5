"""What a written text scores against its reference, once more and slowly: docs/metrics.md.

Every function takes a result row and returns a share from 0 to 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

Row = Mapping[str, Any]

UNSPACED = re.compile(
    r"(CJK|IDEOGRAPHIC|HIRAGANA|KATAKANA|HENTAIGANA|BOPOMOFO|YI|THAI|LAO|KHMER|MYANMAR|JAVANESE|BALINESE|TAI)\b"
)


def tokens(text: str) -> list[str]:
    """Words, or single characters of scripts that have no spaces, with the marks on them."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found, word = list[str](), False
    for one in folded:
        kind = unicodedata.category(one)
        if kind == "Cf":
            continue
        if kind[0] == "M" and found and word is not None:
            found[-1] += one
        elif kind[0] in "LN":
            alone = kind != "Nd" and UNSPACED.match(unicodedata.name(one, ""))
            if alone or word is not True:
                found.append(one)
            else:
                found[-1] += one
            word = not alone
        elif kind[0] != "M":
            word = None
    visible = (one for one in folded if unicodedata.category(one) != "Cf" and not one.isspace())
    return found or list(visible)


def rouge(n: int, row: Row) -> float:
    ours, theirs = (_grams(tokens(row[one]), n) for one in ("prediction", "reference"))
    whole = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / whole if whole else _same(row)


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _same(row: Row) -> float:
    return float(tokens(row["prediction"]) == tokens(row["reference"]))


def rouge_l(row: Row) -> float:
    ours, theirs = tokens(row["prediction"]), tokens(row["reference"])
    whole = len(ours) + len(theirs)
    return 2 * len(common(theirs, ours)) / whole if whole else 1.0


def common(left: Sequence[str], right: Sequence[str]) -> list[int]:
    """Where in `left` a longest common subsequence stands, of several the last one."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            longest = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else longest
    places, i, j = list[int](), len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            places, i, j = [i - 1, *places], i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return places


def rouge_lsum(row: Row) -> float:
    """Of every sentence of the reference what it has in common with any of the text's."""
    ours, theirs = (
        [words for one in sentences(row[side]) if (words := tokens(one))]
        for side in ("prediction", "reference")
    )
    left = Counter(word for one in ours for word in one)
    whole = left.total() + sum(map(len, theirs))
    hits = Counter(
        sentence[place]
        for sentence in theirs
        for place in {place for one in ours for place in common(sentence, one)}
    )
    return 2 * (hits & left).total() / whole if whole else _same(row)


def sentences(text: str) -> list[str]:
    """By lines; by Western stops before white space, by those of other scripts anywhere."""
    return re.split(r"\n|(?<=[.!?…])(?=\s)|(?<=[。！？｡။។।])", text)


def exact(row: Row) -> float:
    ours, theirs = (
        " ".join(unicodedata.normalize("NFC", row[one]).split())
        for one in ("prediction", "reference")
    )
    return float(ours == theirs)


def numbers(text: str) -> list[str]:
    """One digit after the other: each number as a decimal without zeros at either end."""
    plain = "".join(map(_plain, text))
    found, at = list[str](), 0
    while at < len(plain):
        if plain[at].isdigit():
            written, at = _number(plain, at)
            whole, _, rest = written.partition(".")
            rest = rest.rstrip("0")
            found.append((whole.lstrip("0") or "0") + (f".{rest}" if rest else ""))
        else:
            at += 1
    return found


def _plain(one: str) -> str:
    """ASCII digits of every script's; other numerals are none; marks as in Latin."""
    if unicodedata.category(one) == "Nd":
        return str(unicodedata.decimal(one))
    if unicodedata.category(one) == "No":
        return " "
    marks = {"٫": ".", "٬": ",", "\u00a0": "_", "\u202f": "_", "\u2009": "_"}
    return marks.get(one) or unicodedata.normalize("NFKC", one)


def _digits(text: str, at: int) -> int:
    """Where the digits from there on end."""
    while at < len(text) and text[at].isdigit():
        at += 1
    return at


def _number(text: str, start: int) -> tuple[str, int]:
    """What is written there, with a point, and where it ends."""
    at = _digits(text, start)
    whole, mark = text[start:at], text[at : at + 1]
    if mark and mark in ".,'’_" and len(whole) <= 3 and whole[0] != "0":
        after = at
        while text[after : after + 1] == mark and _digits(text, after + 1) == after + 4:
            whole, after = whole + text[after + 1 : after + 4], after + 4
        if after > at:
            at, last = after, text[after : after + 1]
            mark = last if last != mark else ""
    if mark and mark in ".," and _digits(text, at + 1) > at + 1:
        end = _digits(text, at + 1)
        return f"{whole}.{text[at + 1 : end]}", end
    return whole, at


def number_precision(row: Row) -> float:
    ours = numbers(row["prediction"])
    known = {*numbers(row["prompt"]), *numbers(row["reference"])}
    return sum(one in known for one in ours) / len(ours) if ours else 1.0


def number_recall(row: Row) -> float:
    theirs = {*numbers(row["reference"])}
    return len(theirs & {*numbers(row["prediction"])}) / len(theirs) if theirs else 1.0


def not_empty(row: Row) -> float:
    return float(bool(tokens(row["prediction"])))


def not_copied(row: Row) -> float:
    """A reference that is a copy makes one right."""
    ours, theirs, prompt = (tokens(row[one]) for one in ("prediction", "reference", "prompt"))
    return float(not _is_copy(ours, prompt) or _is_copy(theirs, prompt))


def _is_copy(words: Sequence[str], prompt: Sequence[str]) -> bool:
    n = len(words)
    return n >= 8 and any(prompt[at : at + n] == words for at in range(len(prompt) - n + 1))


def not_repeated(row: Row) -> float:
    grams = _grams(tokens(row["prediction"]), 4)
    return len(grams) / grams.total() if grams else 1.0


@cache
def _identifier() -> Any:
    """py3langid is the reference here as it is for koinize: what it says is not said again."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def right_language(row: Row) -> float:
    """Unless it is surely another one; regions and scripts do not count, nor written forms."""
    said, probability = _identifier().classify(row["prediction"])
    same = {"nb": "no", "nn": "no", "yue": "zh", "wuu": "zh", "cmn": "zh"}
    asked, said = (re.split("[-_]", one)[0].lower() for one in (row["language"], said))
    return float(probability < 0.8 or same.get(asked, asked) == same.get(said, said))


MEANS: Mapping[str, Callable[[Row], float]] = {
    "exact-match": exact,
    "rouge-1": lambda row: rouge(1, row),
    "rouge-2": lambda row: rouge(2, row),
    "rouge-l": rouge_l,
    "rouge-lsum": rouge_lsum,
    "number-precision": number_precision,
    "number-recall": number_recall,
    "not-empty": not_empty,
    "not-copied": not_copied,
    "not-repeated": not_repeated,
    "output-language": right_language,
}
"""The metrics that are means over rows."""


def shared_characters(row: Row) -> list[int]:
    """For chrF: of n-grams of 1 to 6 characters those of the text, of the reference, and of both.
    Of an order that the reference is too short for, the text's do not count.
    """
    ours, theirs = ("".join(row[one].split()) for one in ("prediction", "reference"))
    found = list[int]()
    for n in range(1, 7):
        left, right = _grams(ours, n), _grams(theirs, n)
        found += [left.total() if right else 0, right.total(), (left & right).total()]
    return found

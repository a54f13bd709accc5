"""From descriptions to texts worth learning from: what is kept, what is dropped and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from indexes import WIDE, Description, Indexes, Package

FUNCTION_WORDS = {
    "de": "aber als auch auf aus bei dem den der die durch ein eine einem einen einer eines es für"
    " ist kann mit nicht oder sich sie sind und unter vom von werden wie wird zu zum zur über",
    "en": "and are as be by can for from has have is it of or that the this to which with you",
    "fr": "au aux avec ce ces cette dans du elle en est et il la le les leur ou par pour qu que"
    " qui sans ses son sont sous sur un une vous",
}
"""Frequent words that none of the other two languages has."""

WITHOUT_CONTENT = frozenset({"debug", "metapackages", "oldlibs", "tasks"})
"""Sections of packages that only point to others, so that their texts say little."""

SHORT_WIDTH = (10, 100)
"""Least and most columns of a short description; a Chinese or Japanese character takes two."""

LONG_WIDTH = 50
"""Least columns of a long description."""

_LANGUAGE_OF = {word: code for code, words in FUNCTION_WORDS.items() for word in words.split()}
_POINTER = re.compile(
    r"transition|dummy|virtual package|meta-?package|empty package", re.IGNORECASE
)
_KANA = re.compile("[\u3041-\u30fa]")
_HAN = re.compile("[\u4e00-\u9fff]")
_NOT_LETTERS = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Text:
    """One kept description: `first` is the paragraph that relates it to its family."""

    package: str
    section: str
    language: str
    short: str
    long: str
    first: str


def select(indexes: Indexes) -> tuple[dict[str, list[Text]], dict[str, Counter[str]]]:
    """The kept texts of each language, sorted by package, and how many rows had which fate."""
    originals = {(d.package, d.original): d for d in indexes.descriptions["en"]}
    kept: dict[str, list[Text]] = {}
    fates: dict[str, Counter[str]] = {}
    for language in sorted(indexes.descriptions):
        kept[language], fates[language] = _select_language(
            language, indexes.descriptions[language], originals, indexes.packages
        )
    return kept, fates


def _select_language(
    language: str,
    descriptions: Iterable[Description],
    originals: Mapping[tuple[str, str], Description],
    packages: Mapping[str, Package],
) -> tuple[list[Text], Counter[str]]:
    fates: Counter[str] = Counter()
    texts: dict[str, Text] = {}
    seen: set[tuple[str, str]] = set()
    for description in sorted(descriptions, key=lambda d: (d.package, d.original)):
        package = packages.get(description.package)
        original = originals.get((description.package, description.original))
        identity = letters(description.short), letters("".join(description.paragraphs))
        if package is None or original is None:
            fate = "no package or English original"
        elif package.name in texts or identity in seen:
            fate = "text seen before"
        else:
            fate = why_dropped(language, description, original, package.section) or "kept"
        fates[fate] += 1
        if fate == "kept" and package is not None:
            seen.add(identity)
            texts[package.name] = _text(language, description, package)
    return [texts[name] for name in sorted(texts)], fates


def why_dropped(
    language: str, description: Description, original: Description, section: str
) -> str | None:
    """The first reason to leave a description out; None to keep it."""
    if section in WITHOUT_CONTENT or _POINTER.search(original.short):
        return "points to other packages"
    if language != "en" and (reason := untranslated(language, description, original)):
        return reason
    long = "\n".join(description.paragraphs)
    if identify(f"{description.short}\n{long}") != language:
        return "another language"
    if not SHORT_WIDTH[0] <= width(description.short) <= SHORT_WIDTH[1]:
        return "short description too short or long"
    if width(long) < LONG_WIDTH:
        return "long description too short"
    if letters(long).startswith(letters(description.short)):
        return "title opens the body"
    return None


def untranslated(language: str, description: Description, original: Description) -> str | None:
    """Why a translation still counts as English; None where all of it was translated."""
    if description.short == original.short or identify(description.short) == "en":
        return "title left in English"
    if language in {"ja", "zh"} and not WIDE.search(description.short):
        return "title left in English"
    english = {letters(paragraph) for paragraph in original.paragraphs}
    for paragraph in description.paragraphs:
        if letters(paragraph) in english and len(_WORD.findall(paragraph)) > 5:
            return "paragraph left in English"
        if any(identify(line) == "en" for line in paragraph.split("\n")):
            return "paragraph left in English"
    return None


def identify(text: str) -> str:
    """The language of a text by script, then by function words; "" where nothing tells.

    Latin letters are common in Japanese and Chinese descriptions (names, commands), so a fifth
    of the letters in Chinese characters or kana is enough; kana then tell Japanese from Chinese.
    Two function words more than any other language has decide between de, en and fr.
    """
    alphabetic = sum(map(str.isalpha, text))
    kana, han = len(_KANA.findall(text)), len(_HAN.findall(text))
    if 5 * (kana + han) >= alphabetic > 0:
        return "ja" if 10 * kana >= kana + han else "zh"
    found = Counter(_LANGUAGE_OF.get(word, "") for word in _WORD.findall(text.lower()))
    ranked = sorted(((found[code], code) for code in FUNCTION_WORDS), reverse=True)
    return ranked[0][1] if ranked[0][0] >= ranked[1][0] + 2 else ""


def letters(text: str) -> str:
    """A text without case, spaces and punctuation, to compare what it says."""
    return _NOT_LETTERS.sub("", text.casefold())


def width(text: str) -> int:
    """Columns of a terminal: a fair unit for cutting texts in different scripts."""
    return len(text) + len(WIDE.findall(text))


def cut(text: str, columns: int) -> str:
    """The beginning of a text within `columns`, up to the end of a sentence, line or word."""
    if 2 * len(text) <= columns or width(text) <= columns:
        return text
    ends = accumulate(width(character) for character in text)
    end = next(index for index, column in enumerate(ends) if column > columns)
    head = text[:end]
    for stops in (".!?。！？\n", ",;、，；", " "):
        last = max(_last_stop(head, stop) for stop in stops)
        if 2 * last > end:
            return head[: last + 1].rstrip()
    return head.rstrip()


def _last_stop(head: str, stop: str) -> int:
    # An ASCII stop inside a word ("1.0", "a,b") ends nothing.
    return head.rfind(stop + " ") if stop in ".!?,;" else head.rfind(stop)


def _text(language: str, description: Description, package: Package) -> Text:
    first, *_ = description.paragraphs
    long = "\n".join(description.paragraphs)
    return Text(package.name, package.section, language, description.short, long, letters(first))

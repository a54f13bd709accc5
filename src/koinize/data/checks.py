"""What is wrong between splits: leaks from one into another, duplicates, conflicting answers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from koinize.data.rows import SPLITS, Row, refuse
from koinize.errors import InputError

Place = tuple[str, str]
"""A language and a split."""
Reader = Callable[[Row, str], str]
"""From a row and its language to a text."""
SHOWN_CHARACTERS = 60
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})([.][0-9]{1,9})?")
"""What is a number when it is the value of a key."""


Kind = Literal["leak", "duplicate", "conflict"]
VERBS: dict[Kind, str] = {
    "leak": "leaks from",
    "duplicate": "repeats",
    "conflict": "contradicts",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: its kind, what it is, and the two places ("file:line") where it stands."""

    kind: Kind
    what: str
    where: str
    other: str

    @property
    def severity(self) -> Literal["error", "warning"]:
        """A leak makes the scores of the later split worthless; the others may be meant."""
        return "error" if self.kind == "leak" else "warning"

    def __str__(self) -> str:
        return f"{self.where} {VERBS[self.kind]} {self.other}: {self.what}"


@dataclass(frozen=True, slots=True)
class _Sighting:
    language: str
    split: str
    where: str
    answer: str


def check_splits(
    splits: Mapping[Place, Sequence[Row]],
    *,
    text: Reader,
    answer: Reader,
    key: str | None = None,
) -> tuple[Finding, ...]:
    """Findings over all languages and splits of a task: first the leaks, then the repetitions.

    `text` is what a row asks and `answer` what it wants to hear. The same text, or the same value
    in the column `key`, in two splits is a leak, whatever the two languages. The same text twice in
    one split of a language is a duplicate, or a conflict where the answers differ. Texts are the
    same when they differ in nothing but white space and Unicode composition; so are keys, and
    numbers among them also when they are written in two ways (17, 17.0, "17").

    Raises InputError for rows without the column `key`.
    """
    by_text: dict[str, list[_Sighting]] = defaultdict(list)
    by_key: dict[str, list[_Sighting]] = defaultdict(list)
    missing: list[InputError] = []
    for (language, split), rows in sorted(splits.items(), key=_place_order):
        for row in rows:
            seen = _Sighting(language, split, row.where, _plain(answer(row, language)))
            by_text[_plain(text(row, language))].append(seen)
            if key is None:
                continue
            if value := _key(row.columns.get(key)):
                by_key[value].append(seen)
            else:
                missing.append(InputError(f"the key column '{key}' is empty", where=row.where))
    refuse(missing)
    leaks = [*_leaks(by_text, "the same text"), *_leaks(by_key, f"the same {key}")]
    return (*_one_per_pair(leaks), *_repeats(by_text))


def refuse_leaks(findings: Iterable[Finding]) -> None:
    """Raise ManyErrors for the findings that are errors; do nothing when there are none."""
    remedy = "keep it in one of the splits only"
    refuse([InputError(str(one), remedy=remedy) for one in findings if one.severity == "error"])


def _place_order(item: tuple[Place, object]) -> tuple[str, int]:
    (language, split), _ = item
    return language, SPLITS.index(split)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _key(value: object) -> str:
    """A key as text; empty where there is none."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _plain(text)
    if not NUMBER.fullmatch(text):  # such as 007, which is a name
        return text
    number = Decimal(text)
    return format(number.normalize() + 0, "f")


def _leaks(groups: Mapping[str, Sequence[_Sighting]], what: str) -> Iterator[Finding]:
    for content, sightings in groups.items():
        first = min(sightings, key=lambda one: SPLITS.index(one.split))
        for one in sightings:
            if one.split != first.split:
                yield Finding("leak", f"{what}, {_shown(content)}", one.where, first.where)


def _one_per_pair(leaks: Iterable[Finding]) -> Iterable[Finding]:
    """Two rows that share both text and key are one leak, not two."""
    pairs: dict[tuple[str, str], Finding] = {}
    for one in leaks:
        pairs.setdefault((one.where, one.other), one)
    return pairs.values()


def _repeats(groups: Mapping[str, Sequence[_Sighting]]) -> Iterator[Finding]:
    for content, sightings in groups.items():
        firsts: dict[Place, _Sighting] = {}
        for one in sightings:
            first = firsts.setdefault((one.language, one.split), one)
            if first is one:
                continue
            if first.answer == one.answer:
                yield Finding("duplicate", _shown(content), one.where, first.where)
            else:
                here, there = _shown(one.answer), _shown(first.answer)
                what = f"{_shown(content)} is answered {here} here and {there} there"
                yield Finding("conflict", what, one.where, first.where)


def _shown(text: str) -> str:
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return f"'{cut}'"

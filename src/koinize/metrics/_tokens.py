"""Text -> tokens, for every language by the scripts in the text itself; no language code is needed.

A script that is written without spaces between words (Han, kana, Thai, Khmer, ...) gives one token
per character; everything else gives words. A mixed text, such as Japanese with a Latin product
name in it, so gets characters and words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

# First words of Unicode character names: the scripts and signs written without word spaces.
UNSPACED = {
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HENTAIGANA", "BOPOMOFO"),
    *("YI", "THAI", "LAO", "KHMER", "MYANMAR", "JAVANESE", "BALINESE", "TAI"),
}
TOKEN = re.compile("cm*|w[wm]*")


def tokens(text: str) -> list[str]:
    """Tokens of a text after NFKC and case folding; diacritics stay, punctuation goes.

    A text without any letter or digit gives its visible characters, so that "!" is not "?".
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(c for c in folded if _kind(c) != "f")
    kinds = "".join(map(_kind, visible))
    found = [visible[match.start() : match.end()] for match in TOKEN.finditer(kinds)]
    return found or list("".join(visible.split()))


def stands_in(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether tokens stand in others in one run."""
    return f" {' '.join(part)} " in f" {' '.join(whole)} "  # no token has a space in it


def goes_on(text: str, place: int) -> bool:
    """Whether the character at a place is part of the word that the one before it is part of."""
    return place > 0 and _kind(text[place]) in "wm" and _kind(text[place - 1]) in "wm"


@cache
def _kind(character: str) -> str:
    """c: a token by itself; w: part of a word; m: joins what it follows; f: ignored; or a gap."""
    category = unicodedata.category(character)
    if category == "Cf":  # soft hyphens, joiners, direction marks: invisible
        return "f"
    if category[0] == "M":  # vowel signs and accents that have no composed form
        return "m"
    if category[0] not in "LN":
        return " "
    if category != "Nd" and unicodedata.name(character, "").split(" ")[0] in UNSPACED:
        return "c"
    return "w"

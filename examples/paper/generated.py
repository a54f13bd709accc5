"""Rows in generated languages, as many as are asked for, on which a random base model can learn.

A text is a word of its own and three words of one theme. Every language has words of its own for
each theme, and shares half of them with its family, so that related languages have something in
common. Four tasks ask for the theme: by a sign that is the same everywhere (topic, sentiment), by
choosing its title among others (choice), or by writing the title (summary). A title is a word of
the language.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import product
from typing import Any

THEMES = ("+", "-", "=")
EUROPEAN, EAST_ASIAN = ("de", "en", "fr"), ("ja", "zh")
FIVE = (*EUROPEAN, *EAST_ASIAN)
WORDS = 4
"""How many words a language has for a theme."""

TASKS: Mapping[str, Mapping[str, Any]] = {
    "topic": {"kind": "classify", "labels": list(THEMES), "prompt": "{text} "},
    "sentiment": {"kind": "classify", "labels": list(THEMES[:2]), "prompt": "{text} "},
    "choice": {"kind": "choose", "prompt": "{text} ", "target": "title"},
    "summary": {
        "kind": "generate",
        "prompt": "{text} ",
        "target": "title",
        "max_new_tokens": 8,
        "metrics": ["chrf", "exact-match"],
    },
}


def codes(count: int) -> tuple[str, ...]:
    """The first `count` languages: five with names, then codes that are kept for private use."""
    private = ("".join(("q", a, b)) for a, b in product("abcdefghijklmnopqrst", "abcdefghij"))
    return (*FIVE, *private)[:count]


def rows(task: str, language: str, split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of a split. `seed` is of training rows; dev and test are the same for every seed."""
    draw = random.Random(f"{task} {language} {split} {seed if split == 'train' else ''}")
    themes = TASKS[task].get("labels", list(THEMES))
    titles = [word(f"title {language} {theme}") for theme in themes]
    found = []
    for number in range(count):
        theme = number % len(themes)
        text = " ".join(word(_name(language, themes[theme], draw)) for _ in range(3))
        name = f"{task}-{language}-{split}-{number}"
        row = {"id": name, "text": f"{word(name)} {text}", "label": themes[theme]}
        options = draw.sample(titles, len(titles))
        found.append(row | {"title": titles[theme], "options": options})
    return found


def word(name: str, length: int = 4) -> str:
    """The word of this name: random letters, always the same."""
    draw = random.Random(name)
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def _name(language: str, theme: str, draw: random.Random) -> str:
    number = draw.randrange(WORDS)
    return f"{language if number % 2 else family(language)} {theme} {number}"


def family(language: str) -> str:
    """Which languages it shares words with."""
    if language in FIVE:
        return "european" if language in EUROPEAN else "east asian"
    return f"family {language[-1]}"

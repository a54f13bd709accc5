"""One error tree. Every message says what is wrong, where, what was expected and what to do.

Exit codes: 0 done, 1 a step failed, 2 bad input or usage, 3 the gate or a limit said no, 130
interrupted.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import PurePath

from koinize import shown

MOST_SHOWN = 100  # mistakes of one input that are told one by one


class KoinizeError(Exception):
    """A step failed. The root of the tree: the command line prints it and never a traceback.

    The message reads `WHERE WHAT; expected EXPECTED; REMEDY`; only `what` is required.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        super().__init__(what, where, expected, remedy)

    def __str__(self) -> str:
        parts = [f"{self.where} {self.what}" if self.where else self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(map(shown.message, parts))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return _rebuild, (type(self), self.what, self.where, self.expected, self.remedy)


def _rebuild(
    kind: type[KoinizeError], what: str, where: str, expected: str, remedy: str
) -> KoinizeError:
    return kind(what, where=where, expected=expected, remedy=remedy)


class StepError(KoinizeError):
    """A step of the pipeline failed while it ran."""


class BrokenError(KoinizeError):
    """An artifact is not as it was written: `where` is its folder."""

    @property
    def artifact(self) -> str:
        """The id of the artifact."""
        return PurePath(self.where).name


class Interrupted(KoinizeError):
    """The user stopped it (Ctrl-C or SIGTERM)."""

    exit_code = 130


class InputError(KoinizeError):
    """What the user gave (a file, a key, an option) cannot be used."""

    exit_code = 2


class ManyErrors(InputError):
    """Several mistakes found in one pass, each its own `InputError`, one line each."""

    def __init__(self, errors: Iterable[InputError]) -> None:
        self.errors = tuple(single for error in errors for single in each(error))
        lines = [str(error) for error in self.errors[:MOST_SHOWN]]
        if len(self.errors) > MOST_SHOWN:
            lines.append(f"and {len(self.errors) - MOST_SHOWN} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        return ManyErrors, (self.errors,)


def each(error: InputError) -> tuple[InputError, ...]:
    """The single mistakes in an error: those that it gathers, or itself."""
    return error.errors if isinstance(error, ManyErrors) else (error,)


class GateError(KoinizeError):
    """The gate refused a candidate: at least one language got worse or could not be decided."""

    exit_code = 3


class LimitError(KoinizeError):
    """What is to be done may cost more, or take longer, than the user allows."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The remedy for a mistyped name: the nearest known one, or the list of all of them."""
    names = sorted(known)
    if near := nearest(word, names):
        return _asked(word, near)
    return f"choose one of: {', '.join(names)}" if names else "none is known here"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one most likely stands for; empty if none is near."""
    names = sorted(known)
    if alike := [name for name in names if _look(name) == _look(word)]:
        return alike[0]
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    return near[0] if near else ""


def perhaps(word: str, known: Iterable[str]) -> str:
    """The remedy where the known names are told anyway: the nearest one, if one is near."""
    near = nearest(word, known)
    return _asked(word, near) if near else ""


def _asked(word: str, near: str) -> str:
    """Whether the near name was meant; in code points, where the eye sees no difference."""
    asked = f"did you mean '{near}'?"
    if word == near or _look(word) != _look(near):
        return asked
    more, less = Counter(word) - Counter(near), Counter(near) - Counter(word)
    if not more and not less:  # the same characters in another order
        return asked
    if not less:
        return f"{asked} It has {_code_points(more)} too many"
    return f"{asked} It has {_code_points(more) or 'nothing'} where {_code_points(less)} belongs"


def _look(word: str) -> str:
    """Equal for words that look the same: composed or not, with invisible characters or without."""
    visible = (
        one for one in word if one.isspace() or unicodedata.category(one) not in ("Cf", "Cc")
    )
    return " ".join(unicodedata.normalize("NFKC", "".join(visible)).split()).translate(_TWINS)


def _code_points(characters: Iterable[str]) -> str:
    return ", ".join(f"U+{ord(one):04X} {unicodedata.name(one, '(no name)')}" for one in characters)


_CYRILLIC = (
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u0410"
    "\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405"
)
_GREEK = (
    "\u03bf\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)
_TWINS = str.maketrans(_CYRILLIC + _GREEK, "aeopcyxijsdhABEKMHOPCTXIJS" + "oABEZHIKMNOPTYX")
"""Cyrillic and Greek letters, and the Latin ones that look like them."""

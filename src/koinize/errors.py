"""One error tree. Every message says what is wrong, where, what was expected and what to do.

Exit codes: 0 done, 1 a step failed, 2 bad input or usage, 3 the gate or a limit said no, 130
interrupted.
"""

from __future__ import annotations

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
        return f"did you mean '{near}'?"
    return f"choose one of: {', '.join(names)}" if names else "none is known here"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one most likely stands for; empty if none is near."""
    near = get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return near[0] if near else ""

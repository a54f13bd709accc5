"""Where a task asks in other words than when something was made: other prompts, verbalizers, ...

Rows and wording are one digest in an identity, so what was made keeps the wording by itself, among
the facts of its manifest; a koinize that did not yet has left nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from koinize.digest import digest, short
from koinize.ledger.address import COMB_ROLES
from koinize.pipeline.step import Step
from koinize.store import Manifest
from koinize.tasks import Task

WORDING = "wording"
"""What a step calls it, among its settings."""

ROWS, OF = "train rows ", "the wording of "


def wording(task: Task, language: str) -> dict[str, str]:
    """A digest of each field of a task that words the rows of a language."""
    return {field: short(digest(said)) for field, said in task.wording(language).items()}


def reworded(step: Step, last: Manifest) -> dict[str, tuple[str, ...]]:
    """The fields that word a language otherwise than when `last` was made, by language."""
    before = last.facts.get("settings", {}).get(WORDING, {})
    found = {
        language: tuple(
            field
            for field, said in now.items()
            if before.get(language, {}).get(field, said) != said
        )
        for language, now in step.settings.get(WORDING, {}).items()
    }
    return {language: fields for language, fields in found.items() if fields}


def rows_reworded(step: Step, last: Manifest) -> dict[str, str]:
    """In words, what of a language changed since a training, by the label of its rows: only where
    that made others of them.
    """
    labels = {f"{ROWS}{one}": (one, fields) for one, fields in reworded(step, last).items()}
    return {
        label: in_words(one, fields)
        for label, (one, fields) in labels.items()
        if label in last.inputs and last.inputs[label] != step.inputs.get(label)
    }


def is_reworded(step: Step, last: Manifest) -> bool:
    """Whether every language that a training saw, and would see again, is worded otherwise now."""
    shared = {one for one in step.inputs.keys() & last.inputs.keys() if one.startswith(ROWS)}
    return bool(shared) and shared == rows_reworded(step, last).keys()


def unfair_combs(steps: Iterable[Step]) -> Iterator[str]:
    """Which COMBs are kept that some languages never asked in the words of today."""
    for step in steps:
        words = [one for one in step.stale if one.startswith(OF)]
        if words and step.address.role == COMB_ROLES[0] and not step.seed:
            yield (
                f"{step.task}: COMB was trained before {' and '.join(words)} changed, so there it "
                "is no fair comparison; `koinize run --retrain-comb` trains it again"
            )


def all_reworded(step: Step, last: Manifest) -> str:
    """The same as one phrase."""
    return " and ".join(rows_reworded(step, last).values())


def in_words(language: str, fields: Iterable[str]) -> str:
    """Such as "the wording of de (prompt)"."""
    return f"{OF}{language} ({', '.join(fields)})"

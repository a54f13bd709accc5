"""Rows that are too long for the base model, found before anything is spent on them.

A prompt that is too long loses tokens from its middle, which is said. An answer that leaves no room
for a prompt, and a row that a chat template refuses, would end a training or an evaluation: a plan
that needs such a row is refused. What was counted is remembered until the rows, the base model or
the settings change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from koinize.digest import digest
from koinize.errors import InputError, ManyErrors
from koinize.ledger.address import TRUNK
from koinize.model.rows import CUT, FITS, Text
from koinize.pipeline.generation import ROWS, draw
from koinize.pipeline.inputs import Inputs, placed_examples, stamp_of
from koinize.pipeline.step import Step
from koinize.settings import AFTER_A_LABEL
from koinize.spec import Spec
from koinize.store.record import read_record, write_record
from koinize.store.typed import Count, fitting
from koinize.tasks import Example

COUNTING = 2
"""Raised by whoever changes how texts become tokens: what is remembered was counted by that."""
SPECIAL_TOKENS = 8  # that a tokenizer puts around a text, at most
SHOWN = 3

Encode = Callable[[Sequence[Text]], list[str]]
"""What is said of each text: `koinize.model.rows.fitted` with the base model's tokenizer."""


@dataclass(frozen=True)
class Use:
    """Rows of one split, and what is done with them. Of `share` of them, where that is not 1."""

    task: str
    language: str
    split: str
    training: bool
    share: float = 1.0

    @property
    def name(self) -> str:
        """For people, and different for each."""
        drawn = "" if self.share == 1 else f" (a share of {self.share:g})"
        verb = "trained on" if self.training else "scored"
        return f"{self.task}: {self.split} rows {self.language}, {verb}{drawn}"


@dataclass(frozen=True)
class Lengths:
    """How many of a use's rows lose tokens of their prompts, and how many cannot be used at all.

    `first` has the places of the first ones that are cut, `refused` those of the first that cannot
    be used, each with the reason.
    """

    rows: Count
    cut: Count = 0
    first: tuple[str, ...] = ()
    unusable: Count = 0
    refused: tuple[tuple[str, str], ...] = ()


def measure(
    spec: Spec, root: Path, inputs: Inputs, steps: Iterable[Step], memory: Path, encode: Encode
) -> dict[Use, Lengths]:
    """What these steps will find of the rows that they train on or score. Raises InputError."""
    known = read_record(memory) or {}
    found, texts = dict[Use, Lengths](), dict[Use, list[tuple[str, Text]]]()
    keys = dict[Use, str]()
    for use, base in uses(spec, steps).items():
        facts = inputs.splits[use.task, use.language, use.split]
        limit, reserve = limits(spec, use)
        if not inputs.manner.is_chat and facts.longest + reserve + SPECIAL_TOKENS <= limit:
            found[use] = Lengths(facts.rows)
            continue
        task = spec.tasks[use.task]
        said = inputs.manner.settings(spec.base.template)
        stamp = stamp_of(task, root, use.language, use.split)
        settings = [COUNTING, base, said, limit, reserve, task.mode, spec.training.seed]
        keys[use] = digest([*settings, task.source(use.language, use.split), facts.digest, stamp])
        entry = fitting(_Memory, known.get(use.name))
        if entry and entry.key == keys[use]:
            found[use] = entry.lengths
        else:
            texts[use] = _texts(spec, root, use, is_chat=inputs.manner.is_chat)
    if texts:
        found |= _counted(texts, encode)
        memories = {use.name: asdict(_Memory(keys[use], found[use])) for use in texts}
        with suppress(OSError):  # a full disk, or a project that may only be read
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_record(memory, {**known, **memories})
    return found


@dataclass(frozen=True)
class _Memory:
    key: str
    lengths: Lengths


def uses(spec: Spec, steps: Iterable[Step]) -> dict[Use, str]:
    """What the steps do with which rows, and the base model that they do it with."""
    found = {}
    for step in steps:
        base = step.inputs.get("base", "")
        if step.kind == "evaluate":
            found[Use(step.task, step.language, step.split, training=False)] = base
        elif step.kind == "train" and not spec.training.is_commanded:  # which counts by itself
            trunk = spec.training.trunk if step.address.role == TRUNK else 1.0
            share = trunk if isinstance(trunk, float) else 1.0
            trained = [one.removeprefix(ROWS) for one in step.rows if one.startswith(ROWS)]
            for language in trained:
                found[Use(step.task, language, "train", training=True, share=share)] = base
            for language in step.languages:  # for the loss on dev
                found[Use(step.task, language, "dev", training=True)] = base
    return found


def limits(spec: Spec, use: Use) -> tuple[int, int]:
    """The tokens that a row may have, and those of them that are kept for what is written."""
    if use.training:
        return spec.training.max_length, 0
    task = spec.tasks[use.task]
    settings = task.evaluation(spec.evaluation, use.split)
    writes = task.mode == "text" or settings.free
    return settings.max_length, settings.max_new_tokens if writes else 0


def warnings(found: Mapping[Use, Lengths]) -> list[str]:
    """What is worth a word, and stops nobody."""
    return [
        f"{use.name}: {one.cut} of {one.rows} prompts are too long and lose tokens from their "
        f"middle, first {', '.join(one.first)}; see {_setting(use)}"
        for use, one in found.items()
        if one.cut
    ]


def refuse(found: Mapping[Use, Lengths]) -> None:
    """Raise an InputError for the rows of each use that cannot be used."""
    errors = [
        InputError(
            f"{one.unusable} of {one.rows} cannot be used: "
            + ", ".join(f"{where} ({why})" for where, why in one.refused)
            + _more(one.unusable - len(one.refused)),
            where=f"{use.name}:",
            remedy=f"raise {_setting(use)}, or shorten or leave out these rows",
        )
        for use, one in found.items()
        if one.unusable
    ]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)


def _more(number: int) -> str:
    return f" and {number} more" if number else ""


def _setting(use: Use) -> str:
    return f"{'training' if use.training else 'evaluation'}.max_length"


def _texts(spec: Spec, root: Path, use: Use, *, is_chat: bool) -> list[tuple[str, Text]]:
    """The texts of a use, each with the place of its row."""
    task = spec.tasks[use.task]
    placed = placed_examples(task, root, use.language, use.split, is_chat=is_chat)
    if use.share != 1:
        drawn = set(draw([one for _, one in placed], use.share, spec.training.seed))
        placed = [(where, one) for where, one in placed if one in drawn]
    limit, reserve = limits(spec, use)
    return [(where, _text(one, use, limit, reserve)) for where, one in placed]


def _text(one: Example, use: Use, limit: int, reserve: int) -> Text:
    if use.training:  # a text that is written must learn where to end
        return Text(one.prompt, [one.target], one.turns, limit, end=not one.options)
    further = AFTER_A_LABEL if reserve and one.options else 0
    return Text(one.prompt, one.options, one.turns, limit, reserve=reserve, further=further)


def _counted(
    texts: Mapping[Use, Sequence[tuple[str, Text]]], encode: Encode
) -> Iterator[tuple[Use, Lengths]]:
    said = iter(encode([text for some in texts.values() for _, text in some]))
    for use, some in texts.items():
        places = [(where, next(said)) for where, _ in some]
        cut = [where for where, one in places if one == CUT]
        refused = [(where, one) for where, one in places if one not in (FITS, CUT)]
        lengths = Lengths(len(some), len(cut), tuple(cut[:SHOWN]), len(refused))
        yield use, replace(lengths, refused=tuple(refused[:SHOWN]))

"""What a project's data files hold now: digests, sizes and findings, remembered between runs.

A file is read again only when its size, times or inode changed, or its task or koinize did, so that
a plan over hundreds of files takes milliseconds. Losing the memory costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from koinize import __version__
from koinize.data import SPLITS, Row, read_rows, refuse_leaks
from koinize.digest import digest
from koinize.errors import InputError, ManyErrors, StepError
from koinize.model.manner import PLAIN, Manner
from koinize.spec import Spec
from koinize.store.record import read_record, write_record
from koinize.store.typed import Count, fitting
from koinize.tasks import Example, Task

Place = tuple[str, str]  # language, split

READING = 3
"""Raised by whoever changes what rows are read as, or what is found between them: what is
remembered was found by the code, too."""


@dataclass(frozen=True)
class SplitFacts:
    """One split of one language of one task.

    `digest` is that of its examples, so it changes with the rows, the prompt or the verbalizers,
    and with nothing else. `bytes` are those that a model reads and writes, `longest` the most that
    one example has of them in one pass.
    """

    digest: str
    rows: Count
    bytes: Count
    longest: Count


@dataclass(frozen=True)
class Inputs:
    """Every split by (task, language, split), and what the checks found worth a warning."""

    splits: dict[tuple[str, str, str], SplitFacts]
    findings: tuple[str, ...]
    manner: Manner = PLAIN
    """How the base model is given texts."""


def survey(spec: Spec, root: Path, memory: Path, manner: Manner = PLAIN) -> Inputs:
    """Read what changed, check it, remember it.

    Raises InputError or ManyErrors for missing files, bad rows, labels outside the set, empty
    splits and leaks, over all tasks at once.
    """
    known = read_record(memory) or {}
    used: dict[str, Any] = {}  # what today's specification does not ask for is forgotten
    splits: dict[tuple[str, str, str], SplitFacts] = {}
    findings: list[str] = []
    errors = _Collected()
    for name in spec.tasks:
        with errors:
            facts, found = _survey_task(spec, name, root, manner, known, used)
            splits.update({(name, *place): one for place, one in facts.items()})
            findings.extend(f"{name}: {one}" for one in found)
    errors.refuse()
    if used != known:
        with suppress(OSError):  # a full disk, or a project that may only be read
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_record(memory, used)
    return Inputs(splits, tuple(findings), manner)


class _Memory(TypedDict):
    """What is remembered of a split."""

    stamp: list[int | str]
    facts: SplitFacts
    content: str


def damaged(spec: Spec, root: Path, memory: Path, manner: Manner = PLAIN) -> list[str]:
    """The sources whose rows are not the remembered ones, although size and times say so.

    Reads all of them; what is bad input now is damaged too.
    """
    known = read_record(memory) or {}
    found = []
    for name, task in spec.tasks.items():
        for place, source in _sources(spec, task):
            entry = fitting(_Memory, known.get(_key(name, source, place)))
            if entry and entry["stamp"] == [_meaning(task, manner), *_stamp(root / source)]:
                try:
                    same = _content(read_rows(source, root)) == entry["content"]
                except InputError:
                    same = False
                found += [] if same else [source]
    return found


def _key(name: str, source: str, place: Place) -> str:
    """Under which a split is remembered."""
    return " ".join([name, source, *place])


def _meaning(task: Task, manner: Manner) -> str:
    """Digest of what turns rows into examples."""
    return digest([READING, __version__, manner.is_chat, task.model_dump(mode="json")])


def _content(rows: Iterable[Row]) -> str:
    return digest([[row.where, row.columns] for row in rows])


class _Collected:
    """Gathers the input errors of several `with` blocks, to raise them together."""

    def __init__(self) -> None:
        self.errors: list[InputError] = []

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ManyErrors):
            self.errors.extend(error.errors)
        elif isinstance(error, InputError):
            self.errors.append(error)
        return isinstance(error, InputError)

    def refuse(self) -> None:
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ManyErrors(self.errors)


def _survey_task(
    spec: Spec,
    name: str,
    root: Path,
    manner: Manner,
    known: dict[str, Any],
    used: dict[str, Any],
) -> tuple[dict[Place, SplitFacts], list[str]]:
    task = spec.tasks[name]
    meaning = _meaning(task, manner)
    contents: dict[Place, str] = {}
    fresh: dict[Place, list[Row]] = {}
    facts: dict[Place, SplitFacts] = {}
    errors = _Collected()
    for place, source in _sources(spec, task):
        stamp = [meaning, *_stamp(root / source)]
        key = _key(name, source, place)
        entry = fitting(_Memory, known.get(key))
        if entry and len(stamp) > 1 and entry["stamp"] == stamp:
            facts[place], contents[place] = entry["facts"], entry["content"]
            used[key] = known[key]
            continue
        with errors:
            rows = fresh[place] = read_rows(source, root)
            contents[place] = _content(rows)
            facts[place] = _facts(_seen(task, rows, place[0], manner.is_chat))
            used[key] = {
                "stamp": stamp,
                "facts": asdict(facts[place]),
                "content": contents[place],
            }
    errors.refuse()
    # Findings depend on more than the examples: on the column `key`, and on where the rows stand.
    whole = digest([meaning, [[*place, one] for place, one in contents.items()]])
    findings = fitting(list[str], known.get(whole))
    used[whole] = _findings(spec, task, root, fresh) if findings is None else findings
    return facts, used[whole]


def _findings(spec: Spec, task: Task, root: Path, fresh: dict[Place, list[Row]]) -> list[str]:
    """What is suspicious between the splits. Raises ManyErrors for leaks."""
    rows = {
        place: fresh.get(place) or read_rows(source, root) for place, source in _sources(spec, task)
    }
    findings = task.check(rows)
    refuse_leaks(findings)
    return [str(one) for one in findings]


def _sources(spec: Spec, task: Task) -> Iterator[tuple[Place, str]]:
    for language in spec.languages:
        for split in SPLITS:
            yield (language, split), task.source(language, split)


def _stamp(path: Path) -> list[int]:
    """What changes when a file does; nothing for what is no file, such as a hub data set."""
    try:
        status = path.stat()
    except OSError:
        return []
    # The last is no one's to set: it moves also where a copy or an unpacking keeps the other times.
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _facts(examples: Sequence[Example]) -> SplitFacts:
    return SplitFacts(
        split_digest(examples),
        len(examples),
        sum(one.bytes for one in examples),
        max(one.longest for one in examples),
    )


def examples_of(
    task: Task,
    root: Path,
    language: str,
    split: str,
    expected: str | None,
    *,
    is_chat: bool = False,
) -> list[Example]:
    """The examples of a split, as they were surveyed: `expected` is their digest, None if it does
    not matter, and `is_chat` whether the base model has a chat template. Raises StepError for any
    others.
    """
    source = task.source(language, split)
    examples = _seen(task, read_rows(source, root), language, is_chat)
    if expected is not None and split_digest(examples) != expected:
        raise StepError("changed while it was read", where=source, remedy="run again")
    return examples


def placed_examples(
    task: Task, root: Path, language: str, split: str, *, is_chat: bool
) -> list[tuple[str, Example]]:
    """The same, each with the place of its row ("file:line")."""
    rows = read_rows(task.source(language, split), root)
    return [(row.where, one) for row in rows for one in _seen(task, [row], language, is_chat)]


def stamp_of(task: Task, root: Path, language: str, split: str) -> list[int]:
    """What changes when the file of a split does."""
    return _stamp(root / task.source(language, split))


def _seen(task: Task, rows: Sequence[Row], language: str, is_chat: bool) -> list[Example]:
    """The examples as the base model sees them: without a chat template there are no roles."""
    examples = task.examples(rows, language)
    return examples if is_chat else [replace(one, turns=()) for one in examples]


def split_digest(examples: Iterable[Example]) -> str:
    """Digest of the examples of a split, in whatever order."""
    return digest(sorted(one.digest for one in examples))

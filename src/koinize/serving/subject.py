"""What should be served, and the prompts that it is asked about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from koinize.adapter import files_digest, read_header
from koinize.data import Row, read_rows
from koinize.errors import InputError, did_you_mean
from koinize.ledger.address import System
from koinize.model.base import BaseSpec, prepare, user_cache
from koinize.pipeline import Project
from koinize.pipeline.inputs import examples_of
from koinize.pipeline.results import Results, refuse_missing
from koinize.release import Releases, task_of, version_of
from koinize.tasks import Example, Task

MOST_OTHERS = 3
"""Releases besides, the newest, that a server may still be serving."""


@dataclass(frozen=True)
class Subject:
    """An adapter that should be served, and rows to ask about, by language.

    `others` are adapters that a server may be serving in its place. `max_length`: a prompt of more
    tokens was cut in training, and is not asked. `root` is what a relative base starts from.
    """

    title: str
    adapter: Path
    base: BaseSpec
    root: Path
    examples: Mapping[str, Sequence[Example]]
    max_length: int
    others: Mapping[str, Path] = field(default_factory=dict)


class _Prompts(Task):
    """Rows that are asked, whatever should be answered."""

    mode: ClassVar[Literal["options", "text"]] = "text"
    kind: str = "prompts"
    metrics: tuple[str, ...] = ("exact_match",)

    def example(self, row: Row, language: str, key: str) -> Example:
        """Raises InputError for a row without prompt and messages."""
        return Example(key, language, self._prompt(row, language), target="")

    def describe(self) -> str:
        """The task in one line."""
        return "prompts"


def of_folders(
    adapter: Path, base: str, rows: Mapping[str, Path], *, others: Mapping[str, Path] | None = None
) -> Subject:
    """An adapter's folder, its base model (as `base.model` of koinize.yaml), and rows by language,
    each with `prompt` or `messages`. Raises InputError.
    """
    read_header(adapter)
    examples = {
        language: _Prompts().examples(read_rows(str(path), Path()), language)
        for language, path in rows.items()
    }
    spec = BaseSpec(model=base, dtype="auto")
    different = dict(_different((others or {}).items(), adapter))
    return Subject(str(adapter), adapter, spec, Path(), examples, 2**31, different)


def of_project(
    project: Project,
    *,
    task: str | None = None,
    release: str | None = None,
    channel: str = "production",
    system: str | None = None,
    adapter: Path | None = None,
    split: str = "dev",
) -> Subject:
    """What a project released: `release`, or what `channel` points to; or what it made: the
    candidate called `system`; or an adapter's folder. Raises InputError.
    """
    name = task_of(project, task)
    title, folder, base = _adapter(project, name, release, channel, system, adapter)
    read_header(folder)
    prepare(base, project.root, user_cache())  # with it comes its chat template
    definition, spec = project.spec.tasks[name], project.spec
    examples = {
        one: examples_of(definition, project.root, one, split, None, is_chat=project.manner.is_chat)
        for one in spec.languages
    }
    others = _others(Releases(project.home, name), folder)
    max_length = spec.evaluation.max_length
    return Subject(title, folder, base, project.root, examples, max_length, others)


def _adapter(
    project: Project,
    task: str,
    release: str | None,
    channel: str,
    system: str | None,
    adapter: Path | None,
) -> tuple[str, Path, BaseSpec]:
    if sum(one is not None for one in (release, system, adapter)) > 1:
        raise InputError("the adapter is named twice", expected="a release, a system or a folder")
    if adapter is not None:
        return str(adapter), adapter, project.spec.base
    if system is not None:
        return _made(project, task, system)
    releases = Releases(project.home, task)
    version = version_of(release) if release else releases.channel(channel).current
    if version is None:
        raise InputError(
            f"nothing is in use in {channel} of task '{task}'",
            remedy="promote a release, or name another adapter with --release, --system or "
            "--adapter",
        )
    found = releases.open(version)
    base = BaseSpec.model_validate(found.record["settings"]["base"])
    return f"release {found.name} of {task}", found.folder, base


def _made(project: Project, task: str, title: str) -> tuple[str, Path, BaseSpec]:
    """A candidate of the choice on dev, by the name that the report has for it."""
    results = Results(project, task)
    systems: dict[str, System] = {one.title: one for one in results.choice().uses.candidates}
    if title not in systems:
        raise InputError(f"there is no system '{title}'", remedy=did_you_mean(title, systems))
    step = results.made(systems[title])
    refuse_missing(project, [step], f"system '{title}' was not made")
    return f"{title} of {task}", results.open(step).folder, project.spec.base


def _others(releases: Releases, folder: Path) -> dict[str, Path]:
    """The newest releases besides; a broken one explains nothing, and stops nobody."""
    versions = reversed(releases.versions())
    found = ((f"release v{one}", releases.folder / f"v{one}") for one in versions)
    whole = ((name, one) for name, one in found if _is_adapter(one))
    return dict(islice(_different(whole, folder), MOST_OTHERS))


def _is_adapter(folder: Path) -> bool:
    with suppress(InputError):
        read_header(folder)
        return True
    return False


def _different(others: Iterable[tuple[str, Path]], adapter: Path) -> Iterator[tuple[str, Path]]:
    """Those whose files are not the adapter's, nor those of another one before: the same files
    under two names could not be told apart. Raises InputError for what is no adapter.
    """
    seen = {files_digest(adapter)}
    for name, folder in others:
        read_header(folder)
        digest = files_digest(folder)
        if digest not in seen:
            seen.add(digest)
            yield name, folder

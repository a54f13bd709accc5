"""Languages come, change and go: what `koinize language` does, for whoever calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from koinize.pipeline import Project
from koinize.pipeline.editing import Change, edit_spec, forget_trunks, still_held
from koinize.pipeline.generation import require_own_trunk
from koinize.spec.edit import add_language, remove_language, update_language
from koinize.spec.splice import Value


def add(file: Path, language: str, sources: Mapping[str, Value], *, write: bool) -> Change:
    """Add a language; `sources` maps tasks to where its rows stand, where no template says so."""
    return edit_spec(file, lambda text: add_language(text, language, sources), write=write)


def update(file: Path, language: str, sources: Mapping[str, Value], *, write: bool) -> Change:
    """Point a language at other data."""
    return edit_spec(file, lambda text: update_language(text, language, sources), write=write)


def remove(
    project: Project, language: str, *, exact: bool, write: bool
) -> tuple[Change, Mapping[str, int]]:
    """Remove a language; by task, how many of its rows the frozen trunk was trained on.

    `exact` begins a new generation, whose trunk never saw it.
    """
    if exact:
        require_own_trunk(project.spec, "--exact")
    held = still_held(project, language)
    done = edit_spec(
        project.file,
        lambda text: remove_language(text, language),
        write=write,
        new_generation=exact,
    )
    return (forget_trunks(done) if exact and write else done), held

"""`koinize language`: koinize.yaml or a data file as it would be, checked whole, then written.

Nothing is written unless the file loads, every row of every task can be read, and the plan can be
made; each file is replaced in one rename, holding the project's lock.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path

from koinize.data import SPLITS, Row, is_by_line, read_rows, refuse
from koinize.errors import InputError
from koinize.ledger.address import TRUNK
from koinize.pipeline.generation import ROWS
from koinize.pipeline.plan import Plan
from koinize.pipeline.project import Project
from koinize.pipeline.run import locked
from koinize.spec import Spec, load
from koinize.spec.edit import Edit, require_language
from koinize.spec.splice import YamlText
from koinize.store import write_atomically
from koinize.store.home import FOLDER
from koinize.tasks import Task

BOM = "\ufeff"


@dataclass(frozen=True)
class Change:
    """What was changed, in words and as a diff, and the project after it.

    `plan` is None where rows were to be added but nothing was written: what a file would hold has
    no plan before it holds it.
    """

    changes: tuple[str, ...]
    diff: str
    project: Project
    plan: Plan | None


def edit_spec(
    file: Path,
    edit: Callable[[YamlText], Edit],
    *,
    write: bool,
    new_generation: bool = False,
) -> Change:
    """Edit koinize.yaml. The plan after it may be that of a new generation.

    Raises InputError, and changes nothing, when the file is wrong before or after the edit, and
    when data are missing or bad after it.
    """
    load(file)  # before anything is written beside it
    with ExitStack() as stack:
        if write:
            stack.enter_context(locked(file.parent / FOLDER))
        before = file.read_bytes().decode("utf-8")
        mark = BOM if before.startswith(BOM) else ""
        done = edit(YamlText(before.removeprefix(BOM), file.name))
        after = mark + done.file.text
        project = Project(file, _loaded(after, file.name), new_generation=new_generation)
        todo = project.plan()
        if write and after != before:
            _replace(file, after)
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    diff = unified_diff(old, new, fromfile=file.name, tofile=file.name)
    return Change(done.changes, "".join(diff), project, todo)


def still_held(project: Project, language: str) -> dict[str, int]:
    """Task -> the rows of this language that its frozen trunk was trained on, where there are any.

    Raises InputError for a project that cannot be planned.
    """
    label, present = f"{ROWS}{language}", project.store.ids()
    return {
        step.task: step.rows[label]
        for step in project.steps
        if step.address.role == TRUNK and step.id in present and label in step.rows
    }


def forget_trunks(change: Change) -> Change:
    """Let a new generation begin: no name says any more which trunk stands."""
    project = change.project
    with locked(project.home):
        trunks = [step.name for step in project.steps if step.address.role == TRUNK]
        project.store.forget(trunks)
    begun = Project(project.file, project.spec)
    return replace(change, project=begun, plan=begun.plan())


def append_rows(file: Path, task: str, language: str, new: Path, *, write: bool) -> Change:
    """Add the rows of a file to the training rows of a language.

    Raises InputError, and changes nothing, for a row that makes no example, that is there already
    or answered otherwise there, and for one whose text or key stands in another split.
    """
    with ExitStack() as stack:
        if write:
            stack.enter_context(locked(file.parent / FOLDER))
        project = Project.at(file)
        require_language(YamlText(file.read_text("utf-8-sig"), file.name), language)
        _ = project.inputs  # what is wrong already is told first
        source = project.spec.tasks[task].source(language, "train")
        target = _appendable(project.root, source)
        rows = read_rows(str(new), Path.cwd())
        _refuse_rows(project.spec, project.root, target, rows, str(new))
        lines = [json.dumps(dict(row.columns), ensure_ascii=False) + "\n" for row in rows]
        if write:
            held = target.read_bytes().decode("utf-8")
            end = "" if held.endswith("\n") or not held else "\n"
            _replace(target, held + end + "".join(lines))
            project = Project(file, project.spec)
    diff = f"--- {source}\n+++ {source}\n" + "".join(f"+{line}" for line in lines)
    changes = (f"{source}: {len(rows)} rows added",)
    return Change(changes, diff, project, project.plan() if write else None)


def _loaded(text: str, name: str) -> Spec:
    """The specification in this text; the places in messages are those of a file of that name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text.encode("utf-8"))
        return load(path)


def _replace(path: Path, text: str) -> None:
    """Replace a file in one rename; a link stays one, and who may read it stays."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o777
    write_atomically(target, text)
    target.chmod(mode)


def _appendable(root: Path, source: str) -> Path:
    target = root / source
    with suppress(OSError, UnicodeDecodeError):
        if source.lower().endswith(".jsonl") and is_by_line(target.read_text("utf-8")):
            return target
    raise InputError(
        "rows can only be added to a .jsonl file in UTF-8 with one object per line",
        where=source,
        remedy="change it there; `koinize plan` sees that by itself",
    )


def _refuse_rows(spec: Spec, root: Path, target: Path, new: Sequence[Row], name: str) -> None:
    """Refuse rows that any task or language that reads this file could not take."""
    ours = {row.where for row in new}
    errors: list[InputError] = []
    for task in spec.tasks.values():
        rows = {}
        for place, source in _sources(spec, task):
            rows[place] = read_rows(source, root)
            if (root / source).resolve() == target.resolve():
                task.examples(new, place[0])
                rows[place] = [*rows[place], *new]
        errors += [
            InputError(str(one), remedy=f"remove it from {name}")
            for one in task.check(rows)
            if one.where in ours or one.other in ours
        ]
    refuse(list({str(error): error for error in errors}.values()))


def _sources(spec: Spec, task: Task) -> Iterator[tuple[tuple[str, str], str]]:
    for language in spec.languages:
        for split in SPLITS:
            yield (language, split), task.source(language, split)

"""Languages come and go: the edits of `koinize language` as changes to the text of koinize.yaml.

What is returned is text and not yet a file, so whoever calls can check the data before writing it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from koinize.data import SPLITS
from koinize.errors import InputError, did_you_mean
from koinize.spec.document import Loc, dotted
from koinize.spec.shape import LANGUAGE, PATTERNS
from koinize.spec.splice import Value, YamlText
from koinize.tasks import Task

TEMPLATE: str = Task.model_fields["data"].default


@dataclass(frozen=True)
class Edit:
    """The file as it would be, and what changed in it, in words."""

    file: YamlText
    changes: tuple[str, ...] = ()

    def then(self, file: YamlText, change: str) -> Edit:
        """One more change."""
        return Edit(file, tuple(dict.fromkeys((*self.changes, change))))


def add_language(file: YamlText, language: str, sources: Mapping[str, Value]) -> Edit:
    """Add a language; `sources` maps tasks to where its rows stand (see `point_language`).

    Raises InputError for what is no language code, and for a language that is there already.
    """
    if not re.fullmatch(LANGUAGE, language):
        raise InputError(f"'{language}' is no language", expected=PATTERNS[LANGUAGE])
    if language in file.values["languages"]:
        remedy = f"`koinize language update {language}` changes its data"
        raise InputError(
            f"'{language}' is one of its languages already", where=file.name, remedy=remedy
        )
    edit = Edit(file.append(("languages",), language), (f"languages: {language} added",))
    return _pointed(edit, language, sources)


def remove_language(file: YamlText, language: str) -> Edit:
    """Remove a language and all that the file says of it.

    Raises InputError for an unknown language, and for the last one.
    """
    known = languages(file)
    require_language(file, language)
    if len(known) == 1:
        raise InputError(
            f"'{language}' is the only language",
            where=file.name,
            remedy="add another one first, or delete the project's folder",
        )
    edit = Edit(file.remove(("languages", known.index(language))))
    edit = Edit(edit.file, (f"languages: {language} removed",))
    while path := next(_places(edit.file.values, language), None):
        edit = edit.then(edit.file.remove(path), f"{dotted(path)} removed")
    for task in file.values["tasks"]:
        edit = _folded(edit, task)
    return edit


def update_language(file: YamlText, language: str, sources: Mapping[str, Value]) -> Edit:
    """Point a language at other data. Raises InputError for an unknown language."""
    require_language(file, language)
    edit = _pointed(Edit(file), language, sources)
    for task in sources:
        edit = _folded(edit, task)
    return edit


def languages(file: YamlText) -> list[str]:
    """The languages in the order of the file."""
    return [str(one) for one in file.values["languages"]]


def require_language(file: YamlText, language: str) -> None:
    """Raise InputError, with the nearest one, unless the file has this language."""
    if language not in (known := languages(file)):
        what = f"there is no language '{language}'"
        raise InputError(what, where=file.name, remedy=did_you_mean(language, known))


def _pointed(edit: Edit, language: str, sources: Mapping[str, Value]) -> Edit:
    """With other places for the rows of a language.

    A place is a template with {split}, or a mapping of splits. Where a task has one template for
    all languages, it is spelled out for each, unless it means that very place.
    """
    for task, source in sources.items():
        path: Loc = ("tasks", task, "data")
        change = f"{dotted((*path, language))}: {_shown(source)}"
        block = edit.file.values["tasks"][task]
        if "<<" in block and "data" not in block:
            what = f"'{dotted(path)}' may come from elsewhere by '<<'"
            raise InputError(what, where=edit.file.name, remedy="edit it by hand")
        present = block.get("data", TEMPLATE)
        if isinstance(present, str):
            if _same_place(present, source, language):
                continue
            edit = Edit(_spelled_out(edit.file, task, language), edit.changes)
            present = edit.file.values["tasks"][task]["data"]
        others = [one for one, place in present.items() if isinstance(place, str)]
        like = edit.file.raw((*path, others[-1]))[:1] if others else ""
        if language not in present:
            edit = edit.then(edit.file.put(path, language, source, like=like), change)
        elif present[language] != source:
            edit = edit.then(edit.file.replace((*path, language), source, like=like), change)
    return edit


def _spelled_out(file: YamlText, task: str, added: str) -> YamlText:
    """One template for all languages -> the same for each of those that had it."""
    path: Loc = ("tasks", task, "data")
    had = [one for one in languages(file) if one != added] if added else languages(file)
    if "data" in file.values["tasks"][task]:
        raw = file.raw(path)
        raw = raw if "\n" not in raw else json.dumps(file.values["tasks"][task]["data"])
    else:
        raw = json.dumps(TEMPLATE)
        file = file.put(path[:-1], "data", TEMPLATE)
    return file.spell_out(path, dict.fromkeys(had, raw))


def _folded(edit: Edit, task: str) -> Edit:
    """A template that every language spells out alike is one template again."""
    path: Loc = ("tasks", task, "data")
    block = edit.file.values["tasks"].get(task, {})
    spelled = block.get("data")
    if not isinstance(spelled, dict) or edit.file.has_comments(path):
        return edit
    templates = {one if isinstance(one, str) else "" for one in spelled.values()}
    alike = len(templates) == 1 and "{language}" in next(iter(templates))
    if not alike:
        return edit
    raws = {edit.file.raw((*path, language)) for language in spelled}
    raw = min(raws)
    if raw[0] in "*&":
        return edit  # an anchor may be used elsewhere
    change = f"{dotted(path)}: {next(iter(templates))} for every language"
    if raws == {json.dumps(TEMPLATE)} and list(block)[-1] == "data":
        return edit.then(edit.file.remove(path), change)
    return edit.then(edit.file.fold(path, raw), change)


def _same_place(template: str, source: Value, language: str) -> bool:
    """Whether a template of all languages means this place for this one."""
    of_language = template.replace("{language}", language)
    if isinstance(source, str):
        return of_language == source.replace("{language}", language)
    return all(of_language.replace("{split}", split) == source.get(split) for split in SPLITS)


def _shown(source: Value) -> str:
    if isinstance(source, str):
        return source
    return ", ".join(f"{split} {path}" for split, path in source.items())


def _places(values: Mapping[str, Any], language: str) -> Iterator[Loc]:
    """The paths of the keys that speak of a language, wherever it may have something of its own."""
    for path in _mappings_of_languages(values):
        held: Any = values
        for step in path:
            held = held[step]
        # A label may be called like a language: of a language, verbalizers hold a mapping.
        is_label = path[-1] == "verbalizers" and not isinstance(held.get(language), dict)
        if language in held and not is_label:
            yield (*path, language)
        if "weights" in path:
            yield from ((*path, one) for one in held if one.endswith(f".{language}"))
    yield from _places_in_groups(values, language)


def _places_in_groups(values: Mapping[str, Any], language: str) -> Iterator[Loc]:
    """Where it is in a group of languages that are merged first: itself, or all that would be left
    empty.
    """
    for index, entry in enumerate(values.get("merge", {}).get("candidates", [])):
        groups = entry.get("groups", []) if isinstance(entry, dict) else []
        path: Loc = ("merge", "candidates", index, "groups")
        for number, group in enumerate(groups):
            theirs = [one for one in group if _speaks_of(one, language)]
            if theirs and len(group) > 1:
                yield (*path, number, group.index(theirs[0]))
            elif theirs:
                yield (*path, number) if len(groups) > 1 else path


def _speaks_of(part: str, language: str) -> bool:
    """Whether a weight or a group names this language, of all tasks or of one."""
    return part == language or part.endswith(f".{language}")


def _mappings_of_languages(values: Mapping[str, Any]) -> Iterator[Loc]:
    for path in _mappings(values, ()):
        match path:
            case ("lora", "overrides") | ("adapters", _):
                yield path
            case ("tasks", _, "data" | "prompt" | "verbalizers"):
                yield path
            case ("merge", "candidates", *rest) if "weights" in rest:
                yield path


def _mappings(value: object, path: Loc) -> Iterator[Loc]:
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from _mappings(inner, (*path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _mappings(inner, (*path, index))

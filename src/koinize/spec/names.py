"""Names in a `koinize.yaml` that have to agree with each other, or with a plug-in.

They are looked up in the file as it stands, not in a validated specification, so that a wrong name
is reported in the same pass as a wrong value elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from koinize.errors import InputError, did_you_mean, each
from koinize.metrics import JudgedMetric, metrics
from koinize.model.base import ModelSpec
from koinize.model.judge import JudgeSpec
from koinize.spec.document import Document, Loc, dotted
from koinize.tasks import Task, tasks

Found = Iterator[tuple[Loc, InputError]]


def disagreements(document: Document) -> Found:
    """Unknown or repeated names, and languages of which a task says too little."""
    blocks = _mapping(document.values.get("tasks"))
    yield from _unknown(document, "task", ("adapters",), blocks)
    listed = document.values.get("languages")
    languages = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    yield from _repeated(document, ("languages",), listed)
    across = _at(document, ("merge", "across"))
    yield from _across(document, across, blocks, languages)
    if languages:  # otherwise that is the mistake
        for path in _places_of_languages(document):
            yield from _unknown(document, "language", path, languages)
        noun, known = _parts(across, languages)
        for path in _places_of_weights(document):
            yield from _unknown(document, noun, path, known)
        yield from _unknown_in_groups(document, noun, known)
    for name, block in blocks.items():
        if _mapping(block).get("kind") in tasks.names():
            yield from _metrics(document, ("tasks", name), block, languages)
            yield from _words(document, ("tasks", name), block, languages)
            yield from _free(document, ("tasks", name), block)
    yield from _judges(document)


def _places_of_languages(document: Document) -> Iterator[Loc]:
    """The paths of the mappings whose keys are languages, but for weights."""
    yield "lora", "overrides"
    for task in _mapping(document.values.get("adapters")):
        yield "adapters", task


def _places_of_weights(document: Document) -> Iterator[Loc]:
    for path in document.places:
        if path[:2] == ("merge", "candidates") and "weights" in path:
            yield path


def _repeated(document: Document, path: Loc, listed: object) -> Found:
    items = listed if isinstance(listed, list) else []
    for index, one in enumerate(items):
        if isinstance(one, str) and one in items[:index]:
            place = (*path, index)
            what = f"{dotted(place)}: '{one}' stands twice"
            yield place, InputError(what, where=document.where(place), remedy="remove one")


def _unknown(document: Document, noun: str, path: Loc, known: Iterable[str]) -> Found:
    for key in _mapping(_at(document, path)):
        if key not in known:
            what = f"unknown {noun} '{key}' in {dotted(path)}"
            where = document.where((*path, key))
            yield (*path, key), InputError(what, where=where, remedy=did_you_mean(key, known))


def _parts(across: object, languages: list[str]) -> tuple[str, list[str]]:
    """What weights and groups may name, and what that is called: languages, and of a merge across
    tasks these, and one of these in one of those.
    """
    tasks = [one for one in across if isinstance(one, str)] if isinstance(across, list) else []
    if not tasks:
        return "language", languages
    both = [f"{task}.{language}" for task in tasks for language in languages]
    return "language or task", [*languages, *tasks, *both]


def _across(
    document: Document, across: object, tasks: Iterable[str], languages: Iterable[str]
) -> Found:
    """Tasks that shall share an adapter, and are none, or are called like a language."""
    yield from _repeated(document, ("merge", "across"), across)
    for index, name in enumerate(across if isinstance(across, list) else []):
        place = ("merge", "across", index)
        where = document.where(place)
        if isinstance(name, str) and name not in tasks:
            what = f"unknown task '{name}' in merge.across"
            yield place, InputError(what, where=where, remedy=did_you_mean(name, tasks))
        elif name in languages:
            what = f"merge.across: '{name}' is a language too, so a weight may mean either"
            yield place, InputError(what, where=where, remedy="give the task another name")


def _unknown_in_groups(document: Document, noun: str, known: Iterable[str]) -> Found:
    """Groups of a merge that name what there is not."""
    for path in document.places:
        match path:
            case ("merge", "candidates", _, "groups", int(), int()):
                name = _at(document, path)
                if isinstance(name, str) and name not in known:
                    what = f"unknown {noun} '{name}' in {dotted(path[:-1])}"
                    where, remedy = document.where(path), did_you_mean(name, known)
                    yield path, InputError(what, where=where, remedy=remedy)


def _metrics(
    document: Document, path: Loc, block: Mapping[str, Any], languages: list[str]
) -> Found:
    answered = tasks.get(block["kind"]).answered()
    listed = block.get("metrics")
    for index, name in enumerate(listed if isinstance(listed, list) else []):
        place = (*path, "metrics", index)
        if name not in metrics.names():
            what = f"{dotted(place)}: unknown metric '{name}'"
        elif metrics.get(name).reads not in answered:
            what = f"{dotted(place)}: '{name}' does not fit a task of kind '{block['kind']}'"
        else:
            own = metrics.get(name)
            given = _mapping(document.values.get("judges"))
            if isinstance(own, JudgedMetric) and name not in given:
                what = f"{dotted(place)}: '{name}' needs a model"
                needed = (f"{one}: ..." for one, default in own.asks.items() if default is None)
                keys = ", ".join(["model: FOLDER", *needed])
                remedy = f"name one under judges, such as `judges: {{{name}: {{{keys}}}}}`"
                yield place, InputError(what, where=document.where(place), remedy=remedy)
            if own.reads != "free" and (refused := own.refusal(languages)):
                what = f"{dotted(place)}: {refused}"
                yield place, InputError(what, where=document.where(place))
            continue
        fitting = [one for one in metrics.names() if metrics.get(one).reads in answered]
        remedy = did_you_mean(str(name), fitting)
        yield place, InputError(what, where=document.where(place), remedy=remedy)


def _free(document: Document, path: Loc, block: Mapping[str, Any]) -> Found:
    """Metrics of what the model writes freely, where it writes nothing."""
    try:
        task: Task = tasks.get(block["kind"]).model_validate(block)
    except ValidationError:
        return  # its mistakes are found where the whole is validated
    for index, name in enumerate(task.metrics):
        if name not in metrics.names() or metrics.get(name).reads != "free":
            continue
        if not task.writes:
            what, remedy = f"'{name}' reads what the model writes freely", "add `free: true`"
        elif index == 0:
            what = f"'{name}' cannot be the first: it chooses on dev, where nothing is written"
            remedy = "begin with a metric of the options, such as macro-f1"
        else:
            what = metrics.get(name).among(task.label_texts).refusal(())
            remedy = "take the metric out"
        if what:
            place = (*path, "metrics", index)
            what = f"{dotted(place)}: {what}"
            yield place, InputError(what, where=document.where(place), remedy=remedy)


def _judges(document: Document) -> Found:
    """Models of metrics that need none, or that lack what the metric asks."""
    for name, block in _mapping(document.values.get("judges")).items():
        place = ("judges", name)
        metric = metrics.get(name) if name in metrics.names() else None
        if metric is None:
            continue  # its mistake is found where the whole is validated
        if not isinstance(metric, JudgedMetric):
            judged = [one for one in metrics.names() if isinstance(metrics.get(one), JudgedMetric)]
            what, expected = f"judges: '{name}' needs no model", "one of: " + ", ".join(judged)
            yield place, InputError(what, where=document.where(place), expected=expected)
            continue
        given = _mapping(block)
        for key, default in metric.asks.items():
            if default is None and given.get(key) is None:
                what = f"judges.{name}: '{key}' is missing"
                yield place, InputError(what, where=document.where(place))
        for key in sorted({*given} & {*JudgeSpec.model_fields} - {*ModelSpec.model_fields}):
            if key not in metric.asks:
                what = f"judges.{name}: '{key}' is none of its settings"
                where = document.where((*place, key))
                yield (*place, key), InputError(what, where=where, remedy="remove it")


def _words(document: Document, path: Loc, block: Mapping[str, Any], languages: list[str]) -> Found:
    """What the task itself finds missing for one of the languages."""
    try:
        task: Task = tasks.get(block["kind"]).model_validate(block)
        task.check_languages(languages)
    except ValidationError:
        return  # its mistakes are found where the whole is validated
    except InputError as error:
        where = document.where(path)
        for one in each(error):
            what = f"{dotted(path)}: {one.what}"
            yield path, InputError(what, where=where, expected=one.expected, remedy=one.remedy)


def _at(document: Document, path: Loc) -> object:
    value: Any = document.values
    for step in path:
        value = value[step] if isinstance(step, int) else _mapping(value).get(step)
    return value


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

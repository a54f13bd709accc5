"""Everything that can be known to be wrong before the first tensor is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from koinize.adapter import AdapterHeader, read_header
from koinize.adapter.header import CONFIG_FILE
from koinize.errors import InputError, ManyErrors, did_you_mean
from koinize.merge.recipe import MergeSettings, matches

NAME = re.compile(r"[^|\s]([^|]*[^|\s])?")
EQUAL_MODULES = "modules_to_save that are equal, byte for byte, in all adapters"


def plan_merge(
    adapters: Mapping[str, Path | str], settings: MergeSettings
) -> dict[str, AdapterHeader]:
    """The headers of all adapters, sorted by language, after every check that needs no tensor."""
    headers, errors = _read(adapters)
    languages = sorted(adapters)
    errors += [
        *_unknown_languages(languages, settings),
        *filter(None, [_weight_error(languages, settings)]),
        *_override_errors(headers, languages, settings),
        *_rank_errors(headers, settings),
    ]
    _raise(errors)
    return headers


def read_headers(adapters: Mapping[str, Path | str]) -> dict[str, AdapterHeader]:
    """The headers of adapters of one base, sorted by language. Raises InputError or ManyErrors."""
    headers, errors = _read(adapters)
    _raise(errors)
    return headers


def _read(
    adapters: Mapping[str, Path | str],
) -> tuple[dict[str, AdapterHeader], list[InputError]]:
    if not adapters:
        raise InputError("there is no adapter", expected="at least one LANGUAGE=FOLDER")
    headers: dict[str, AdapterHeader] = {}
    errors: list[InputError] = []
    for language in sorted(adapters):
        try:
            _check_name(language)
            headers[language] = read_header(adapters[language])
        except InputError as error:
            errors.append(error)
    return headers, [*errors, *_mismatches(headers)]


def _check_name(language: str) -> None:
    """The card has a table of the languages. Raises InputError for a name that would break it."""
    if not NAME.fullmatch(language) or not language.isprintable():
        raise InputError(
            f"{language!r} cannot be the name of a language",
            expected="printable characters but '|', no spaces around them, such as de or zh_CN",
        )


def _raise(errors: list[InputError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)


def _unknown_languages(languages: list[str], settings: MergeSettings) -> Iterator[InputError]:
    """Weights, also those of overrides, for languages that have no adapter."""
    stated = [("", settings.weights)]
    for pattern, options in settings.overrides.items():
        stated.append((f"overrides['{pattern}']: ", options.get("weights", {})))
    for place, weights in stated:
        for language in weights:
            if language not in languages:
                yield InputError(
                    f"{place}there is a weight for '{language}' but no adapter",
                    remedy=did_you_mean(language, languages),
                )


def _weight_error(languages: list[str], settings: MergeSettings) -> InputError | None:
    """Why a merge with these weights would be nothing, or nothing that a number can say."""
    weights = [settings.weights.get(language, 1.0) for language in languages]
    if not any(weights):
        return InputError("all weights are 0", remedy="give at least one language a weight")
    cancelled = abs(sum(weights)) < 1e-9 * max(map(abs, weights))
    if settings.composition().combine == "mean" and cancelled:
        return InputError(
            "the weights sum to 0, and a mean divides by their sum",
            remedy="use recipe 'sum' for differences",
        )
    return None


def _mismatches(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """Adapters that are not of one base model, or not of one shape."""
    if not headers:
        return
    first_language, first = next(iter(headers.items()))
    yield from _saved_mismatches(headers)
    shapes: dict[str, tuple[str, tuple[int, int]]] = {}
    for language, header in headers.items():
        if (header.base_model, header.revision) != (first.base_model, first.revision):
            yield InputError(
                f"'{language}' adapts {_base(header)}, '{first_language}' adapts {_base(first)}",
                where=str(header.folder),
                expected="adapters of one base model",
                remedy=f"if the two are the same, make both {CONFIG_FILE} say so",
            )
        elif header.fan_in_fan_out != first.fan_in_fan_out:
            yield InputError(
                f"fan_in_fan_out differs between '{language}' and '{first_language}'",
                where=str(header.folder),
                expected="adapters of one base model",
            )
        for module in header.modules.values():
            shape = (module.outputs, module.inputs)
            owner, known = shapes.setdefault(module.name, (language, shape))
            if shape != known:
                yield InputError(
                    f"module '{module.name}' is {shape[0]} x {shape[1]} in '{language}' "
                    f"and {known[0]} x {known[1]} in '{owner}'",
                    where=str(header.folder),
                    expected="adapters of one base model",
                )
                break  # one module says it; the others would only repeat it


def _saved_mismatches(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """Whole modules that not all adapters have in one shape and dtype."""

    def layout(header: AdapterHeader) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {name: (spec.dtype, spec.shape) for name, spec in header.saved.items()}

    first_language, first = next(iter(headers.items()))
    for language, header in headers.items():
        one, other = layout(header), layout(first)
        if one.keys() != other.keys():
            name = min(one.keys() ^ other.keys())
            has, lacks = (first_language, language) if name in other else (language, first_language)
            yield InputError(
                f"'{has}' carries the whole module's tensor '{name}', '{lacks}' lacks it",
                where=str(headers[lacks].folder),
                expected=EQUAL_MODULES,
                remedy="merge adapters that were trained with the same modules_to_save",
            )
        elif one != other:
            name = min(name for name in one if one[name] != other[name])
            yield saved_conflict(name, language, first_language, header)


def saved_conflict(name: str, language: str, first: str, header: AdapterHeader) -> InputError:
    """The refusal of whole modules that differ."""
    return InputError(
        f"the whole module's tensor '{name}' differs between '{language}' and '{first}', and a "
        "merge of updates says nothing about it",
        where=str(header.folder),
        expected=EQUAL_MODULES,
        remedy="train the adapters without modules_to_save",
    )


def _base(header: AdapterHeader) -> str:
    name = header.base_model or "an unnamed base"
    return f"{name} at {header.revision}" if header.revision else name


def _override_errors(
    headers: Mapping[str, AdapterHeader], languages: list[str], settings: MergeSettings
) -> Iterator[InputError]:
    modules = sorted({name for header in headers.values() for name in header.modules})
    for pattern in settings.overrides:
        if modules and not any(matches(pattern, module) for module in modules):
            yield InputError(
                f"the override '{pattern}' matches no module",
                expected=f"a glob over names such as '{modules[0]}'",
            )
    for module in modules:
        try:
            local = settings.of_module(module)
        except InputError as error:
            yield error
            return  # one module says it; the others would only repeat it
        wrong = _weight_error(languages, local) if local.weights != settings.weights else None
        if wrong is not None:
            yield InputError(f"module '{module}': {wrong.what}", remedy=wrong.remedy)
            return


def _rank_errors(
    headers: Mapping[str, AdapterHeader], settings: MergeSettings
) -> Iterator[InputError]:
    if settings.composition().space != "factor":
        return
    first: dict[str, tuple[str, int]] = {}
    for language, header in headers.items():
        for module in header.modules.values():
            owner, rank = first.setdefault(module.name, (language, module.rank))
            if rank != module.rank:
                yield InputError(
                    f"module '{module.name}' has rank {module.rank} in '{language}' and {rank} in "
                    f"'{owner}', and space 'factor' adds up factors",
                    where=str(header.folder),
                    remedy="merge in space 'dense', 'knots' or 'core'",
                )
                return

"""Everything that can be known to be wrong before the first tensor is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from koinize.adapter import AdapterHeader, ModuleHeader, read_header
from koinize.adapter.config import CONFIG_FILE
from koinize.adapter.names import is_expert, one_naming, quantized_copy
from koinize.engine.naming import as_in_base
from koinize.errors import InputError, ManyErrors, did_you_mean
from koinize.merge.option import matches
from koinize.merge.recipe import MergeSettings
from koinize.merge.slots import COMBINES, NO_TRUNK, OTHER_SPACES, SPACES

NAME = re.compile(r"[^|\s]([^|]*[^|\s])?")
EQUAL_MODULES = "modules_to_save that are equal, byte for byte, in all adapters"
THE_TRUNK = "the trunk"  # what messages call it, where they call an adapter 'de'


@dataclass(frozen=True, slots=True)
class Inputs:
    """The headers of what a merge reads: adapters, sorted by language, and their trunk if any.

    groups: the languages of each that is merged first; none for a merge of all at once.
    """

    adapters: Mapping[str, AdapterHeader]
    trunk: AdapterHeader | None = None
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def modules(self) -> list[str]:
        """Every module that some adapter has, sorted. A trunk has no others."""
        return sorted({name for header in self.adapters.values() for name in header.modules})

    def of_module(self, name: str) -> list[ModuleHeader]:
        """The module in every adapter that has it."""
        headers = self.adapters.values()
        return [header.modules[name] for header in headers if name in header.modules]

    def trunk_rank(self, name: str) -> int:
        """The rank of the module in the trunk; 0 if it has none, or if there is no trunk."""
        found = self.trunk.modules.get(name) if self.trunk is not None else None
        return found.rank if found is not None else 0

    def largest_rank(self, name: str, settings: MergeSettings) -> int:
        """The most that the merge of a module may get."""
        present = self.of_module(name)
        # Each group, and then their merge, may have the trunk's factors beside its own.
        together = sum(module.rank for module in present)
        together += self.trunk_rank(name) * (1 + len(self.groups))
        side = min(present[0].outputs, present[0].inputs)
        return settings.of_module(name).largest_rank(together, side)


def plan_merge(
    adapters: Mapping[str, Path | str],
    settings: MergeSettings,
    trunk: Path | str | None = None,
) -> Inputs:
    """The headers of all adapters and the trunk, after every check that needs no tensor."""
    inputs, errors = _read(adapters, trunk)
    languages = sorted(adapters)
    inputs = replace(inputs, groups=settings.groups)
    errors += [
        *_group_errors(settings.groups, languages),
        *_unknown_languages(languages, settings, trunk is not None),
        *_weight_errors(inputs.groups or (tuple(languages),), settings),
        *_override_errors(inputs, languages, settings),
        *_rank_errors(inputs.adapters, settings),
    ]
    if trunk is not None and SPACES[settings.composition().space].apart:
        errors.append(InputError(NO_TRUNK, remedy=OTHER_SPACES))
    _raise(errors)
    return inputs


def read_inputs(adapters: Mapping[str, Path | str], trunk: Path | str | None = None) -> Inputs:
    """The headers of adapters of one base, and of their trunk. Raises InputError or ManyErrors."""
    inputs, errors = _read(adapters, trunk)
    _raise(errors)
    return inputs


def _read(
    adapters: Mapping[str, Path | str], trunk: Path | str | None
) -> tuple[Inputs, list[InputError]]:
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
    root = None
    if trunk is not None:
        try:
            root = read_header(trunk)
        except InputError as error:
            errors.append(error)
    named = {quoted(language): header for language, header in headers.items()}
    named = as_in_base(named if root is None else {**named, THE_TRUNK: root})
    named, doubtful = one_naming(named)
    errors += [*doubtful, *_mismatches(named)]
    headers = {language: named[quoted(language)] for language in headers}
    root = named.get(THE_TRUNK)
    errors += _no_branches(headers, root)
    return Inputs(headers, root), errors


def quoted(language: str) -> str:
    """What a message calls an adapter."""
    return f"'{language}'"


def _no_branches(
    headers: Mapping[str, AdapterHeader], trunk: AdapterHeader | None
) -> Iterator[InputError]:
    """Adapters that lack a module of the trunk: there they would take the trunk back."""
    if trunk is None:
        return
    for language, header in headers.items():
        if lacking := sorted(trunk.modules.keys() - header.modules.keys()):
            yield InputError(
                f"'{language}' lacks module '{lacking[0]}', which the trunk adapts",
                where=str(header.folder),
                expected="an adapter that was trained on from the trunk",
            )


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


def _group_errors(
    groups: tuple[tuple[str, ...], ...], languages: list[str]
) -> Iterator[InputError]:
    """Groups that are no division of the languages."""
    if not groups:
        return
    placed = [language for group in groups for language in group]
    for language in sorted({*placed, *languages}):
        if language not in languages:
            yield InputError(
                f"a group names '{language}', which has no adapter",
                remedy=did_you_mean(language, languages),
            )
        elif language not in placed:
            yield InputError(
                f"'{language}' is in no group",
                expected="each language in one group, which may be its own",
            )


def _unknown_languages(
    languages: list[str], settings: MergeSettings, has_trunk: bool
) -> Iterator[InputError]:
    """Weights, also those of overrides, for languages that have no adapter."""
    stated = [("", settings.weights)]
    for pattern, options in settings.overrides.items():
        stated.append((f"overrides['{pattern}']: ", options.get("weights", {})))
    for place, weights in stated:
        for language in weights:
            if language in languages:
                continue
            if has_trunk and language == "trunk":
                yield InputError(
                    f"{place}there is a weight for the trunk, which has none: it is added whole",
                    remedy="use scale, or the languages' weights, for what is added to it",
                )
            else:
                yield InputError(
                    f"{place}there is a weight for '{language}' but no adapter",
                    remedy=did_you_mean(language, languages),
                )


def _weight_errors(
    merged: Sequence[Sequence[str]], settings: MergeSettings
) -> Iterator[InputError]:
    """Why one of these merges would be nothing, or nothing that a number can say."""
    divides = COMBINES[settings.composition().combine].divides
    for languages in merged:
        weights = [settings.weights.get(language, 1.0) for language in languages]
        of = f" of group {'+'.join(languages)}" if len(merged) > 1 else ""
        if not any(weights):
            yield InputError(
                f"all weights{of} are 0",
                remedy=f"give at least one language{' of it' if of else ''} a weight",
            )
        elif divides and abs(sum(weights)) < 1e-9 * max(map(abs, weights)):
            yield InputError(
                f"the weights{of} sum to 0, and a mean divides by their sum",
                remedy="use recipe 'sum' for differences",
            )


def _mismatches(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """Adapters, by what a message calls them, that are not of one base model or of one shape."""
    if not headers:
        return
    first_name, first = next(iter(headers.items()))
    yield from _saved_mismatches(headers)
    yield from _other_parameters(headers)
    shapes: dict[str, tuple[str, tuple[int, int]]] = {}
    stating = next((one for one in headers.items() if one[1].revision), (first_name, first))
    for name, header in headers.items():
        if header.base_model != first.base_model:
            yield _other_base(name, header, first_name, first)
        elif header.revision and header.revision != stating[1].revision:  # null states nothing
            yield _other_base(name, header, *stating)
        for module in header.modules.values():
            shape = (module.outputs, module.inputs)
            owner, known = shapes.setdefault(module.name, (name, shape))
            if shape != known:
                yield InputError(
                    f"module '{module.name}' is {shape[0]} x {shape[1]} in {name} "
                    f"and {known[0]} x {known[1]} in {owner}",
                    where=str(header.folder),
                    expected="adapters of one base model",
                )
                break  # one module says it; the others would only repeat it


def _other_parameters(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """Adapters of experts that do not all name the same parameters, or name layers in their place.

    What a file calls a parameter's factors depends on which other ones are adapted beside it.
    """
    of_experts = [one for one in headers.items() if any(map(is_expert, one[1].modules))]
    for name, header in of_experts[1:]:
        first_name, first = of_experts[0]
        if header.parameters != first.parameters:
            yield InputError(
                f"{name} adapts the experts' {_named(header)}, {first_name} {_named(first)}",
                where=str(header.folder / CONFIG_FILE),
                expected="the same target_parameters in all adapters of experts",
                remedy="train them with the same ones, or leave the experts out",
            )


def _named(header: AdapterHeader) -> str:
    return f"parameters {', '.join(header.parameters)}" if header.parameters else "linear layers"


def _saved_mismatches(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """Whole modules that not all adapters have in one shape and dtype."""

    def layout(header: AdapterHeader) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {name: (spec.dtype, spec.shape) for name, spec in header.saved.items()}

    first_name, first = next(iter(headers.items()))
    for name, header in headers.items():
        one, other = layout(header), layout(first)
        if one.keys() != other.keys():
            tensor = min(one.keys() ^ other.keys())
            has, lacks = (first_name, name) if tensor in other else (name, first_name)
            yield InputError(
                f"{has} carries the whole module's tensor '{tensor}', {lacks} lacks it",
                where=str(headers[lacks].folder),
                expected=EQUAL_MODULES,
                remedy="merge adapters that were trained with the same modules_to_save",
            )
        elif one != other:
            tensor = min(tensor for tensor in one if one[tensor] != other[tensor])
            yield saved_conflict(tensor, name, first_name, header)


def saved_conflict(tensor: str, name: str, first: str, header: AdapterHeader) -> InputError:
    """The refusal of whole modules that differ."""
    return InputError(
        f"the whole module's tensor '{tensor}' differs between {name} and {first}, and a "
        "merge of updates says nothing about it",
        where=str(header.folder),
        expected=EQUAL_MODULES,
        remedy="train the adapters without modules_to_save",
    )


def _other_base(
    name: str, header: AdapterHeader, first_name: str, first: AdapterHeader
) -> InputError:
    return InputError(
        f"{name} adapts {_base(header)}, {first_name} adapts {_base(first)}",
        where=str(header.folder),
        expected="adapters of one base model",
        remedy=quantized_copy(header.base_model, first.base_model)
        or f"if the two are the same, make both {CONFIG_FILE} say so",
    )


def _base(header: AdapterHeader) -> str:
    name = header.base_model or "an unnamed base"
    return f"{name} at {header.revision}" if header.revision else name


def _override_errors(
    inputs: Inputs, languages: list[str], settings: MergeSettings
) -> Iterator[InputError]:
    modules = inputs.modules
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
        if local.weights == settings.weights:
            continue
        for wrong in _weight_errors(inputs.groups or (tuple(languages),), local):
            yield InputError(f"module '{module}': {wrong.what}", remedy=wrong.remedy)
            return


def _rank_errors(
    headers: Mapping[str, AdapterHeader], settings: MergeSettings
) -> Iterator[InputError]:
    if not SPACES[settings.composition().space].apart:
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
                    remedy=OTHER_SPACES,
                )
                return

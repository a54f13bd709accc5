"""One layer, one name: how training tools, PEFT and transformers call the same layer.

A name in a file is that of a module in the program which saved it: wrappers for training leave
their own parts in it, and transformers 4.52 moved the language model of its multimodal families.
Without the base model only a part of this can be known; `one_naming` refuses the rest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from koinize.adapter.config import CONFIG_FILE
from koinize.adapter.experts import is_part, owner
from koinize.adapter.header import AdapterHeader
from koinize.errors import InputError

# What transformers called layers before 4.52, and since. Of one adapter, all or none apply.
MOVED = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)
OLD, NEW = MOVED[0]
# Parts that say in which class a layer was loaded, and not which layer it is.
NEUTRAL = frozenset({"language_model", "llm", "model", "module", "text_model", "transformer"})
# Parts that transformers calls otherwise since its version 5.
SINCE = {"block_sparse_moe": "mlp", "embed_out": "lm_head"}
MOVED_NOTE = (
    "saved before transformers 4.52: its layers are called here as the others' are, "
    f"'{NEW}' for '{OLD}'"
)

EXPERT = re.compile(r"\.experts\.\d+\.")
QUANTIZED = re.compile(r"(?i)[-_](?:unsloth|bnb|[48]bit|int[48]|gptq|awq|fp8|nf4)\b")


def quantized_copy(*bases: str) -> str:
    """What to do where just one of these bases' names is that of a quantised copy; else empty."""
    copies = [base for base in bases if QUANTIZED.search(base)]
    if not copies or len(copies) == len(bases):
        return ""
    other = next(base for base in bases if base not in copies)
    return (
        f"if '{copies[0]}' is a quantised copy of '{other}', the adapter fits both: write "
        f"'{other}' as base_model_name_or_path into its {CONFIG_FILE}"
    )


def one_naming(
    headers: Mapping[str, AdapterHeader],
) -> tuple[dict[str, AdapterHeader], list[InputError]]:
    """The adapters, by what a message calls them, with one name for one layer; and what is unknown.

    An adapter from before 4.52 is renamed only where another one has the newer names: alone, its
    names are as good, and PEFT maps them when it loads.
    """
    found = dict(headers)
    if any(_named(header, NEW) for header in headers.values()):
        for adapter, header in headers.items():
            if _named(header, OLD) and not _named(header, NEW):
                found[adapter] = _renamed(header)
    return found, list(_doubtful(found))


def _named(header: AdapterHeader, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in header.modules)


def _renamed(header: AdapterHeader) -> AdapterHeader:
    modules = {}
    for name, module in header.modules.items():
        new = moved(name)
        modules[new] = replace(module, name=new)
    return replace(
        header,
        modules=dict(sorted(modules.items())),
        target_modules=None,  # which may spell the old names
        warnings=(*header.warnings, MOVED_NOTE),
    )


def moved(name: str) -> str:
    """What transformers calls a layer since 4.52 that had this name before."""
    for old, new in MOVED:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def renamed(header: AdapterHeader, names: Mapping[str, str]) -> AdapterHeader:
    """The adapter with its layers called by these names, which all of them have."""
    changed = min((old for old, new in names.items() if new != old), default=None)
    if changed is None:
        return header
    modules = {}
    for name, module in header.modules.items():
        new = names[owner(name)] + name.removeprefix(owner(name))
        modules[new] = replace(module, name=new)
    note = "its layers are called here as in today's base: "
    return replace(
        header,
        modules=dict(sorted(modules.items())),
        target_modules=None,  # which may spell the old names
        warnings=(*header.warnings, f"{note}'{names[changed]}' for '{changed}'"),
    )


def kind_of(name: str) -> tuple[str, ...]:
    """What names of one layer have in common, whatever it was moved into: its numbers, its kind."""
    *before, last = name.split(".")
    return (*(part for part in before if part.isdecimal()), SINCE.get(last, last))


def is_expert(module: str) -> bool:
    """Whether a module is one of a mixture's experts, which are numbered."""
    return EXPERT.search(module) is not None or is_part(module)


def named_as(header: AdapterHeader, layers: Iterable[str]) -> AdapterHeader:
    """The adapter with its layers called as a model of its base calls them.

    A name that the model does not have becomes that of the one layer which differs in nothing but
    the class that it was loaded in; where there is none or more than one, it stays.
    """
    known = set(layers)
    if {*map(owner, header.modules)} <= known:
        return header
    same = _by_layer(known)
    modules = {}
    for name, module in header.modules.items():
        place = owner(name)  # of an expert in a stack, the module that the experts are in
        candidates = [place] if place in known else same.get(_layer(place), [])
        new = candidates[0] + name.removeprefix(place) if len(candidates) == 1 else name
        modules[new] = replace(module, name=new)
    if len(modules) < len(header.modules):
        return header
    return replace(header, modules=dict(sorted(modules.items())), target_modules=None)


def _doubtful(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """One refusal for the adapters in which a layer seems to have two names."""
    known: dict[str, dict[str, str]] = defaultdict(dict)  # layer -> name -> the first that has it
    for adapter, header in headers.items():
        for layer, names in _by_layer(header.modules).items():
            for name in names:
                known[layer].setdefault(name, adapter)
    for found in known.values():
        # Two that one adapter has are two layers.
        if len(found) < 2 or any(found.keys() <= one.modules.keys() for one in headers.values()):
            continue
        (one, first), (other, second) = list(found.items())[:2]
        if _shape(headers[first], one) == _shape(headers[second], other):
            yield InputError(
                f"calls a layer '{other}' that may be '{one}' of {first}",
                where=str(headers[second].folder),
                expected="adapters that were saved from one model class",
                remedy="load it in PEFT on the base model as the others were, and save it again",
            )
            return  # one layer says it; the others would only repeat it


def _by_layer(modules: Iterable[str]) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = defaultdict(list)
    for name in modules:
        layers[_layer(name)].append(name)
    return layers


def _layer(name: str) -> str:
    return ".".join(SINCE.get(part, part) for part in name.split(".") if part not in NEUTRAL)


def _shape(header: AdapterHeader, name: str) -> tuple[int, int]:
    module = header.modules[name]
    return module.outputs, module.inputs

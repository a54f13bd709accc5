"""One layer by two names, in adapters whose base is known: read as transformers maps its names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from koinize.adapter import AdapterHeader
from koinize.adapter.experts import owner
from koinize.adapter.names import kind_of, renamed
from koinize.model.rehearsal import configured_in


def as_in_base(headers: Mapping[str, AdapterHeader]) -> dict[str, AdapterHeader]:
    """The adapters, by what a message calls them, with layers called as in today's base.

    That is asked only where two adapters have layers that may be one by two names, because it takes
    seconds; and they stay as they are where the base's configuration is not here, or where no class
    of the base has all of their layers. Never a tensor of the base is read.
    """
    found = dict(headers)
    if not _may_be_one(found):
        return found
    base = configured_in(next(iter(found.values())))
    if base is None:
        return found
    from koinize.model.checkpoint import names_in_model

    places = [{owner(module) for module in header.modules} for header in found.values()]
    names = names_in_model(base, places)
    if names is None:
        return found
    return {
        adapter: renamed(header, new)
        for (adapter, header), new in zip(found.items(), names, strict=True)
    }


def _may_be_one(headers: Mapping[str, AdapterHeader]) -> bool:
    """Whether layers of one number, kind and shape are called otherwise in another adapter."""
    known: dict[object, dict[str, set[str]]] = defaultdict(dict)
    for adapter, header in headers.items():
        for name, module in header.modules.items():
            kind = kind_of(name), module.outputs, module.inputs
            known[kind].setdefault(adapter, set()).add(name)
    return any(
        one - other and other - one
        for names in known.values()
        for one in names.values()
        for other in names.values()
    )

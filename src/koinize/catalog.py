"""Name -> object for every kind of plug-in: one file in one package, loaded on first use.

A plug-in called `macro-f1` is the file `macro_f1.py` in its kind's package, and the object is that
module's attribute of the kind's name. Listing names reads the folder and imports nothing, so
`koinize --help` and `koinize plan` stay free of torch. Files that begin with `_` are machinery.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Generic, TypeVar

from koinize.errors import InputError, did_you_mean

T = TypeVar("T")


class Catalog(Generic[T]):
    """All plug-ins of one kind, for example `Catalog[Metric]("koinize.metrics", "metric")`."""

    def __init__(self, package: str, attribute: str) -> None:
        self.package, self.attribute = package, attribute
        self.noun = package.rpartition(".")[2].removesuffix("s")

    def names(self) -> tuple[str, ...]:
        """Every known name, sorted."""
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        # Read once: a plan over many languages looks names up hundreds of times.
        spec = find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        modules = (module.name for module in iter_modules(folders or []))
        return tuple(sorted(name.replace("_", "-") for name in modules if name[0] != "_"))

    def get(self, name: str, *, where: str = "") -> T:
        """The plug-in of that name. Raises InputError, naming the nearest, for an unknown one."""
        if name not in self.names():
            raise InputError(
                f"unknown {self.noun} '{name}'",
                where=where,
                remedy=did_you_mean(name, self.names()),
            )
        module = import_module(f"{self.package}.{name.replace('-', '_')}")
        plugin: T = getattr(module, self.attribute)
        return plugin

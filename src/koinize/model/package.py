"""A base model that comes as an installed Python package."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from site import getsitepackages, getusersitepackages
from types import ModuleType

from koinize.errors import InputError

PACKAGE = "package:"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def shipped_file(model: str) -> Path | None:
    """The one .gguf file that an installed package ships; None where it has none.

    The package is not imported, so what else it needs need not be installed. Raises InputError for
    what names no package, and for one with several such files.
    """
    name = _name(model)
    spec = None if _is_near(name) else _spec(name)
    inside = Path(*name.split(".")[1:])
    files = sorted(
        file
        for place in (spec.submodule_search_locations or () if spec else ())
        for file in (Path(place) / inside).rglob("*.gguf")
    )
    if len(files) > 1:
        raise InputError(
            f"the package '{name}' ships {len(files)} .gguf files",
            where="base.model",
            expected="one",
            remedy=f"name the file that is meant, such as {files[0]}",
        )
    return files[0] if files else None


def package_of(model: str) -> ModuleType:
    """The module of an installed package. Nothing that lies beside the project is ever imported."""
    name = _name(model)
    try:
        if _is_near(name):
            raise ImportError(name)
        package = import_module(name)
    except ImportError as error:
        raise InputError(
            f"the package '{name}' is not installed",
            where="base.model",
            remedy=f"pip install {name.replace('_', '-')}",
        ) from error
    if not callable(getattr(package, "assemble", None)):
        raise InputError(
            f"the package '{name}' has no function 'assemble'",
            where="base.model",
            expected="a package that ships one .gguf file, or whose assemble(path) writes one",
        )
    return package


def _name(model: str) -> str:
    name = model.removeprefix(PACKAGE)
    if not NAME.fullmatch(name):
        what = f"'{model}' names no package"
        raise InputError(what, where="base.model", expected="package:NAME")
    return name


def _spec(name: str) -> ModuleSpec | None:
    """Where the outermost package of this name is; nothing of it is imported."""
    with suppress(ValueError):  # what is running has none
        return find_spec(name.partition(".")[0])
    return None


def _is_near(name: str) -> bool:
    """Whether the module comes from the folder that koinize was started in, or one below it.

    Python looks there first when it is started with -m or -c. What is installed may lie there, too.
    """
    spec = _spec(name)
    found = [Path(place).resolve() for place in _origins(spec)] if spec else []
    installed = [Path(place).resolve() for place in (*getsitepackages(), getusersitepackages())]
    near = [one for one in found if one.is_relative_to(Path.cwd())]
    return any(not any(one.is_relative_to(place) for place in installed) for one in near)


def _origins(spec: ModuleSpec) -> list[str]:
    places = list(spec.submodule_search_locations or ())
    return places or ([spec.origin] if spec.origin and spec.has_location else [])

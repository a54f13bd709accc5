"""Rows from a dataset of the Hugging Face hub, through `datasets` (extra `koinize[hub]`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from koinize.errors import InputError

PREFIX = "hf:"
SOURCE = re.compile(
    r"hf:(?P<path>[^:@#\s]+)(:(?P<name>[^:@#\s]+))?(@(?P<revision>[^:@#\s]+))?#(?P<split>[^#\s]+)"
)


def hub_rows(source: str) -> Iterable[Mapping[str, object]]:
    """The rows of `hf:owner/name[:config][@revision]#split`, by the hub's usual rules.

    `HF_HOME`, offline mode and access tokens work as `datasets` documents them; a dataset that
    needs code of its own to load is refused. Raises InputError.
    """
    match = SOURCE.fullmatch(source)
    if not match:
        raise InputError(
            "the name of this dataset cannot be read",
            where=source,
            expected="hf:owner/name[:config][@revision]#split",
        )
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise InputError(
            "reading from the hub needs the package datasets, which is not installed",
            where=source,
            remedy="pip install 'koinize[hub]'",
        ) from error
    if Path(match["path"]).exists():
        # `datasets` would read, and of some versions run, what lies there.
        what = f"'{match['path']}' is also a file or folder here"
        raise InputError(what, where=source, remedy="run koinize from another folder")
    if hasattr(datasets, "config"):
        datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # older versions ask on a terminal
    try:
        rows: Iterable[Mapping[str, object]] = datasets.load_dataset(**match.groupdict())
    except Exception as error:  # the library raises its own, the network's and the hub's
        raise InputError(
            f"the dataset cannot be loaded: {type(error).__name__}: {_first_line(error)}",
            where=source,
            remedy="check the name, the split and the network, or give a file",
        ) from error
    return rows


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".")

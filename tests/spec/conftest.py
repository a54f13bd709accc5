"""A small specification to spoil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.spec import load

GOOD = """\
koinize: 1
name: small
base: {model: base}
languages: [de, en]
tasks:
  mood: {kind: classify, labels: [good, bad], prompt: "{text}"}
"""
"""Six lines; what a test adds begins on line 7."""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[str | bytes], list[str]]:
    """The lines of the message with which a text is refused."""

    def refuse(text: str | bytes) -> list[str]:
        path = tmp_path / "koinize.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(InputError) as caught:
            load(path)
        return str(caught.value).splitlines()

    return refuse


@pytest.fixture
def loaded(tmp_path: Path):
    """The specification that a text stands for."""

    def read(text: str):
        path = tmp_path / "koinize.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read

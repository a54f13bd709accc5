"""Commands as a user types them, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from koinize.cli import main
from koinize.pipeline import project as projects
from tests.pipeline.conftest import Small

Call = Callable[..., tuple[int, str, str]]
"""Arguments -> exit code, output, errors."""


@pytest.fixture
def koinize(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["koinize", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


@pytest.fixture
def call(small: Small, koinize: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in the small project's folder; no base model is looked for."""
    monkeypatch.chdir(small.root)
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    return koinize

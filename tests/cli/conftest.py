"""Commands as a user types them, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.cli import main
from koinize.ledger import Ledger
from koinize.pipeline import project as projects
from tests.pipeline.conftest import Small

Call = Callable[..., tuple[int, str, str]]
"""Arguments -> exit code, output, errors."""
MADE = {"run": "r1", "step": "s", "kind": "train", "artifact": "", "device": "d", "share": "1"}


def work(ledger: Ledger, number: int) -> None:
    """An interval of so many seconds: two records."""
    ledger.start(f"r1-{number}", price={}, **MADE)
    ledger.end(f"r1-{number}", status="done", seconds=Decimal(number))


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


@pytest.fixture
def worked(tmp_path: Path) -> Ledger:
    """The ledger of a project with one interval, whose koinize.yaml is broken."""
    (tmp_path / "koinize.yaml").write_text("a broken file: [")
    ledger = Ledger(tmp_path / ".koinize" / "ledger.jsonl")
    work(ledger, 1)
    return ledger


@pytest.fixture
def of_ledger(tmp_path: Path, koinize: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`koinize ledger` in that project's folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: koinize("ledger", *arguments)

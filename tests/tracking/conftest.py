"""A small project with 400 test rows a language, whose run is not done yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinize.pipeline import project as projects
from tests.cli.conftest import koinize  # noqa: F401 - a fixture
from tests.pipeline.conftest import Small
from tests.release.releasing import prepared


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    return prepared(tmp_path / "small")

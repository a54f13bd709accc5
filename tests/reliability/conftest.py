"""Projects to be disturbed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pipeline.conftest import SPEC, Small
from tests.reliability.arena import Arena


def write_project(folder: Path) -> None:
    """A small project in which nothing was run."""
    folder.mkdir()
    small = Small(folder)
    small.spec(SPEC.replace("[paper]", "[ties, knots-ties]").replace("[1.0, 2.0]", "[1.0]"))
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "model.safetensors").write_bytes(b"weights")


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project in which nothing was run; not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "new"
    write_project(folder)
    return folder


@pytest.fixture(scope="session")
def finished_project(fake: Arena, new_project: Path) -> Path:
    """The same, finished; not to be changed."""
    folder = Path(shutil.copytree(new_project, new_project.with_name("finished")))
    ended = fake.koinize("run", cwd=folder)
    assert ended.code == 0, ended.output
    return folder


@pytest.fixture
def new(new_project: Path, tmp_path: Path) -> Path:
    """A copy to work in."""
    return Path(shutil.copytree(new_project, tmp_path / "project"))


@pytest.fixture
def finished(finished_project: Path, tmp_path: Path) -> Path:
    """A finished copy to work in."""
    return Path(shutil.copytree(finished_project, tmp_path / "project"))

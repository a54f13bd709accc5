"""Releases from Python: what a server follows, and what is written for the tools of others."""

from __future__ import annotations

from pathlib import Path

import pytest

import koinize
from tests.release.releasing import ONE_MERGE, finish, prepared, retrain
from tests.serving.conftest import kit  # noqa: F401 - a fixture
from tests.serving.lying import Loading, serving


@pytest.fixture
def project(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> koinize.Project:  # fmt: skip
    """`older` is v1 and in use; `mine` is the candidate, and as good."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):  # a check sets them
        monkeypatch.setenv(name, "1")
    small = prepared(tmp_path)
    small.spec(ONE_MERGE.replace("{model: base}", f"{{model: {kit / 'base'}, dtype: float32}}"))
    finish(small, merged=kit / "older")
    project = koinize.Project.open(tmp_path)
    assert project.promote().switched
    retrain(small, "de", 6)
    finish(small, merged=kit / "mine")
    return project


@pytest.mark.slow
def test_a_server_follows_and_a_release_is_exported(
    project: koinize.Project, kit: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    folder = (tmp_path / ".koinize" / "releases" / "mood").resolve()
    first, second = (str(folder / one) for one in ("v1", "v2"))
    server = Loading(kit / "base", first)
    server.folders = {"ours": first}
    with serving(server) as url:
        assert project.promote(serve=koinize.Server(url, model="ours")).switched
        assert server.folders == {"ours": second}
        assert project.rollback(serve=koinize.Server(url, model="ours")).version == 1
        assert server.folders == {"ours": first}
        server.serves = lambda name, folder: None
        with pytest.raises(koinize.GateError, match="serves the base model"):
            project.promote(serve=url)
    current = project.release()
    assert current is not None
    assert current.version == 1
    done = project.export("v2", tmp_path / "out", to="peft")
    assert done.record["release"] == "v2"
    (copied,) = done.out.rglob("adapter_model.safetensors")
    assert copied.read_bytes() == (kit / "mine" / copied.name).read_bytes()
    tasks = project.export_tasks(tmp_path / "tasks")
    assert {"release v1", "release v2"} <= tasks.commands.keys()


@pytest.mark.slow
def test_what_cannot_be_served_or_written(
    project: koinize.Project, kit: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    with serving(Loading(kit / "base", kit / "older")) as url:
        pass
    with pytest.raises(koinize.InputError, match="cannot be reached"):
        project.promote(serve=url)
    with pytest.raises(koinize.InputError, match="there is no release v7"):
        project.export("v7", tmp_path / "out", to="peft")
    assert not (tmp_path / "out").exists()

"""`koinize promote --serve`: the server first, then the channel, and neither without the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.pipeline.conftest import Small
from tests.release.releasing import ONE_MERGE, finish, prepared, releases, retrain
from tests.serving.conftest import kit  # noqa: F401 - a fixture
from tests.serving.lying import Loading, serving


@pytest.fixture
def small(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:  # noqa: F811
    """`older` is v1, in use and served; `mine` is the candidate, and as good."""
    found = prepared(tmp_path)
    found.spec(ONE_MERGE.replace("{model: base}", f"{{model: {kit / 'base'}, dtype: float32}}"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):  # a check sets them
        monkeypatch.setenv(name, "1")
    return found


def candidate(small: Small, koinize: Call, kit: Path) -> Loading:  # noqa: F811
    finish(small, merged=kit / "older")
    assert koinize("promote")[0] == 0
    retrain(small, "de", 6)
    finish(small, merged=kit / "mine")
    return Loading(kit / "base", releases(small).folder.resolve() / "v1")


def in_use(small: Small) -> int | None:
    return releases(small).channel("production").current


def folder(small: Small, version: str) -> str:
    return str(releases(small).folder.resolve() / version)


@pytest.mark.slow
def test_the_server_follows_and_goes_back(
    koinize: Call, small: Small, kit: Path  # noqa: F811
) -> None:  # fmt: skip
    server = candidate(small, koinize, kit)
    with serving(server) as url:
        code, out, err = koinize("promote", "--serve", url)
        assert code == 0, err
        assert out.splitlines()[-2:] == [
            f"{url} serves it as 'mood'",
            "mood: production is now v2, .koinize/releases/mood/v2",
        ]
        assert "asking 'mood-v2' by tokens: 1 of 4" in err
        assert server.folders == {"mood": folder(small, "v2")}
        # Again: it is in use, and the server that was started anew gets it.
        server.load({"lora_name": "mood", "lora_path": folder(small, "v1"), "load_inplace": True})
        code, out, _ = koinize("promote", "--serve", f"{url}?key=secret", "--json")
        told = json.loads(out)
        assert (code, told["served"], told["switched"]) == (0, url, False)
        assert server.folders == {"mood": folder(small, "v2")}
        code, out, _ = koinize("rollback", "--serve", url)
        assert (code, out) == (0, "mood: production is v1 again, no longer v2\n")
    assert (in_use(small), server.folders) == (1, {"mood": folder(small, "v1")})


@pytest.mark.slow
def test_a_server_that_lies_leaves_the_channel_where_it_is(
    koinize: Call, small: Small, kit: Path  # noqa: F811
) -> None:  # fmt: skip
    server = candidate(small, koinize, kit)
    server.serves = lambda name, folder: None if name == "mood" else folder
    with serving(server) as url:
        code, out, err = koinize("promote", "--serve", url)
    assert (code, out) == (3, "")
    assert err.splitlines()[-1] == (
        f"koinize: {url} as 'mood' serves the base model: the adapter changes nothing; 'mood' has "
        f"{folder(small, 'v1')} again, and nothing was promoted or rolled back"
    )
    assert (in_use(small), server.folders) == (1, {"mood": folder(small, "v1")})


@pytest.mark.slow
def test_a_candidate_that_the_gate_refuses_is_never_loaded(
    koinize: Call, small: Small, kit: Path  # noqa: F811
) -> None:  # fmt: skip
    server = candidate(small, koinize, kit)
    retrain(small, "de", 7)
    finish(small, {"de": 40}, merged=kit / "mine")
    with serving(server) as url:
        assert koinize("promote", "--serve", url)[0] == 3
    assert (in_use(small), server.words) == (1, [])


@pytest.mark.slow
def test_a_server_that_is_not_there_costs_no_attempt(
    koinize: Call, small: Small, kit: Path  # noqa: F811
) -> None:  # fmt: skip
    with serving(candidate(small, koinize, kit)) as url:
        pass
    code, _, err = koinize("promote", "--serve", url)
    assert code == 2
    assert err.startswith(f"koinize: {url}/models cannot be reached: Connection refused; start the")
    assert json.loads(koinize("history", "--json")[1])["attempts"] == []
    assert in_use(small) == 1


@pytest.mark.slow
def test_a_server_that_is_lost_is_exit_code_1(
    koinize: Call, small: Small, kit: Path  # noqa: F811
) -> None:  # fmt: skip
    server = candidate(small, koinize, kit)
    server.dies = 2
    with serving(server) as url:
        code, _, err = koinize("promote", "--serve", url)
    assert code == 1
    assert f"'mood' could not be given {folder(small, 'v1')} again" in err
    assert in_use(small) == 1


def test_a_name_without_a_server(koinize: Call, small: Small) -> None:
    assert koinize("promote", "--model", "mood") == (
        2,
        "",
        "koinize: --model is what a server calls the adapter; expected --serve URL, too\n",
    )

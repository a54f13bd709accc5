"""`koinize check-serving` as a user meets it: exit codes, one message each, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from koinize.cli import application
from tests.cli.conftest import Call
from tests.serving.conftest import kit  # noqa: F401 - a fixture
from tests.serving.lying import Honest, Lies, serving

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")


def given(folder: Path) -> list[str]:
    adapter, base, rows = folder / "mine", folder / "base", folder / "en.jsonl"
    return [
        "--adapter", str(adapter), "--base", str(base), "--rows", f"en={rows}", "--prompts", "6",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_server_that_serves_the_adapter(koinize: Call, kit: Path) -> None:  # noqa: F811
    with serving(Honest(kit / "base", kit / "mine")) as url:
        code, out, err = koinize("check-serving", url, "--model", "mine", *given(kit))
    assert code == 0
    assert out.splitlines()[-1] == "serves the adapter"
    assert "loading the base model: 0 of 1\n" in err


@pytest.mark.slow
def test_a_server_that_does_not(koinize: Call, kit: Path) -> None:  # noqa: F811
    with serving(Honest(kit / "base", kit / "mine", Lies(scale=0.0))) as url:
        code, out, err = koinize("check-serving", url, "--model", "mine", "--json", *given(kit))
    said = "serves the base model: the adapter changes nothing"
    assert (code, err) == (3, f"koinize: {url} as 'mine' {said}\n")
    told = json.loads(out)
    assert (told["right"], told["verdict"], told["owned_by"]) == (False, said, "tests")
    assert [one["asked_by"] for one in told["findings"]] == ["tokens", "text"]
    assert told["findings"][0]["first_divergence"]["language"] == "en"


def test_a_server_that_refuses_what_users_send(koinize: Call, kit: Path) -> None:  # noqa: F811
    class Mute(Honest):
        def answer(self, path, body):
            if isinstance(body["prompt"], str):
                return 400, {"error": {"message": "ids only, Bearer sk-secret-1"}}
            return super().answer(path, body)

    key = ["--api-key", "sk-secret-1"]
    with serving(Mute(kit / "base", kit / "mine")) as url:
        code, out, err = koinize(
            "check-serving", url, "--model", "mine", "--json", *key, *given(kit)
        )
    said = "serves the adapter, but refuses the prompts as users send them, by text, as 'mine'"
    assert (code, err) == (3, f"koinize: {url} as 'mine' {said}\n")
    told = json.loads(out)
    assert (told["right"], told["verdict"]) == (False, said)
    assert told["refused"] == [
        {"model": "mine", "asked_by": "text", "said": "ids only, Bearer ***"}
    ]


def test_a_model_that_it_does_not_list(koinize: Call, kit: Path) -> None:  # noqa: F811
    with serving(Honest(kit / "base", kit / "mine")) as url:
        code, out, err = koinize("check-serving", url, "--model", "min", *given(kit))
    assert (code, out) == (2, "")
    assert err == (
        f"koinize: {url} serves no model 'min'; expected one of 'mine', 'plain'; did you mean "
        "'mine'?\n"
    )


def test_a_model_that_it_does_not_know(koinize: Call, kit: Path) -> None:  # noqa: F811
    with serving(Honest(kit / "base", kit / "mine", Lies(lists=False))) as url:
        code, _, err = koinize("check-serving", url, "--model", "min", *given(kit))
    assert code == 2
    assert err.splitlines()[-1] == (
        f"koinize: {url} refuses to be asked as 'min': The model `min` does not exist."
    )


def test_a_server_without_log_probabilities(koinize: Call, kit: Path) -> None:  # noqa: F811
    with serving(Honest(kit / "base", kit / "mine", Lies(shy=99))) as url:
        code, _, err = koinize("check-serving", url, "--model", "mine", *given(kit))
    assert code == 2
    assert err.splitlines()[-1] == (
        f"koinize: {url} answers without log-probabilities; let the server give them: vLLM by "
        "--max-logprobs 20, Ollama since 0.12.11"
    )


def test_a_server_whose_tokens_are_unknown(koinize: Call, kit: Path) -> None:  # noqa: F811
    class Foreign(Honest):
        def told(self, ids, values, tokens, is_chat):
            return super().told(ids, values, [one + 260 for one in tokens], is_chat)

    honest = Foreign(kit / "base", kit / "mine")
    with serving(honest) as url:
        code, _, err = koinize("check-serving", url, "--model", "mine", *given(kit))
    assert code == 2
    assert "names tokens that the base model's tokenizer has after 0 of 6 prompts" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["localhost:8000", "--model", "a"],
            "'localhost:8000' is no address of a server; expected such as http://localhost:8000/v1",
        ),
        (
            ["http://localhost:1", "--model", "a", "--base", "b"],
            "without a project, --adapter, --base and --rows belong together; expected all three "
            "of them and no project, or a project and neither --base nor --rows",
        ),
        (
            ["http://localhost:1", "--model", "a", "--api-key", "a b"],
            "OPENAI_API_KEY or --api-key the key has characters that no key has; expected letters, "
            "digits and signs of ASCII, without spaces",
        ),
    ],
    ids=["address", "half", "key"],
)
def test_bad_arguments(koinize: Call, arguments: list[str], said: str) -> None:
    assert koinize("check-serving", *arguments) == (2, "", f"koinize: {said}\n")


def test_no_project_here(koinize: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = koinize("check-serving", "http://localhost:1", "--model", "a")
    assert code == 2
    assert "koinize.yaml" in err


def test_ctrl_c(koinize: Call, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("koinize.serving.check_serving", stopped)
    code, out, err = koinize("check-serving", "http://host", "--model", "mine", *given(kit))
    assert (code, out, err) == (130, "", "koinize: stopped; nothing was changed\n")


def commands() -> list[str]:
    """The commands of the page, each on one line."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [one.partition(" #")[0] for one in lines if one.startswith("koinize ")]


def test_the_page_has_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("line", commands())
def test_the_commands_of_the_page_are_commands(line: str) -> None:
    """Click takes every option and argument of them; nothing is run."""
    import shlex

    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(application()).commands[name]
    command.make_context(name, arguments, resilient_parsing=False)

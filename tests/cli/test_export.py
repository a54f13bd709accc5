"""`koinize export` as a user types it: exit codes, one message each, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.export.made import project_with
from tests.serving.conftest import kit  # noqa: F401 - a fixture


@pytest.fixture
def root(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A project with two releases, which the shell is in."""
    found = project_with(tmp_path / "p", kit / "base", kit / "older", kit / "mine").root
    monkeypatch.chdir(found)
    return found


def test_a_release_goes_to_a_tool(koinize: Call, root: Path) -> None:
    code, out, err = koinize("export", "production", "served", "--to", "vllm")
    assert (code, err) == (0, "")
    first, command, *_ = out.splitlines()
    assert first == "served: release v2 of mood, for vllm"
    assert command.startswith("vllm serve ")
    # The command's whole name, and options first.
    code, out, _ = koinize("export", "release", "--to", "peft", "--json", "v1", "out", str(root))
    told = json.loads(out)
    assert (code, told["out"], told["to"], told["release"]) == (0, "out", "peft", "v1")
    assert told["files"].keys() == {
        str(one.relative_to("out")) for one in Path("out").rglob("*") if one.is_file()
    } - {"export.json"}
    assert koinize("export", "--to", "peft", "v1", "again")[0] == 0


def test_an_export_that_exists(koinize: Call, root: Path) -> None:
    assert koinize("export", "v1", "data", "--to", "peft") == (
        2,
        "",
        f"koinize: {root}/data exists already; remove it or choose another name\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["v9", "out", "--to", "peft"],
            ".koinize/releases/mood there is no release v9 of task 'mood'; expected one of these: "
            "v1, v2",
        ),
        (["v1", "out", "--to", "onnx"], "there is no export to 'onnx'; choose one of: fused, gguf,"
         " peft, sglang, vllm"),
        (["v1", "out", "--to", "peft", "--task", "x"], "unknown task 'x'; choose one of: mood"),
    ],
)  # fmt: skip
def test_bad_words(koinize: Call, root: Path, words: list[str], said: str) -> None:
    assert koinize("export", *words) == (2, "", f"koinize: {said}\n")
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["export", "v1", "--to", "peft"],
        ["export", "lm-eval"],
        ["export", "card", "v1", "--license=mit", "--base-model=b"],
        ["merge", "de=a", "en=b", "--recipe=sum", "-o"],
        ["resize", "a", "1", "-o"],
        ["fuse", "a", "b", "-o"],
        ["import", "merge.yml", "-o"],
    ],
)
def test_nothing_is_written_among_what_koinize_keeps(
    koinize: Call, root: Path, words: list[str]
) -> None:
    out = ".koinize/releases/mood/v3"
    said = (
        f"koinize: {out} lies in .koinize, where koinize keeps its own files; choose another place"
    )
    assert koinize(*words, out) == (2, "", f"{said}\n")
    assert not Path(out).exists()


def test_a_mistyped_command_is_no_release(koinize: Call, root: Path) -> None:
    code, out, err = koinize("export", "prometeus", "x.prom")
    assert (code, out) == (2, "")
    assert "No such command 'prometeus'. Did you mean 'prometheus'?" in err


def test_where_no_folder_is(koinize: Call, root: Path) -> None:
    code, out, err = koinize("export", "prometheus", "gone/x.prom")
    assert (code, out) == (2, "")
    assert err.startswith("koinize: gone")
    assert ".part" not in err


def test_fusing_shows_how_far_it_is(koinize: Call, root: Path) -> None:
    code, out, err = koinize("export", "v1", "out", "--to", "fused")
    assert code == 0
    assert "14/14 modules" in err
    assert "14 tensors compared with the base and the adapter" in out


def test_ctrl_c(koinize: Call, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("koinize.export.folder.fuse_adapter", stopped)
    code, out, err = koinize("export", "v1", "out", "--to", "fused")
    assert (code, out, err) == (130, "", "koinize: stopped; nothing was written\n")
    assert sorted(one.name for one in root.iterdir()) == [".koinize", "data", "koinize.yaml"]


def test_test_rows_for_lm_evaluation_harness(koinize: Call, root: Path) -> None:
    code, out, _ = koinize("export", "lm-eval", "tasks")
    assert code == 0
    first, *_, title, command = out.splitlines()
    assert first == "tasks: 6 rows in de, en"
    assert title == "# release v2"
    assert command.startswith("lm_eval run --model hf --model_args pretrained=")
    assert command.endswith(f" --include_path {root}/tasks --tasks koinize_mood")
    told = json.loads(koinize("export", "lm-eval", "again", "--json")[1])
    assert (told["out"], told["rows"], told["rows_with_other_tokens"]) == ("again", 6, 0)
    assert list(told["commands"]) == ["BASE", "release v1", "release v2"]

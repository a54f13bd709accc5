"""docs/coming-from.md: each command on it, typed as it stands, and its Python."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Call, koinize  # noqa: F401 - a fixture
from tests.peft_folders import deltas, save

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^koinize .+$", TEXT, re.MULTILINE)


def block(kind: str) -> str:
    return re.search(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "adapters").mkdir()
    for seed, name in enumerate(("de", "en", "trunk"), start=1):
        save(tmp_path / "adapters" / name, seed)
    (tmp_path / "merge.yml").write_text(block("yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_command_of_the_page(place: Path, koinize: Call) -> None:  # noqa: F811
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        code, out, err = koinize(*shlex.split(command, comments=True)[1:])
        assert (code, bool(out)) == (0, True), (command, err)
    same = (deltas(Path(one)) for one in ("merged", "again"))
    for one, other in zip(*(found.values() for found in same), strict=True):
        assert (one == other).all()


def test_the_python_of_the_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("python"), str(PAGE), "exec"), {})  # noqa: S102 - our own
    rank, error = capsys.readouterr().out.split()
    assert (int(rank), 0.0 < float(error) < 1.0) == (3, True)


def test_the_printed_command_does_what_out_does(place: Path, koinize: Call) -> None:  # noqa: F811
    (place / "merge.yml").write_text(
        "merge_method: ties\n"
        "base_model: base+adapters/trunk\n"
        "models:\n"
        "  - {model: base+adapters/de, parameters: {weight: [{filter: q_proj, value: 2},"
        " {value: 1}]}}\n"
        "  - {model: base+adapters/en, parameters: {weight: 1}}\n"
        "parameters: {density: [{filter: v_proj, value: 0.4}, {value: 0.5}], normalize: false}\n"
    )
    _, typed, _ = koinize("import", "merge.yml")
    assert koinize(*shlex.split(typed.replace(" OUT ", " typed "))[1:])[0] == 0
    code, out, _ = koinize("import", "merge.yml", "-o", "done", "--json")
    assert (code, json.loads(out)["out"]) == (0, "done")
    weights = [Path(one, "adapter_model.safetensors").read_bytes() for one in ("typed", "done")]
    assert weights[0] == weights[1]


def test_as_json(place: Path, koinize: Call) -> None:  # noqa: F811
    code, out, err = koinize("import", "merge.yml", "--json")
    found = json.loads(out)
    note = "dtype bfloat16 is of the written adapter; the arithmetic is float32"
    assert (code, err) == (0, f"note: {note}\n")
    assert found == {
        "command": [
            *("koinize", "merge", "de=adapters/de", "en=adapters/en", "-o", "OUT"),
            *("--recipe", "ties", "--density", "0.5", "--weight", "de=1.0", "--weight", "en=0.5"),
            *("--scale", "1.2", "--dtype", "bfloat16", "--dialect", "mergekit"),
        ],
        "adapters": {"de": "adapters/de", "en": "adapters/en"},
        "trunk": None,
        "settings": {
            "recipe": "ties",
            "density": 0.5,
            "weights": {"de": 1.0, "en": 0.5},
            "scale": 1.2,
            "dtype": "bfloat16",
            "dialect": "mergekit",
        },
        "notes": [note],
    }


def test_bad_input_is_one_message_a_key(place: Path, koinize: Call) -> None:  # noqa: F811
    assert koinize("import", "other.yml") == (
        2,
        "",
        "koinize: other.yml there is no such file; name a mergekit configuration\n",
    )
    (place / "merge.yml").write_text(block("yaml") + "slices: []\nchat_template: auto\n")
    code, _, err = koinize("import", "merge.yml")
    assert (code, err.count("\n")) == (2, 2)
    (place / "merge.yml").write_text(block("yaml"))
    code, _, err = koinize("import", "merge.yml", "--rank", "two")
    assert (code, err) == (
        2,
        "koinize: rank 'two' is not 'full', a number from 1, or a share between 0 and 1\n",
    )

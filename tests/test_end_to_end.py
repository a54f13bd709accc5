"""The whole pipeline as a user runs it: the tiny example, by the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving.lying import Honest, serving

pytestmark = pytest.mark.slow


def koinize(*arguments: str, cwd: Path, code: int = 0) -> str:
    command = [sys.executable, "-c", "from koinize.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def artifacts(project: Path) -> dict[str, dict[str, Any]]:
    """name -> manifest of what is current."""
    names = json.loads((project / ".koinize" / "names.json").read_text())
    folder = project / ".koinize" / "artifacts"
    return {
        name: json.loads((folder / one / "manifest.json").read_text())
        for name, one in names.items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    koinize("init", "--example", "tiny", "project", cwd=root)
    project = root / "project"
    koinize("run", cwd=project)
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, its times kept."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def test_a_second_run_does_nothing(project: Path) -> None:
    before = (project / ".koinize" / "ledger.jsonl").read_bytes()
    assert koinize("run", cwd=project).startswith("nothing to do;")
    assert (project / ".koinize" / "ledger.jsonl").read_bytes() == before
    assert "nothing is missing" in koinize("plan", cwd=project)


def test_training_learned_something(project: Path) -> None:
    results = json.loads(koinize("report", "--json", cwd=project))
    text = json.dumps(results)
    assert "COMB" in text
    assert "INDV" in text
    [train] = [m for n, m in artifacts(project).items() if n == "train/mood/comb"]
    losses = train["facts"]["losses"]
    assert losses[-1] < losses[0]


def test_editing_one_language_lists_one_training(project: Path) -> None:
    path = project / "data" / "ja.train.jsonl"
    path.write_text(path.read_text() + '{"text": "新しい 最高 素敵", "label": "good"}\n')
    plan = json.loads(koinize("plan", "--json", cwd=project))
    missing = {one["step"]: one["why"] for one in plan["missing"]}
    trained = {name for name in missing if name.startswith("train/")}
    assert trained == {"train/mood/ja"}
    everything = json.loads(koinize("plan", "--json", "--retrain-comb", cwd=project))
    assert "train/mood/comb" in {one["step"] for one in everything["missing"]}
    assert missing["train/mood/ja"] == "train rows ja changed, +1 rows"
    assert not [n for n in missing if "/BASE/" in n or "/INDV/de" in n or "/de only/" in n]
    before = artifacts(project)
    koinize("run", cwd=project)
    after = artifacts(project)
    for name in ("train/mood/de", "train/mood/en", "train/mood/comb"):
        assert after[name] == before[name]
    assert after["train/mood/ja"]["id"] != before["train/mood/ja"]["id"]


def test_a_rebuilt_project_has_the_same_bytes(project: Path, finished: Path) -> None:
    shutil.rmtree(project / ".koinize")
    koinize("run", cwd=project)
    first, second = artifacts(finished), artifacts(project)
    assert {n: m["id"] for n, m in first.items()} == {n: m["id"] for n, m in second.items()}
    for name, manifest in first.items():
        if name.startswith(("train/", "merge/")):
            weights = "adapter_model.safetensors"
            assert manifest["files"][weights] == second[name]["files"][weights], name


def test_the_merge_loads_in_peft_as_it_is(finished: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    chosen = artifacts(finished)["select/mood"]["facts"]["adapter"]
    folder = finished / ".koinize" / "artifacts" / chosen
    base = AutoModelForCausalLM.from_pretrained(finished / "base")
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        plain = base(ids).logits
        merged = PeftModel.from_pretrained(base, str(folder))(ids).logits
    assert torch.isfinite(merged).all()
    assert not torch.equal(plain, merged)


def test_a_flipped_bit_in_an_adapter_is_mended_by_training_it_again(project: Path) -> None:
    chosen = artifacts(project)["train/mood/de"]["id"]
    file = project / ".koinize" / "artifacts" / chosen / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    text = (project / "koinize.yaml").read_text()
    (project / "koinize.yaml").write_text(text.replace("- knots-ties", "- knots-ties\n    - sum"))
    said = koinize("run", cwd=project)
    assert [line.split()[1] for line in said.splitlines() if "] train/" in line] == [
        "train/mood/de"
    ]
    assert file.read_bytes() == whole


def test_an_adapter_from_elsewhere_comes_in_by_path(project: Path) -> None:
    made = project / ".koinize" / "artifacts" / artifacts(project)["train/mood/de"]["id"]
    shutil.copytree(made, project / "from-elsewhere")
    text = (project / "koinize.yaml").read_text()
    (project / "koinize.yaml").write_text(text + "adapters: {mood: {de: from-elsewhere}}\n")
    plan = json.loads(koinize("plan", "--json", cwd=project))
    assert not [one for one in plan["missing"] if one["step"] == "train/mood/en"]
    assert [one for one in plan["missing"] if one["step"] == "train/mood/de"]
    koinize("run", cwd=project)


def test_an_adapter_of_another_base_is_refused(project: Path) -> None:
    made = project / ".koinize" / "artifacts" / artifacts(project)["train/mood/de"]["id"]
    elsewhere = project / "from-elsewhere"
    shutil.copytree(made, elsewhere)
    config = json.loads((elsewhere / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "someone/else-7B"
    (elsewhere / "adapter_config.json").write_text(json.dumps(config))
    text = (project / "koinize.yaml").read_text()
    (project / "koinize.yaml").write_text(text + "adapters: {mood: {de: from-elsewhere}}\n")
    message = koinize("plan", cwd=project, code=2)
    assert message == (
        "koinize: from-elsewhere was trained on 'someone/else-7B'; expected an adapter of "
        "'base', the project's base model; name that base in koinize.yaml, or train the adapter "
        "again\n"
    )


def test_scales_are_searched_on_dev_and_what_was_found_is_released(tmp_path: Path) -> None:
    koinize("init", "--example", "tiny", "project", cwd=tmp_path)
    project = tmp_path / "project"
    spec = project / "koinize.yaml"
    text = spec.read_text()
    merge = text[text.index("merge:") : text.index("price:")]
    searched = "merge: {candidates: [ties], scale: search}\nbaselines: [comb]\n"
    spec.write_text(text.replace(merge, searched))
    assert "a search goes on" in koinize("plan", cwd=project)
    assert json.loads(koinize("plan", "--json", cwd=project))["search_goes_on"]
    koinize("run", cwd=project)
    assert "nothing is missing" in koinize("plan", cwd=project)
    made = artifacts(project)
    [found] = [one["facts"] for one in made.values() if one["facts"].get("found")]
    results = json.loads(koinize("report", "--json", cwd=project))
    [note] = [one for one in results["notes"] if "macro-f1 on dev at scales" in one]
    assert f"scale {found['found']:g}" in note
    [candidate] = [one for one in results["tasks"][0]["systems"] if one["chosen"]]
    assert candidate["settings"].get("scale", 1.0) == found["found"]
    costs = results["tasks"][0]["costs"]
    looked = len(found["seen"])  # scales in three languages, all but the stated one a multiple
    again = 0 if found["found"] in {one["scale"] for one in found["seen"]} else 1
    assert costs["choosing"]["steps"] >= (looked - 1) + 3 * looked + again


def test_a_server_is_asked_what_it_serves(project: Path) -> None:
    names = json.loads((project / ".koinize" / "names.json").read_text())
    merge, other = (
        project / ".koinize" / "artifacts" / names[name]
        for name in ("merge/mood/ties density 1", "train/mood/comb")
    )
    asked = ("check-serving", "--model", "mine", "--system", "ties density 1")
    with serving(Honest(project / "base", merge)) as url:
        told = koinize(*asked, "--base-model", "plain", url, cwd=project)
    assert told.endswith("\nserves the adapter, and the base under its own name\n")
    assert "36 prompts in de, en, ja, of " in told
    with serving(Honest(project / "base", other)) as url:
        refused = koinize(*asked, url, cwd=project, code=3)
    assert "serves the adapter\n" not in refused

"""What is known to go wrong is said by `plan`: adapters from elsewhere, and the base's family."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.errors import InputError
from koinize.pipeline.kinds.imported import oddities
from tests.peft_folders import SHAPES, save

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def project(small, monkeypatch):
    """Of a pinned base from the hub, which is not here."""
    text = (small.root / "koinize.yaml").read_text()
    text = text.replace("{model: base}", f"{{model: acme/tiny, revision: {COMMIT}}}")
    small.spec(text + "adapters: {mood: {de: elsewhere}}\n")
    return small.project(monkeypatch)


def imported(project, **config):
    return save(project.root / "elsewhere", 1, base_model_name_or_path="acme/tiny", **config)


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_revision_that_is_not_stated_fits_a_pinned_base(project, revision):
    imported(project, revision=revision)
    assert any(step.kind == "import" for step in project.steps)


def test_another_revision_is_refused(project):
    folder = imported(project, revision="f" * 40)
    with pytest.raises(InputError) as caught:
        _ = project.steps
    assert str(caught.value) == (
        f"{folder} was trained on 'acme/tiny' at {'f' * 40}; expected an adapter of revision "
        f"{COMMIT}, which koinize.yaml names; name that revision in koinize.yaml, or train the "
        "adapter again"
    )


def test_the_name_of_a_quantised_base_leads_on(project):
    folder = imported(project)
    path = folder / "adapter_config.json"
    named = json.loads(path.read_text()) | {"base_model_name_or_path": "acme/tiny-bnb-4bit"}
    path.write_text(json.dumps(named))
    with pytest.raises(InputError, match="write 'acme/tiny' as base_model_name_or_path into its"):
        _ = project.steps


def test_a_family_that_does_not_go_the_whole_way(small, monkeypatch):
    (small.root / "base").mkdir()
    kind = {"model_type": "recurrent_gemma"}
    (small.root / "base" / "config.json").write_text(json.dumps(kind))
    project = small.project(monkeypatch)
    monkeypatch.setattr("koinize.model.base.prepared", lambda *_: small.root / "base")
    monkeypatch.setattr("koinize.pipeline.project.check_folder", lambda *_: None, raising=False)
    with pytest.raises(InputError, match="is of the family 'recurrent_gemma', which is not"):
        _ = project.steps


def test_an_adapter_that_was_never_trained_is_noticed(tmp_path):
    folder = save(tmp_path / "de", 1)
    assert list(oddities(folder)) == []
    path = folder / "adapter_model.safetensors"
    zeros = {name: torch.zeros_like(one) if "lora_B" in name else one
             for name, one in load_file(path).items()}  # fmt: skip
    assert len(zeros) == 2 * len(SHAPES)
    save_file(zeros, path)
    assert list(oddities(folder)) == [
        "changes nothing: every update is zero, so it was never trained"
    ]

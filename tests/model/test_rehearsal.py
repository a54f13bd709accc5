"""PEFT is asked whether it loads an adapter, whatever a stranger wrote into the two folders."""

import json

import pytest
from transformers import AutoConfig

from koinize.adapter import read_header
from koinize.errors import InputError
from koinize.model import rehearsal
from koinize.model.rehearsal import refused_by_peft
from tests.peft_folders import configured, save

SHAPES = {"model.layers.0.self_attn.q_proj": (32, 32), "model.layers.0.self_attn.v_proj": (32, 32)}


@pytest.fixture
def adapter(tmp_path):
    base = tmp_path / "base"
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    AutoConfig.for_model("llama", **shape, **heads).save_pretrained(base)
    folder = save(tmp_path / "de", 1, shapes=SHAPES, target_modules=["q_proj", "v_proj"])
    configured(folder, base_model_name_or_path=str(base))
    return folder


@pytest.mark.slow
def test_an_adapter_that_fits_and_one_whose_base_is_not_here(adapter):
    assert refused_by_peft(read_header(adapter)) == ""
    configured(adapter, base_model_name_or_path="nobody/knows-it")
    assert refused_by_peft(read_header(adapter)) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("target_modules", ".*(q_proj", "unterminated subpattern"),
        ("target_modules", 5, "'int' object"),
        ("lora_dropout", {"a": 1}, "'dict'"),
    ],
)
def test_what_makes_peft_stumble_is_a_mismatch(adapter, key, value, said):
    configured(adapter, **{key: value})
    assert said in refused_by_peft(read_header(adapter))


@pytest.mark.slow
def test_an_expression_that_takes_for_ever_is_given_up(adapter, monkeypatch):
    configured(adapter, target_modules="(.+)+!")
    monkeypatch.setattr(rehearsal, "SECONDS", 30.0)
    assert refused_by_peft(read_header(adapter)) == "it takes more than 30 s"


def test_a_base_of_endless_layers_is_not_made(adapter):
    path = adapter.parent / "base" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**9}))
    with pytest.raises(InputError, match="num_hidden_layers is 1000000000"):
        refused_by_peft(read_header(adapter))


@pytest.mark.slow
def test_a_configuration_that_is_none_leaves_it_open(adapter):
    (adapter.parent / "base" / "config.json").write_text(
        '{"model_type": "llama", "vocab_size": []}'
    )
    assert refused_by_peft(read_header(adapter)) is None

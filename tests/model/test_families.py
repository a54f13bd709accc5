"""Families that are known not to go the whole way are refused before anything is trained."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.errors import InputError
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.families import NO_TEXTS, REFUSED, refuse_family
from koinize.model.loaded import adopt


def base(folder, kind):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


def test_a_family_that_cannot_be_trained(tmp_path):
    with pytest.raises(InputError) as caught:
        refuse_family("base", base(tmp_path / "base", "recurrent_gemma"), texts=False)
    assert str(caught.value) == (
        "base.model 'base' is of the family 'recurrent_gemma', which is not supported: it changes "
        "its logits in a way that koinize does not know; choose another base model; "
        "docs/families.md lists what was tried"
    )


def test_a_family_that_cannot_write(tmp_path):
    spec = base(tmp_path / "base", "mamba")
    refuse_family("base", spec, texts=False)
    with pytest.raises(InputError, match="'mamba', whose texts cannot be written: it has no cache"):
        refuse_family("base", spec, texts=True)


@pytest.mark.parametrize("content", ['{"model_type": "llama"}', "{}", "no JSON", '["x"]'])
def test_what_is_not_known_may_be_any(tmp_path, content):
    spec = base(tmp_path / "base", "x")
    (tmp_path / "base" / "config.json").write_text(content)
    refuse_family("base", spec, texts=True)


def test_a_base_that_is_not_here_may_be_any():
    refuse_family("a/b", None, texts=True)


def test_whether_a_cache_is_shared_is_tried():
    """Attention's is; one whose layers lose what others keep is not."""
    device = torch.device("cpu")
    for family in ("llama", "gemma3"):
        assert adopt(tiny_model(1, family=family), tiny_tokenizer(), device, name="x").shares_cache
    config = AutoConfig.for_model(
        "lfm2", vocab_size=320, hidden_size=32, block_ff_dim=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, layer_types=["conv", "full_attention"],
        full_attn_idxs=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not adopt(model, tiny_tokenizer(), device, name="x").shares_cache


def test_the_table_says_the_same():
    """docs/families.md was measured: what is refused failed there, and nothing else did."""
    table = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    marks = {row[0].removeprefix("| "): row[1:7] for row in rows}
    assert len(marks) >= 40
    failing = {name for name, row in marks.items() if set(row) != {"yes"}}
    assert failing == REFUSED.keys() | NO_TEXTS
    for name in NO_TEXTS:
        assert marks[name] == ["yes", "yes", "no", "yes", "yes", "yes"]


def test_a_model_without_a_cache_does_not_write():
    config = AutoConfig.for_model("mamba", vocab_size=320, hidden_size=32, num_hidden_layers=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    base = adopt(model, tiny_tokenizer(), torch.device("cpu"), name="x")
    assert not base.writes
    assert not base.shares_cache

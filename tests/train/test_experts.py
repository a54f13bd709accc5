"""What is adapted in a mixture of experts: its linear layers, which every later step can read."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.errors import InputError
from koinize.settings import LoraSpec
from koinize.train.lora import linear_targets

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]


def model(family, **more):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE, **more))


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
}


@pytest.mark.parametrize("family", MIXTURES)
def test_all_linear_leaves_the_experts_out(family):
    assert linear_targets(model(family, **MIXTURES[family]), LoraSpec()) == ATTENTION


@pytest.mark.parametrize(("family", "target"), [("mixtral", "w2"), ("qwen3_moe", "down_proj")])
def test_experts_that_are_asked_for_are_refused(family, target):
    lora = LoraSpec(targets=("q_proj", target))
    with pytest.raises(InputError) as caught:
        linear_targets(model(family, **MIXTURES[family]), lora)
    assert str(caught.value) == (
        "lora.targets names the experts of a mixture: PEFT reads them as down_proj; expected "
        "linear layers; use 'all-linear', which leaves the experts out, or q_proj, k_proj, v_proj, "
        "o_proj"
    )


@pytest.mark.parametrize("asked", ["all-linear", ("q_proj", "down_proj")])
def test_other_models_get_what_was_asked_for(asked):
    found = linear_targets(model("llama"), LoraSpec(targets=asked))
    assert found == (asked if asked == "all-linear" else list(asked))


def test_a_router_that_is_a_linear_layer_is_left_out():
    """It gives the choice of the experts beside its product, and PEFT expects the product."""
    assert linear_targets(model("phimoe", num_local_experts=4), LoraSpec()) == ATTENTION


def test_layers_that_kernels_bypass_are_left_out():
    """PEFT refuses out_proj in these families, and the head is not adapted anywhere."""
    found = linear_targets(model("mamba", state_size=8), LoraSpec())
    assert found == ["dt_proj", "in_proj", "x_proj"]

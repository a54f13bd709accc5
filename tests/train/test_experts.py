"""What is adapted in a mixture of experts: its linear layers, which every later step can read."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.adapter import open_adapter, read_header
from koinize.adapter.header import WEIGHTS_FILE
from koinize.errors import InputError
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.model.loaded import adopt, with_adapter
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train, train_together
from koinize.train.learner import Training
from koinize.train.report import TrainingReport
from koinize.train.targets import bare_parameters, linear_targets

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
}  # fmt: skip
ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]


def model(family, **more):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE | more))


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "head_dim": 8,
    },
}


@pytest.mark.parametrize("family", MIXTURES)
def test_all_linear_leaves_the_experts_out(family):
    assert linear_targets(model(family, **MIXTURES[family]), LoraSpec()) == ATTENTION


def test_names_that_are_experts_no_more_are_refused():
    """What transformers called them once; which PEFT would stack with ranks of its own."""
    with pytest.raises(InputError) as caught:
        linear_targets(model("mixtral", num_local_experts=4), LoraSpec(targets=("q_proj", "w2")))
    assert str(caught.value) == (
        "lora.targets names the experts of a mixture: PEFT reads them as down_proj; expected "
        "linear layers, or parameters: down_proj, gate_up_proj; use 'all-linear', which leaves the "
        "experts out, or q_proj, k_proj, v_proj, o_proj"
    )


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("name", ["down_proj", "experts.down_proj", "mlp.experts.gate_up_proj"])
def test_experts_that_are_asked_for_are_parameters(family, name):
    lora, base = LoraSpec(targets=("q_proj", name)), model(family, **MIXTURES[family])
    assert linear_targets(base, lora) == ["q_proj"]
    assert bare_parameters(base, lora) == [name]


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


BASE = SHAPE | {"vocab_size": len(tiny_tokenizer()), "num_hidden_layers": 2}


@pytest.fixture(params=MIXTURES)
def base(request):
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **BASE, **MIXTURES[request.param])
    made = AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
    return adopt(made, tiny_tokenizer(), torch.device("cpu"), name="x/base")


ROWS = [Example(str(i), "de", f"row {i} is", f" {'ab'[i % 2]}") for i in range(8)]
EXPERTS = LoraSpec(r=2, alpha=4, targets=("q_proj", "gate_up_proj", "down_proj"))
TRAINING = TrainingSpec(epochs=3, batch_size=4, learning_rate=1e-2)


@torch.inference_mode()
def logits(model):
    return model(input_ids=torch.arange(4, 30)[None]).logits


def tuned(base, folder):
    """As PEFT loads it."""
    config = base.model.config
    torch.manual_seed(0)
    fresh = AutoModelForCausalLM.from_config(config).float().eval()
    return PeftModel.from_pretrained(fresh, folder).eval()


@pytest.mark.slow
def test_experts_that_are_asked_for_are_trained(base, tmp_path):
    """Evaluated as PEFT would, and off again; trained on from; and the base stays the base."""
    before = logits(base.model)
    for name in ("de", "more"):
        (tmp_path / name).mkdir()
    report = train(base, ROWS, [], EXPERTS, TRAINING, tmp_path / "de")
    assert report.losses[-1] < report.losses[0]
    header = read_header(tmp_path / "de")
    parts = [one for one in header.modules.values() if one.experts]
    assert len(parts) == 2 * 2 * 4  # layers, parameters, experts
    assert {one.rank for one in header.modules.values()} == {2}
    with open_adapter(header) as adapter:
        assert any(adapter.factors(one.name).bound > 0 for one in parts)

    with with_adapter(base, tmp_path / "de"):
        ours = logits(base.model)
    assert torch.allclose(ours, logits(tuned(base, tmp_path / "de")), rtol=0, atol=1e-5)
    assert not torch.allclose(ours, before, rtol=0, atol=1e-3)
    assert torch.equal(logits(base.model), before)

    start = tmp_path / "de"
    still = TrainingSpec(epochs=1, batch_size=8, learning_rate=1e-12)
    train(base, ROWS, [], EXPERTS, still, tmp_path / "more", start=start)
    first, second = (load_file(tmp_path / one / WEIGHTS_FILE) for one in ("de", "more"))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[one], second[one], rtol=0, atol=1e-9) for one in first)


def test_trainings_of_experts_that_are_joined_go_one_by_one(base, tmp_path):
    """Tokens go to experts as a router sends them, which no shared pass can follow."""
    for name in ("alone", "a", "b"):
        (tmp_path / name).mkdir()
    train(base, ROWS, [], EXPERTS, TRAINING, tmp_path / "alone")
    both = [Training(one, ROWS, [], EXPERTS, TRAINING, tmp_path / one) for one in ("a", "b")]
    assert all(isinstance(one, TrainingReport) for one in train_together(base, both))
    alone, *others = (load_file(tmp_path / one / WEIGHTS_FILE) for one in ("alone", "a", "b"))
    for other in others:
        assert all(torch.equal(alone[one], other[one]) for one in alone)


def test_dropout_on_experts_is_refused():
    with pytest.raises(InputError, match=r"lora\.dropout is 0\.1, and down_proj are parameters of"):
        bare_parameters(
            model("mixtral", num_local_experts=4), LoraSpec(targets=("down_proj",), dropout=0.1)
        )


def test_a_name_of_layers_and_experts_is_refused():
    """In a Qwen3 mixture whose first layer has none."""
    mixed = model("qwen3_moe", **MIXTURES["qwen3_moe"] | {"mlp_only_layers": [0]})
    only = LoraSpec(targets=("q_proj", "down_proj"))
    assert bare_parameters(mixed, only) == []  # no experts at all: it has one layer
    mixed = model("qwen3_moe", **MIXTURES["qwen3_moe"] | {
        "mlp_only_layers": [0], "num_hidden_layers": 2,
    })  # fmt: skip
    with pytest.raises(InputError, match=r"such as experts\.down_proj or mlp\.down_proj"):
        bare_parameters(mixed, only)
    assert bare_parameters(mixed, LoraSpec(targets=("experts.down_proj",))) == ["experts.down_proj"]

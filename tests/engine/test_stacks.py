"""Adapters of a mixture's experts as parameters (PEFT's target_parameters), expert by expert."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.adapter import open_adapter, read_header
from koinize.adapter.tensorfile import read_tensor_specs
from koinize.engine import merge_adapters
from koinize.engine.fuse import fuse_adapter
from koinize.engine.memory import module_bytes, modules_at_once
from koinize.engine.plan import plan_merge
from koinize.engine.proof import prove_fused
from koinize.engine.verify import verify_adapter
from koinize.errors import InputError, StepError
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.merge.recipe import merge_settings
from koinize.model.loaded import adopt, with_adapter
from tests.peft_folders import configured

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
FAMILIES = {
    "mixtral": {"num_local_experts": 3},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": {"num_local_experts": 4, "layer_types": ["full_attention"] * 2},  # transposed
}
EXPERTS = {"mixtral": 3, "qwen3_moe": 4, "gpt_oss": 4}
BOTH = ["experts.gate_up_proj", "experts.down_proj"]
CLOSE = 1e-5  # of the largest logit: two layers in float32, another order of the same sums


def model(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE, **FAMILIES[family])
    made = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)  # so that what an expert adds is seen
    return made


def adapter(folder, family, seed, **config):
    """As PEFT writes it; and what it adds to each parameter, as PEFT computes it."""
    settings = {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], "target_parameters": BOTH}
    tuned = get_peft_model(model(family), LoraConfig(**settings | config))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    tuned.peft_config["default"].base_model_name_or_path = "x/base"
    tuned.save_pretrained(folder)
    return folder, updates(tuned)


def updates(tuned):
    """What PEFT adds to every parameter of the base, by the parameter's name."""
    found = {}
    for name, layer in tuned.base_model.model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            place = name.replace(".base_layer", "")
            parameter = getattr(layer, "parameter_name", None) or "weight"
            found[f"{place}.{parameter}"] = layer.get_delta_weight("default").detach()
    return found


def by_hand(family, changes):
    """The base with these added to its parameters."""
    changed = model(family)
    with torch.no_grad():
        for name, change in changes.items():
            changed.get_parameter(name).add_(change)
    return changed


@torch.inference_mode()
def logits(changed):
    return changed(input_ids=torch.arange(2, 26)[None]).logits


def in_peft(family, folder):
    return logits(PeftModel.from_pretrained(model(family), folder).eval())


def same(found, wanted):
    return float((found - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())


def mean(one, other):
    names = one.keys() | other.keys()
    zero = torch.zeros(())
    return {name: (one.get(name, zero) + other.get(name, zero)) / 2 for name in names}


@pytest.fixture
def two(tmp_path):
    def made(family, de=None, en=None):
        first, ours = adapter(tmp_path / "de", family, 1, **de or {})
        second, theirs = adapter(tmp_path / "en", family, 2, **en or {})
        return {"de": first, "en": second}, mean(ours, theirs)

    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mean_of_experts_is_the_mean_of_each(tmp_path, two, family):
    """And not what the experts' factors give together: PEFT's logits are those of the means."""
    adapters, wanted = two(family)
    out = merge_adapters(adapters, recipe="mean", out=tmp_path / "out").out
    assert same(in_peft(family, out), logits(by_hand(family, wanted)))
    assert not same(in_peft(family, out), logits(model(family)))
    (experts,) = {one.experts for one in read_header(out).modules.values() if one.experts}
    assert experts == EXPERTS[family]


def test_one_parameter_of_two(tmp_path, two):
    """Then the file calls it by the module's name, as it calls another one beside it."""
    one = {"target_parameters": ["experts.gate_up_proj"]}
    adapters, wanted = two("mixtral", one, one)
    out = merge_adapters(adapters, recipe="mean", out=tmp_path / "out").out
    assert same(in_peft("mixtral", out), logits(by_hand("mixtral", wanted)))


def test_what_pefts_all_linear_makes(tmp_path, two):
    """The router too, and a rank for each parameter, in patterns."""
    every = {"target_modules": "all-linear", "target_parameters": None}
    adapters, wanted = two("mixtral", every, every | {"lora_alpha": 2, "r": 4})
    header = read_header(adapters["de"])
    assert header.modules["model.layers.0.mlp.experts.base_layer[2]"].rank == 4
    assert header.modules["model.layers.0.mlp.experts[2]"].rank == 2
    assert header.modules["model.layers.0.mlp.gate[0]"].experts == 1
    out = merge_adapters(adapters, recipe="mean", out=tmp_path / "out").out
    assert same(in_peft("mixtral", out), logits(by_hand("mixtral", wanted)))


def test_ranks_of_its_own_for_each_parameter_are_put_on_the_base(tmp_path, two):
    """As scoring puts an adapter on, and takes it off again."""
    every = {"target_modules": "all-linear", "target_parameters": None}
    folder = two("mixtral", every, every)[0]["de"]
    base = adopt(model("mixtral"), tiny_tokenizer(), torch.device("cpu"), name="x/base")
    with with_adapter(base, folder):
        found = logits(base.model)
    assert same(found, in_peft("mixtral", folder))
    assert torch.equal(logits(base.model), logits(model("mixtral")))


@pytest.mark.parametrize("rank", ["full", 3, 0.9])
@pytest.mark.parametrize("recipe", ["knots-ties", "core-ties", "ties"])
def test_experts_are_merged_as_layers_of_their_own_would_be(tmp_path, two, recipe, rank):
    """Against the same merge of single-expert adapters, each a linear layer."""
    adapters, _ = two("mixtral")
    settings = {"recipe": recipe, "density": 0.5, "rank": rank}
    out = merge_adapters(adapters, out=tmp_path / "out", **settings).out
    apart = {name: as_layers(folder, tmp_path / f"{name}2") for name, folder in adapters.items()}
    other = merge_adapters(apart, out=tmp_path / "other", **settings).out
    found, wanted = deltas(out), deltas(other)
    assert len(found) == 2 * (1 + 2 * 3)
    for name, update in found.items():
        expected = wanted[as_layer(name)]
        assert float((update - expected).abs().max()) <= 1e-5 * float(expected.abs().max()), name
    assert not verify_adapter(out, adapters).mismatches


def as_layer(name):
    return name.replace("base_layer", "inner").replace("[", ".part").replace("]", "")


def as_layers(folder, out):
    """The same updates, every expert a linear layer by a name of its own."""
    from safetensors.torch import save_file

    out.mkdir()
    tensors = {}
    with open_adapter(folder) as opened:
        for name in opened.header.modules:
            factors, key = opened.factors(name), f"base_model.model.{as_layer(name)}"
            tensors[f"{key}.lora_A.weight"] = factors.A.contiguous()
            tensors[f"{key}.lora_B.weight"] = (factors.B / factors.scale).contiguous()
    save_file(tensors, out / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"target_parameters": None, "target_modules": None}
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out


def deltas(folder):
    with open_adapter(folder) as opened:
        return {
            name: opened.factors(name).B @ opened.factors(name).A for name in opened.header.modules
        }


@pytest.mark.slow
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_fused_is_what_peft_loads(tmp_path, two, family, original):
    """Also where files have a tensor for each expert, as Mixtral's and Qwen's on the hub do."""
    base = tmp_path / "base"
    model(family).save_pretrained(base, save_original_format=original)
    every = {"target_modules": "all-linear", "target_parameters": None}
    adapters, _ = two(family, *([every, every] if family == "mixtral" else []))
    out = merge_adapters(adapters, recipe="knots-ties", density=0.5, rank=3, out=tmp_path / "out")
    report = fuse_adapter(out.out, base, out=tmp_path / "fused")
    fused = AutoModelForCausalLM.from_pretrained(tmp_path / "fused", dtype=torch.float32).eval()
    assert same(logits(fused), in_peft(family, out.out))
    assert not same(logits(fused), logits(model(family)))
    assert report.loss < 1e-6
    proof = prove_fused(out.out, base, tmp_path / "fused")
    assert (proof.unchanged, proof.share) == (0, pytest.approx(1.0, abs=1e-5))
    with pytest.raises(StepError, match="is not the base's and the adapter's update"):
        prove_fused(out.out, base, base)
    before, after = (
        sorted(read_tensor_specs(tmp_path / one / "model.safetensors")) for one in ("base", "fused")
    )
    assert before == after


def test_experts_of_another_number_are_not_fused(tmp_path, two, monkeypatch):
    folder = two("mixtral")[0]["de"]
    monkeypatch.setitem(FAMILIES, "mixtral", {"num_local_experts": 4})
    model("mixtral").save_pretrained(tmp_path / "base")
    with pytest.raises(
        InputError, match=r"experts\.gate_up_proj' is \[4, 96, 32\]; expected \[3, 96,"
    ):
        fuse_adapter(folder, tmp_path / "base", out=tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_experts_that_a_base_has_not_are_not_fused(tmp_path, two):
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE)).save_pretrained(
        tmp_path / "base"
    )
    with pytest.raises(InputError, match="has no tensors for the experts"):
        fuse_adapter(two("mixtral")[0]["de"], tmp_path / "base", out=tmp_path / "fused")


@pytest.mark.slow
def test_verify_loads_it_the_way_peft_does(tmp_path, two):
    """And a stack of another number of experts is seen."""
    AutoConfig.for_model("mixtral", **SHAPE, **FAMILIES["mixtral"]).save_pretrained(
        tmp_path / "base"
    )
    adapters, _ = two("mixtral")
    for folder in adapters.values():
        configured(folder, base_model_name_or_path=str(tmp_path / "base"))
    out = merge_adapters(adapters, recipe="mean", out=tmp_path / "out").out
    found = verify_adapter(out, adapters)
    assert f"whether PEFT loads it on {tmp_path / 'base'}" in found.checked
    assert not found.mismatches
    AutoConfig.for_model("mixtral", **SHAPE, num_local_experts=4).save_pretrained(tmp_path / "base")
    (mismatch,) = verify_adapter(out).mismatches
    assert mismatch.startswith("PEFT does not load it: ")


def test_a_stack_waits_in_memory(two):
    """Until its last expert is merged: what was, twice, and B of two stacks of every adapter."""
    adapters, _ = two("mixtral")
    settings = merge_settings(recipe="mean")
    given = plan_merge(adapters, settings)
    module = max(given.modules, key=lambda one: module_bytes(given, settings, one))
    rank, experts = 4, 3  # of the mean, and gate_up_proj is 96 x 32
    waiting = 4 * experts * (2 * 2 * 2 * 96 + 2 * rank * (96 + 32))
    needed = module_bytes(given, settings, module) + 4 * 2 * rank * (96 + 32) + waiting
    assert modules_at_once(given, settings, needed, 1) == 1
    with pytest.raises(InputError, match="max-memory is"):
        modules_at_once(given, settings, needed - 1, 1)


def test_experts_beside_none(tmp_path, two):
    """A language that leaves the experts alone has an update of zero there."""
    adapters, wanted = two("qwen3_moe", en={"target_parameters": None})
    out = merge_adapters(adapters, recipe="mean", out=tmp_path / "out").out
    assert same(in_peft("qwen3_moe", out), logits(by_hand("qwen3_moe", wanted)))


def test_other_parameters_are_refused(tmp_path, two):
    """One file's `experts` is then another parameter than the other's."""
    adapters, _ = two("mixtral", en={"target_parameters": ["experts.gate_up_proj"]})
    with pytest.raises(InputError) as caught:
        merge_adapters(adapters, recipe="mean", out=tmp_path / "out")
    assert "'en' adapts the experts' parameters experts.gate_up_proj, 'de' parameters" in str(
        caught.value
    )


def test_ranks_that_explain_no_number_of_experts_are_refused(tmp_path, two):
    folder = two("mixtral")[0]["de"]
    configured(folder, rank_pattern={"down_proj": 4})
    with pytest.raises(InputError, match="its ranks are others"):
        read_header(folder)


def test_experts_without_end_are_not_made(tmp_path, two):
    """A hole in a file takes no place on a disk, and would be a module for each of its rows."""
    folder = two("mixtral")[0]["de"]
    configured(folder, target_modules=[], target_parameters=["experts.down_proj"], r=1)
    name, count = "base_model.model.model.layers.0.mlp.experts", 20_000
    entries, end = {}, 0
    for side, shape in (("A", (count, 1)), ("B", (1, count))):
        entries[f"{name}.lora_{side}.weight"] = {
            "dtype": "F32", "shape": shape, "data_offsets": [end, end := end + 4 * count],
        }  # fmt: skip
    header = json.dumps(entries).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + end)
    with pytest.raises(InputError, match="has 20000 experts; expected at most 10000"):
        read_header(folder)


def test_scales_that_may_be_of_either_parameter_are_refused(tmp_path, two):
    folder = two("mixtral")[0]["de"]
    configured(folder, alpha_pattern={"down_proj": 1})
    with pytest.raises(InputError, match="nothing says which parameter is which"):
        read_header(folder)

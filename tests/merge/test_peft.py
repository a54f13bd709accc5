"""Against the installed PEFT: what it loads, and what it gives where the definitions coincide."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters
from koinize.merge.masks import keep

LANGUAGES = ("de", "en", "fr")
# PEFT forms dense float32 products of at most 64 terms and decomposes them in float32.
CLOSE = 64 * torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A tiny Llama, and three adapters of rank 4 that PEFT itself made."""
    folder = tmp_path_factory.mktemp("peft")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    for language in LANGUAGES:
        lora = LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["q_proj", "v_proj", "down_proj"],
            init_lora_weights=False,
        )
        get_peft_model(base(folder), lora).save_pretrained(folder / language)
    return folder


def base(folder):
    return LlamaForCausalLM.from_pretrained(folder / "base")


def inputs(work):
    return {language: work / language for language in LANGUAGES}


def by_peft(work, method, **options):
    """{module: delta} of `add_weighted_adapter` with weights 1."""
    model = PeftModel.from_pretrained(base(work), work / "de", adapter_name="de")
    for language in LANGUAGES[1:]:
        model.load_adapter(work / language, adapter_name=language)
    model.add_weighted_adapter(
        list(LANGUAGES), [1.0] * len(LANGUAGES), "merged", combination_type=method, **options
    )
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("merged").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def by_koinize(folder):
    with open_adapter(folder) as adapter:
        factors = {name: adapter.factors(name) for name in adapter.header.modules}
    return {name: factor.B @ factor.A for name, factor in factors.items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, delta in wanted.items():
        assert (found[name] - delta).abs().max() <= CLOSE * delta.abs().max(), name


@pytest.mark.parametrize("recipe", ["mean", "knots-ties"])
def test_the_output_loads_and_adds_exactly_its_delta(work, tmp_path, recipe):
    out = merge_adapters(inputs(work), recipe=recipe, out=tmp_path / "out").out
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        found = PeftModel.from_pretrained(base(work), out)(tokens).logits
        plain = base(work)
        for name, delta in by_koinize(out).items():
            plain.get_submodule(name).weight += delta
        expected = plain(tokens).logits
    # Two layers of float32 sums, in another order.
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, base(work)(tokens).logits, rtol=1e-4, atol=1e-5)


def test_a_whole_module_works_in_peft(work, tmp_path):
    """PEFT's own `modules_to_save`, equal in both adapters, counts in the merge's logits."""
    lora = LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False
    )
    torch.manual_seed(2)
    head = torch.randn_like(base(work).lm_head.weight)
    folders = {}
    for language in ("de", "en"):
        model = get_peft_model(base(work), lora)
        model.base_model.model.lm_head.modules_to_save["default"].weight.data.copy_(head)
        folders[language] = tmp_path / language
        model.save_pretrained(folders[language])
    out = merge_adapters(folders, recipe="mean", out=tmp_path / "out").out
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        found = PeftModel.from_pretrained(base(work), out)(tokens).logits
        plain = base(work)
        plain.lm_head.weight.copy_(head)
        for name, delta in by_koinize(out).items():
            plain.get_submodule(name).weight += delta
        expected = plain(tokens).logits
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sum_is_peft_cat_and_svd(work, tmp_path):
    full = merge_adapters(inputs(work), recipe="sum", out=tmp_path / "full").out
    assert_same(by_koinize(full), by_peft(work, "cat"))
    cut = merge_adapters(inputs(work), recipe="sum", rank=4, out=tmp_path / "cut").out
    assert_same(by_koinize(cut), by_peft(work, "svd", svd_rank=4))


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_ties_is_peft_ties_svd(work, tmp_path, density):
    out = merge_adapters(
        inputs(work), recipe="ties", density=density, rank=4, out=tmp_path / "out"
    ).out
    assert_same(by_koinize(out), by_peft(work, "ties_svd", density=density, svd_rank=4))


def test_dare_ties_is_peft_dare_ties_svd_with_the_same_masks(work, tmp_path, monkeypatch):
    density, seed = 0.6, 3
    out = merge_adapters(
        inputs(work), recipe="dare-ties", density=density, seed=seed, rank=4, out=tmp_path / "out"
    ).out
    # PEFT draws in the order of its modules, and of the adapters within each.
    model = PeftModel.from_pretrained(base(work), work / "de")
    modules = [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    ]
    order = iter([(module, language) for module in modules for language in LANGUAGES])

    def ours(probabilities):
        module, language = next(order)
        return keep(seed, language, module, 0, tuple(probabilities.shape), density).float()

    monkeypatch.setattr(torch, "bernoulli", lambda tensor: ours(tensor))
    assert_same(by_koinize(out), by_peft(work, "dare_ties_svd", density=density, svd_rank=4))


def test_an_rslora_adapter_merged_alone_is_itself(work, tmp_path):
    """PEFT itself gives sqrt(r) times too much here (wound 1)."""
    lora = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], use_rslora=True)
    torch.manual_seed(1)
    model = get_peft_model(base(work), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "rs")
    wanted = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    for recipe in ("mean", "ties"):
        out = merge_adapters({"en": tmp_path / "rs"}, recipe=recipe, out=tmp_path / recipe).out
        assert_same(by_koinize(out), wanted)


def test_no_byte_of_the_base_is_read(work, tmp_path):
    hidden = (work / "base").rename(work / "hidden")
    try:
        merge_adapters(inputs(work), recipe="ties", out=tmp_path / "out")
    finally:
        hidden.rename(work / "base")

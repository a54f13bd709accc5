"""Against the installed PEFT: what it loads, and what it gives where the definitions coincide."""

import inspect
from typing import get_args

import pytest
import torch
from peft import LoraConfig, LoraModel, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters
from koinize.errors import InputError
from koinize.merge.dialect import DIALECTS
from koinize.merge.masks import keep
from koinize.peft_compat import add_weighted_adapter
from tests.peft_folders import tiny_llama

LANGUAGES = ("de", "en", "fr")
# PEFT forms dense float32 products of at most 64 terms and decomposes them in float32.
CLOSE = 64 * torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A tiny Llama, and three adapters of rank 4 that PEFT itself made."""
    return tiny_llama(tmp_path_factory.mktemp("peft"), LANGUAGES)


def base(folder):
    return LlamaForCausalLM.from_pretrained(folder / "base")


def inputs(work):
    return {language: work / language for language in LANGUAGES}


def by_peft(work, method, weights=(1.0, 1.0, 1.0), **options):
    """{module: delta} of `add_weighted_adapter`."""
    model = PeftModel.from_pretrained(base(work), work / "de", adapter_name="de")
    for language in LANGUAGES[1:]:
        model.load_adapter(work / language, adapter_name=language)
    model.add_weighted_adapter(
        list(LANGUAGES), list(weights), "merged", combination_type=method, **options
    )
    return deltas_of(model, "merged")


def deltas_of(model, adapter="default"):
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight(adapter).detach()
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


@pytest.mark.parametrize("recipe", ["mean", "ties", "knots-ties", "core-ties"])
def test_a_merge_relative_to_a_trunk_works_in_peft(work, tmp_path, recipe):
    """The logits of base + D, where D is the trunk and half of the way to the branches' merge."""
    branches = {one: folder for one, folder in inputs(work).items() if one != "de"}
    trunk, options = work / "de", {"recipe": recipe, "rank": 24}
    out = merge_adapters(branches, **options, scale=0.5, trunk=trunk, out=tmp_path / "out").out
    whole = merge_adapters(branches, **options, trunk=trunk, out=tmp_path / "whole").out
    start, end = by_koinize(trunk), by_koinize(whole)
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        found = PeftModel.from_pretrained(base(work), out)(tokens).logits
        plain = base(work)
        for name, delta in start.items():
            plain.get_submodule(name).weight += (delta + end[name]) / 2
        expected = plain(tokens).logits
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


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


WEIGHTS = {"de": 1.0, "en": 0.5, "fr": -2.0}
DENSITY, SEED = 0.6, 3
# PEFT's combination_type -> our settings in its dialect.
TYPES = {
    "cat": {"recipe": "sum", "space": "dense"},
    "svd": {"recipe": "sum", "space": "dense", "rank": 4},
    "linear": {"recipe": "sum"},
    "ties": {"recipe": "ties", "density": DENSITY},
    "dare_ties": {"recipe": "dare-ties", "density": DENSITY, "seed": SEED},
    "dare_linear": {"recipe": "dare-linear", "density": DENSITY, "seed": SEED},
    "magnitude_prune": {"recipe": "magnitude-prune", "density": DENSITY},
}
TYPES |= {
    f"{name}_svd": {**TYPES[name], "space": "dense", "rank": 4}
    for name in ("ties", "dare_ties", "dare_linear", "magnitude_prune")
}


def test_every_combination_type_of_peft_is_compared():
    signature = inspect.signature(LoraModel.add_weighted_adapter, eval_str=True)
    assert set(TYPES) == set(get_args(signature.parameters["combination_type"].annotation))
    assert {one["recipe"] for one in TYPES.values()} == set(DIALECTS["peft"].normalize)


@pytest.mark.parametrize(
    ("method", "sign"),
    [(one, "total") for one in TYPES] + [(one, "frequency") for one in TYPES if "ties" in one],
)
def test_the_peft_dialect_is_peft(work, tmp_path, monkeypatch, method, sign):
    """Every combination_type, alpha / r = 1.5, with a negative weight and with our masks."""
    options = dict(TYPES[method])
    more = {"density": DENSITY} if "density" in options else {}
    if "ties" in method:
        options["sign"] = more["majority_sign_method"] = sign
    if "rank" in options:
        more["svd_rank"] = options["rank"]
    out = merge_adapters(
        inputs(work), **options, weights=WEIGHTS, dialect="peft", out=tmp_path / "out"
    ).out
    draw_our_masks(work, monkeypatch, method)
    assert_same(by_koinize(out), by_peft(work, method, WEIGHTS.values(), **more))


def draw_our_masks(work, monkeypatch, method):
    """PEFT draws module by module in its own order: for each the deltas of all adapters, or first
    all A and then all B."""
    sides = [""] if method.endswith("_svd") else [".lora_A", ".lora_B"]
    modules = list(modules_in_order(work))
    draws = iter([(m + side, one) for m in modules for side in sides for one in LANGUAGES])

    def ours(probabilities):
        module, language = next(draws)
        return keep(SEED, language, module, 0, tuple(probabilities.shape), DENSITY).float()

    monkeypatch.setattr(torch, "bernoulli", ours)


@pytest.mark.parametrize(
    ("method", "rank"),
    [(one, None) for one in TYPES] + [(one, 3) for one in TYPES if one.endswith("svd")],
)
def test_peft_s_function_on_folders_is_peft_s(work, tmp_path, monkeypatch, method, rank):
    """The same arguments; the default of svd_rank is the adapters' rank, 4."""
    options = {"density": DENSITY} if "density" in TYPES[method] else {}
    if rank is not None:
        options["svd_rank"] = rank
    if "ties" in method:
        options["majority_sign_method"] = "frequency"
    weights = list(WEIGHTS.values())
    folders = [work / language for language in LANGUAGES]
    out = tmp_path / "merged"
    report = add_weighted_adapter(folders, weights, out, method, **options, seed=SEED)
    draw_our_masks(work, monkeypatch, method)
    assert_same(by_koinize(out), by_peft(work, method, weights, **options))
    assert report.rank <= (12 if method == "cat" else rank or 4)


def test_the_arguments_are_peft_s_in_its_order():
    peft = list(inspect.signature(LoraModel.add_weighted_adapter).parameters.values())[1:]
    ours = list(inspect.signature(add_weighted_adapter).parameters.values())
    assert [(one.name, one.default) for one in ours[:-1]] == [
        (one.name, one.default) for one in peft
    ]
    assert (ours[-1].name, ours[-1].kind) == ("seed", inspect.Parameter.KEYWORD_ONLY)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"combination_type": "tie"}, "combination_type is 'tie'; did you mean 'ties'?"),
        ({"adapters": [], "weights": []}, "there is no adapter to merge"),
        ({"weights": [1.0]}, "there are 2 adapters and 1 weights; expected one weight for each"),
        ({"combination_type": "ties"}, "combination_type 'ties' needs a density; expected above 0"),
        ({"svd_clamp": 0.9}, "svd_clamp has no meaning here; leave svd_clamp out"),
        ({"svd_driver": "gesvd"}, "svd_driver has no meaning here; leave svd_driver out"),
        (
            {"combination_type": "linear", "svd_rank": 4},
            "combination_type 'linear' does not use svd_rank; leave it out, or say 'svd'",
        ),
        (
            {"combination_type": "ties", "density": 0.5, "svd_rank": 4},
            "combination_type 'ties' does not use svd_rank; leave it out, or say 'ties_svd'",
        ),
        (
            {"combination_type": "cat", "density": 0.5},
            "recipe 'sum' does not use 'density'; it uses ",
        ),
        ({"majority_sign_method": "frequency"}, "recipe 'sum' does not use 'sign'; it uses "),
    ],
)
def test_what_peft_would_ignore_is_refused(work, tmp_path, given, said):
    folders = [work / "de", work / "en"]
    with pytest.raises(InputError) as error:
        add_weighted_adapter(
            **{
                "adapters": folders,
                "weights": [1.0, 1.0],
                "adapter_name": tmp_path / "out",
                **given,
            }
        )
    assert str(error.value).startswith(said)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(work, tmp_path):
    """PEFT returns without a word, and what lies there is the old merge."""
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out"):
        add_weighted_adapter([work / "de"], [1.0], tmp_path / "out")


def modules_in_order(work):
    """The adapted modules in the order in which PEFT walks through the model."""
    return deltas_of(PeftModel.from_pretrained(base(work), work / "de"))


def test_where_peft_does_something_else(work, tmp_path):
    """One adapter is always `linear` there; a name that is taken stays what it was, in silence;
    and what comes of rsLoRA is sqrt(r) times too large, where r is the merged rank.
    """
    model = PeftModel.from_pretrained(base(work), work / "de", adapter_name="de")
    model.add_weighted_adapter(["de"], [1.0], "alone", combination_type="ties", density=0.3)
    whole = deltas_of(model, "de")
    assert_same(deltas_of(model, "alone"), whole)
    out = add_weighted_adapter([work / "de"], [1.0], tmp_path / "ties", "ties", density=0.3).out
    trimmed = by_koinize(out)
    assert all(
        (trimmed[name] - one).abs().max() > 0.1 * one.abs().max() for name, one in whole.items()
    )
    model.add_weighted_adapter(["de"], [3.0], "alone", combination_type="linear")
    assert_same(deltas_of(model, "alone"), whole)

    stabilized = made_by_peft(work, "rslora")
    stabilized.save_pretrained(tmp_path / "rs")
    wanted = deltas_of(stabilized)
    out = add_weighted_adapter([tmp_path / "rs"] * 2, [0.5, 0.5], tmp_path / "ours", "cat").out
    assert_same(by_koinize(out), wanted)
    stabilized.load_adapter(tmp_path / "rs", adapter_name="other")
    stabilized.add_weighted_adapter(["default", "other"], [0.5, 0.5], "both", "cat")
    too_large = {name: 8**0.5 * one for name, one in wanted.items()}  # the merged rank is 8
    assert_same(deltas_of(stabilized, "both"), too_large)


HALVES = ("bfloat16", "float16")
KINDS = {
    "plain": {},
    "bfloat16": {},
    "float16": {},
    "rslora": {"use_rslora": True},  # PEFT's own merge is sqrt(r) times too large here
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"model\.layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"v_proj": 3},
    },
    "pissa": {"init_lora_weights": "pissa"},
    "layers": {"layers_to_transform": [1]},
    "regular expression": {"target_modules": r".*\.1\..*(q|v)_proj"},
    "conv1d": {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
}


def made_by_peft(work, kind):
    """A model with an adapter of this kind, its factors random."""
    torch.manual_seed(1)
    chosen = {"target_modules": ["q_proj", "v_proj", "down_proj"], **KINDS[kind]}
    model = get_peft_model(bare(work, kind), LoraConfig(r=4, lora_alpha=6, **chosen))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    if kind in HALVES:
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(getattr(torch, kind))
    return model


def bare(work, kind):
    if kind != "conv1d":
        return base(work)
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=4, vocab_size=50)).eval()


@pytest.mark.parametrize("recipe", ["mean", "ties", "knots-ties", "core-ties"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_that_peft_writes(work, tmp_path, kind, recipe):
    """Merged alone it is the update that PEFT computes, before and after PEFT loads the merge."""
    model = made_by_peft(work, kind)
    model.save_pretrained(tmp_path / "in")
    written = load_file(tmp_path / "in" / "adapter_model.safetensors")
    if kind in HALVES:
        assert {one.dtype for one in written.values()} == {getattr(torch, kind)}
    wanted = {
        name: delta.float().T if kind == "conv1d" else delta.float()
        for name, delta in deltas_of(model.float()).items()
    }
    alone = {"en": tmp_path / "in"}
    report = merge_adapters(alone, recipe=recipe, dtype="float32", out=tmp_path / "out")
    assert_same(by_koinize(report.out), wanted)
    assert any("residual" in warning for warning in report.warnings) == (kind == "pissa")
    loaded = PeftModel.from_pretrained(bare(work, kind), report.out).eval()
    assert_same(deltas_of(loaded), deltas_of(model))
    untouched = bare(work, kind).state_dict()
    for name, tensor in loaded.get_base_model().state_dict().items():
        if "lora_" not in name:  # PiSSA's initialisation would have changed the base
            assert torch.equal(tensor, untouched[name.replace("base_layer.", "")])
    if kind != "pissa":  # whose own logits are those of the residual base
        tokens = torch.arange(12).reshape(2, 6)
        with torch.no_grad():
            difference = (loaded(tokens).logits - model.eval()(tokens).logits).abs().max()
        assert difference <= 1e-5


def test_no_byte_of_the_base_is_read(work, tmp_path):
    hidden = (work / "base").rename(work / "hidden")
    try:
        merge_adapters(inputs(work), recipe="ties", out=tmp_path / "out")
    finally:
        hidden.rename(work / "base")

"""mergekit configurations as merges: the settings by hand, the updates against mergekit itself."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters
from koinize.errors import InputError, each
from koinize.imports import read_mergekit
from koinize.merge.recipe import merge_settings
from tests.peft_folders import tiny_llama

# Sums of at most three updates of rank 4, once in factors and once as rounded whole weights.
CLOSE = 64 * torch.finfo(torch.float32).eps


def configuration(folder, text):
    path = folder / "merge.yml"
    path.write_text(text)
    return path


def models(*entries, base="base", **top):
    """YAML of adapters of one base: each entry is a name and its parameters."""
    lines = [f"{key}: {value}" for key, value in top.items()] + ["models:"]
    for name, parameters in entries:
        lines += [f"  - model: {base}{'+' if name else ''}{name}", f"    parameters: {parameters}"]
    return "\n".join(lines) + "\n"


DE, EN = ("a/de", "{weight: 1.0}"), ("a/en", "{weight: 0.5}")
THIN = [("a/de", "{weight: 1.0, density: 0.5}"), ("a/en", "{weight: 0.5, density: 0.5}")]
BASE = {"base_model": "base"}
WEIGHTS = {"weights": {"en": 0.5, "de": 1.0}}
# name -> mergekit's YAML, and by hand what it is here, in the mergekit dialect.
CASES = {
    "linear": (
        models(DE, EN, merge_method="linear"),
        {"recipe": "mean", **WEIGHTS},
    ),
    "linear with the base": (  # base + (D_de + D_en / 2) / (1 + 1/2 + 1/2)
        models(DE, EN, ("", "{weight: 0.5}"), merge_method="linear"),
        {"recipe": "mean", **WEIGHTS, "scale": 0.75},
    ),
    "linear with base_model": (
        models(DE, EN, merge_method="linear", **BASE, parameters="{weight: 0.5}"),
        {"recipe": "mean", **WEIGHTS, "scale": 0.75},
    ),
    "linear of shares": (
        models(
            ("a/de", "{weight: 0.6}"),
            ("a/en", "{weight: 0.4}"),
            merge_method="linear",
            parameters="{normalize: false}",
        ),
        {"recipe": "sum", "weights": {"de": 0.6, "en": 0.4}},
    ),
    "task arithmetic": (
        models(DE, EN, merge_method="task_arithmetic", **BASE, parameters="{lambda: 1.5}"),
        {"recipe": "sum", **WEIGHTS, "scale": 1.5},
    ),
    "task arithmetic, normalized": (
        models(DE, EN, merge_method="task_arithmetic", **BASE, parameters="{normalize: yes}"),
        {"recipe": "mean", **WEIGHTS},
    ),
    "ties": (
        models(*THIN, merge_method="ties", **BASE, parameters="{int8_mask: true}"),
        {"recipe": "ties", "density": 0.5, **WEIGHTS},
    ),
    "ties, not normalized": (
        models(DE, EN, merge_method="ties", **BASE, parameters="{normalize: false, density: 0.5}"),
        {"recipe": "ties", "density": 0.5, "normalize": "none", **WEIGHTS},
    ),
    "filters": (
        models(
            ("a/de", "{weight: [{filter: q_proj, value: 2}, {value: 1}]}"),
            EN,
            merge_method="ties",
            **BASE,
            parameters="{density: [{filter: mlp.down_proj.weight, value: 0.25}, {value: 0.5}]}",
        ),
        {
            "recipe": "ties",
            "density": 0.5,
            **WEIGHTS,
            "overrides": {
                "*q_proj*": {"weights": {"de": 2.0}},
                "*mlp.down_proj": {"density": 0.25},
            },
        },
    ),
    "gradients": (  # of two layers
        models(
            ("a/de", "{weight: [1, 0.25]}"),
            EN,
            merge_method="ties",
            **BASE,
            parameters="{density: [{filter: mlp, value: [0.9, 0.4, 0.3]}, {value: 0.5}]}",
        ),
        {
            "recipe": "ties",
            "density": 0.5,
            **WEIGHTS,
            "overrides": {
                "*layers.0.*": {"weights": {"de": 1.0}},
                "*layers.1.*": {"weights": {"de": 0.25}},
                "*layers.0.**mlp*": {"density": 0.9},
                "*layers.1.**mlp*": {"density": 0.3},
            },
        },
    ),
    "relative to a trunk": (
        models(DE, EN, merge_method="ties", base_model="base+a/fr", parameters="{density: 0.5}"),
        {"recipe": "ties", "density": 0.5, **WEIGHTS},
    ),
    "dare_ties": (
        models(DE, EN, merge_method="dare_ties", **BASE),
        {"recipe": "dare-ties", **WEIGHTS},
    ),
    "dare_ties, normalized": (
        models(DE, EN, merge_method="dare_ties", **BASE, parameters="{normalize: true}"),
        {"recipe": "dare-ties", "normalize": "weights", **WEIGHTS},
    ),
    "dare_linear": (
        models(DE, EN, merge_method="dare_linear", **BASE),
        {"recipe": "dare-linear", **WEIGHTS},
    ),
    "dare_linear, normalized": (
        models(DE, EN, merge_method="dare_linear", **BASE, parameters="{normalize: true}"),
        {"recipe": "dare-linear", "dialect": "koinize", "rescale": "l1", **WEIGHTS},
    ),
    "della": (
        models(DE, EN, merge_method="della", **BASE, parameters="{lambda: 2}"),
        {"recipe": "della", **WEIGHTS, "scale": 2.0},
    ),
    "breadcrumbs": (
        models(*THIN, merge_method="breadcrumbs", **BASE, parameters="{gamma: 0.05}"),
        {"recipe": "breadcrumbs", "density": 0.5, "outliers": 0.05, **WEIGHTS},
    ),
    "breadcrumbs, normalized": (  # / (1 + 1/2)
        models(*THIN, merge_method="breadcrumbs", **BASE, parameters="{normalize: true}"),
        {"recipe": "breadcrumbs", "density": 0.5, **WEIGHTS, "scale": 1 / 1.5},
    ),
    "sce": (
        models(
            ("a/de", "{}"),
            ("a/en", "{}"),
            merge_method="sce",
            **BASE,
            parameters="{select_topk: 0.3}",
        ),
        {"recipe": "sce", "density": 0.3},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_is_a_merge(tmp_path, monkeypatch, name):
    text, wanted = CASES[name]
    layers(tmp_path, monkeypatch, 2)
    found = read_mergekit(configuration(tmp_path, text))
    assert found.settings == merge_settings(**{"dialect": "mergekit", **wanted})
    assert found.adapters == {"de": Path("a/de"), "en": Path("a/en")}
    assert found.trunk == (Path("a/fr") if "trunk" in name else None)


def layers(folder, monkeypatch, number):
    monkeypatch.chdir(folder)
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text(f'{{"num_hidden_layers": {number}}}')


def test_gradients_are_lines_between_equally_far_values(tmp_path, monkeypatch):
    layers(tmp_path, monkeypatch, 5)
    text = ties(DE, EN, parameters="{lambda: [1, 2, 0.5]}")
    settings = read_mergekit(configuration(tmp_path, text)).settings
    assert settings.scale == 1.0
    scales = [one["scale"] for one in settings.overrides.values()]
    assert scales == [1.0, 1.5, 2.0, 1.25, 0.5]
    assert list(settings.overrides) == [f"*layers.{number}.*" for number in range(5)]


@pytest.mark.parametrize(
    ("more", "noted"),
    [
        ({}, []),
        (
            {"parameters": "{int8_mask: true}"},
            ["parameters.int8_mask changes no number, and is left out"],
        ),
        (
            {"dtype": "float32", "out_dtype": "torch.bfloat16"},
            ["dtype bfloat16 is of the written adapter; the arithmetic is float32"],
        ),
        (
            {"tokenizer_source": "base"},
            ["tokenizer_source is the base's, as of every adapter, and is left out"],
        ),
        (
            {"tokenizer": "{source: base}"},
            ["tokenizer is the base's, as of every adapter, and is left out"],
        ),
    ],
)
def test_what_is_left_out_is_said(tmp_path, more, noted):
    text = models(DE, EN, merge_method="ties", **BASE, **{"parameters": "{}", **more})
    assert list(read_mergekit(configuration(tmp_path, text)).notes) == noted


def test_what_is_not_quite_mergekit_s_is_said(tmp_path):
    entries = [("a/de", "{weight: -1, density: 0.5}"), ("a/en", "{weight: 1, density: 0.5}")]
    text = models(*entries, ("", "{}"), merge_method="dare_ties", **BASE)
    assert list(read_mergekit(configuration(tmp_path, text)).notes) == [
        "models[2].model is the base itself, and is left out",
        "a weight is negative: mergekit divides an election by the signed sum, koinize by the sum "
        "of the magnitudes",
        "random masks are koinize's own, by seed, language and module, and not mergekit's",
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/de", "a/en"], ["de", "en"]),
        (["/x/de/last", "y/en/last"], ["de-last", "en-last"]),
        (["../de", "./de"], ["1-de", "2-de"]),
        (["last", "de/last"], ["last", "de-last"]),
    ],
)
def test_adapters_are_named_by_the_ends_of_their_paths(tmp_path, paths, names):
    text = ties(*((path, "{weight: 1}") for path in paths))
    found = read_mergekit(configuration(tmp_path, text))
    assert found.adapters == dict(zip(names, map(Path, paths), strict=True))


def ties(*entries, **top):
    return models(*entries, **{"merge_method": "ties", **BASE, **top})


USED = "weight, density, normalize, rescale, lambda"
KNOWN = "linear, task_arithmetic, ties, dare_ties, dare_linear, della, breadcrumbs, sce"
REFUSED = {
    "": ["merge.yml:1:1 the file is empty; expected a mapping that begins with `merge_method`"],
    "models: []\n": [f"merge.yml:1:1 merge_method is missing; expected one of {KNOWN}"],
    models(DE, merge_method="slerp"): [
        "merge.yml:1:1 merge_method: no recipe here does what 'slerp' does; expected one of "
        + KNOWN
    ],
    models(DE, merge_method="tise"): [
        "merge.yml:1:1 merge_method: unknown 'tise'; did you mean 'ties'?"
    ],
    ties(DE, EN, chat_template="chatml", paramters="{}"): [
        "merge.yml:4:1 paramters: unknown key; did you mean 'parameters'?",
        "merge.yml:3:1 chat_template: a merged adapter has no template; set it where the adapter "
        "is served",
    ],
    "merge_method: ties\nbase_model: base\nslices: []\n": [
        "merge.yml:3:1 slices: an adapter's layers keep their places; list whole models under "
        "`models`"
    ],
    models(DE, EN, merge_method="ties"): [
        "merge.yml:1:1 base_model is missing; name the model that the adapters are for"
    ],
    ties(DE, EN, tokenizer_source="union", dtype="float64"): [
        "merge.yml:3:1 tokenizer_source: a merged adapter has no tokenizer; remove it: an adapter "
        "is used with its base's tokenizer",
        "merge.yml:4:1 dtype: unknown 'float64'; expected one of float32, bfloat16, float16",
    ],
    ties(DE, ("a/en", "{wieght: 1, normalize: true, gamma: 0.1}")): [
        "merge.yml:7:18 models[1].parameters.wieght: unknown parameter; did you mean 'weight'?",
        "merge.yml:7:29 models[1].parameters.normalize: is not read from one model; move it to "
        "the parameters of the whole merge",
        "merge.yml:7:46 models[1].parameters.gamma: the method does not read it; expected one of "
        + USED,
        "merge.yml:6:5 models[1].model: has no weight; give it one in its parameters",
    ],
    ties(("a/de", "{weight: 1, density: 0.5}"), ("a/en", "{weight: 1, density: 0.7}")): [
        "merge.yml:7:29 models[1].parameters.density: is another than the first adapter's; "
        "expected one density for all adapters"
    ],
    ties(DE, EN, parameters="{density: [1, 0.5], rescale: true, normalize: 2}"): [
        "merge.yml:3:14 parameters.density: a gradient over the layers needs their number; "
        "expected the base model's configuration at 'base/config.json'; fetch the base, or give "
        "one number, or filters such as {filter: layers.3., value: 0.5}",
        "merge.yml:3:48 parameters.normalize: 2 is no truth value of the whole merge; expected "
        "true or false",
        "merge.yml:3:33 parameters.rescale: recipe 'ties' never rescales",
    ],
    ties(DE, EN, parameters="{density: [{filter: 'mlp*', value: 0.5}, {value: x}]}"): [
        "merge.yml:3:24 parameters.density[0]: the filter 'mlp*' cannot be kept; expected a part "
        "of a module's name, such as mlp or layers.3.",
        "merge.yml:3:54 parameters.density[1]: 'x' is no number; expected a number",
    ],
    ties(DE, DE, ("a/en@main", "{weight: 1}")): [
        "merge.yml:8:5 models[2].model: 'a/en@main' is a revision on a hub, and no folder; fetch "
        "it with `hf download a/en --revision main --local-dir FOLDER` and name the folder",
        "merge.yml:6:5 models[1].model: 'a/de' is there twice; keep one of them",
    ],
    ties(DE).replace("base+", "other+"): [
        "merge.yml:4:5 models[0].model: is for the base 'other'; expected 'base', as elsewhere"
    ],
    ties(DE).replace("+a/de", "2"): [
        "merge.yml:4:5 models[0].model: 'base2' is a whole model and no adapter; extract an "
        "adapter from it first (`mergekit-extract-lora`)"
    ],
    ties(("", "{}")): ["merge.yml:3:1 models: there is no adapter; expected `model: base+lora`"],
    models(DE, EN, merge_method="linear", parameters="{normalize: false}"): [
        "merge.yml:2:14 parameters.normalize: false multiplies the base by the sum of the "
        "weights, 1.5; expected true, or weights that add up to 1"
    ],
    models(DE, EN, merge_method="linear", **BASE): [
        "merge.yml:2:1 base_model: linear takes it for one more model, and it has no weight; "
        "remove it, or list it under models with a weight"
    ],
    ties(DE, EN, parameters="{density: 0}"): [
        "merge.yml density is 0.0; expected a number greater than 0"
    ],
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_kept_is_said_key_by_key(tmp_path, text):
    with pytest.raises(InputError) as error:
        read_mergekit(configuration(tmp_path, text))
    assert [str(one) for one in each(error.value)] == REFUSED[text]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A tiny Llama with three adapters of rank 4, as mergekit finds them: from this folder."""
    pytest.importorskip("mergekit", reason="mergekit is not installed; it is LGPL and no extra")
    return tiny_llama(tmp_path_factory.mktemp("mergekit"), ("a/de", "a/en", "a/fr"))


@pytest.mark.parametrize("name", CASES)
def test_the_merge_is_mergekit_s_own(work, tmp_path, monkeypatch, name):
    """Base and update together; at density 1 where masks are random."""
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    monkeypatch.chdir(work)
    text, _ = CASES[name]
    options = MergeOptions(
        lora_merge_cache=str(work / "cache"), copy_tokenizer=False, write_model_card=False
    )
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(text)), str(tmp_path / "its"), options
    )
    found = read_mergekit(configuration(tmp_path, text)).with_rank(24)
    merge_adapters(found.adapters, found.settings, trunk=found.trunk, out=tmp_path / "ours")
    wanted = load_file(tmp_path / "its" / "model.safetensors")
    whole = load_file(work / "base" / "model.safetensors")
    with open_adapter(tmp_path / "ours") as adapter:
        assert len(adapter.header.modules) == 6
        for module in adapter.header.modules:
            factors = adapter.factors(module)
            update = (wanted[f"{module}.weight"] - whole[f"{module}.weight"]).double()
            gap = (factors.B.double() @ factors.A.double() - update).abs().max()
            assert gap <= CLOSE * wanted[f"{module}.weight"].abs().max(), module


@pytest.mark.parametrize("method", ["[ties]", "{ties: 1}"])
def test_a_method_that_is_no_name(tmp_path, method):
    with pytest.raises(InputError, match=r"merge.yml:1:1 merge_method: unknown '.*ties"):
        read_mergekit(configuration(tmp_path, f"merge_method: {method}\nmodels: []\n"))

"""What a merge warns of: it was done as asked, and is probably not what was meant."""

import json

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from koinize.adapter import Factors
from koinize.cli import merge as commands
from koinize.engine import merge_adapters
from koinize.engine.sizes import Sizes
from koinize.merge import decompose
from tests.peft_folders import SHAPES, Q, deltas, save

NOTHING_KEPT = (
    "the merge is zero in 2 of 2 modules that adapters change: the density keeps nothing there, or "
    "they cancel"
)
IDLE_SCOPE = "at density 1 recipe 'ties' keeps every entry; without effect: scope"


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr", "ja"))}


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"recipe": "ties"}, ()),  # electing alone is a merge of its own
        ({"recipe": "ties", "scope": "adapter"}, (IDLE_SCOPE,)),
        ({"recipe": "dare-ties"}, ("at density 1 recipe 'dare-ties' keeps every entry",)),
        ({"recipe": "dare-ties", "density": 0.9}, ()),
        ({"recipe": "dare-ties", "overrides": {"q_proj": {"density": 0.9}}}, ()),
        (
            {"recipe": "breadcrumbs", "outliers": 0.2},
            ("at density 1 recipe 'breadcrumbs' keeps every entry; without effect: outliers",),
        ),
        ({"recipe": "ties", "density": 1e-9}, (NOTHING_KEPT,)),  # int(1e-9 n) = 0
        ({"recipe": "mean", "weights": {"en": -1.0}}, ()),  # a sum of 1 of 3
        (
            {"recipe": "mean", "weights": {"en": -2.0, "fr": 1.03125}},  # a sum of 1/32 of 4 1/32
            ("the weights nearly cancel: a mean divides by their sum, 0.03125",),
        ),
        ({"recipe": "sum", "weights": {"en": -2.0, "fr": 1.03125}}, ()),
    ],
)  # fmt: skip
def test_settings_that_do_little(tmp_path, adapters, settings, warnings):
    report = merge_adapters(adapters, out=tmp_path / "out", **settings)
    assert tuple(one for one in report.warnings if "change of rank" not in one) == warnings


def zeroed(folder, *modules):
    """The adapter with these modules as they are before training."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for module in modules:
        tensors[f"base_model.model.{module}.lora_B.weight"].zero_()
    save_file(tensors, path)
    return folder


def test_a_module_that_nobody_trained(tmp_path, adapters):
    for folder in adapters.values():
        zeroed(folder, Q)
    report = merge_adapters(adapters, recipe="mean", out=tmp_path / "out")
    assert report.warnings == (
        "no adapter changes 1 of 2 modules, in 'model': they were adapted and not trained",
    )


def test_an_adapter_that_was_never_trained(tmp_path, adapters):
    zeroed(adapters["fr"], *SHAPES)
    for recipe in ({"recipe": "mean"}, {"recipe": "knots-ties", "density": 0.5}):
        report = merge_adapters(adapters, **recipe, out=tmp_path / recipe["recipe"])
        assert (
            "fr changes nothing: every update is zero, so it was never trained" in report.warnings
        )


@pytest.mark.parametrize(("times", "said"), [(5, None), (20, "20"), (0.2, None), (0.05, "0.05")])
def test_an_adapter_that_is_far_larger_or_smaller(tmp_path, times, said):
    """Than the middle one. The others are one adapter, so that the ratio is exact."""
    folders = {name: save(tmp_path / name, 1) for name in ("de", "en", "fr")}
    path = folders["fr"] / "adapter_model.safetensors"
    save_file(
        {key: one * (times if "lora_B" in key else 1) for key, one in load_file(path).items()}, path
    )
    warnings = merge_adapters(folders, recipe="mean", out=tmp_path / "out").warnings
    found = [one for one in warnings if "times as large" in one]
    if said is None:
        assert not found
    else:
        assert found == [
            f"fr is {said} times as large as the others (Frobenius norm): look at its training, "
            "its alpha and its rank"
        ]


def test_sizes_are_looked_at_in_every_kind_of_module(tmp_path):
    """28 layers of seven modules; an adapter is far larger in one of the seven kinds only."""
    kinds = ("mlp.a", "mlp.b", "mlp.c", "self_attn.k", "self_attn.o", "self_attn.q", "self_attn.v")
    names = [f"model.layers.{layer}.{kind}" for layer in range(28) for kind in kinds]
    for kind in kinds:
        sizes = Sizes(sorted(names))
        for name in sorted(names):
            update = Factors(B=torch.ones(4, 1), A=torch.ones(1, 4))
            larger = Factors(B=update.B * 1000, A=update.A) if name.endswith(kind) else update
            sizes.note(name, {"de": update, "en": update, "fr": larger})
        (warning,) = sizes.warnings()
        assert warning.startswith("fr is ")


def test_an_adapter_that_is_zero_wherever_sizes_are_taken(tmp_path):
    """Two of three are alive in one module only; there is no middle to compare with."""
    names = [f"model.layers.{layer}.q" for layer in range(100)]
    one, none = Factors(B=torch.ones(4, 1), A=torch.ones(1, 4)), torch.zeros(4, 1)
    sizes = Sizes(sorted(names))
    alive = next(name for name in sorted(names) if name not in sizes._sampled)
    for name in names:
        zero = Factors(B=none, A=one.A, bound=0.0)
        some = one if name == alive else zero
        sizes.note(name, {"de": some, "en": some, "fr": one})
    assert list(sizes.warnings()) == []


def test_one_adapter_under_two_names(tmp_path, adapters):
    report = merge_adapters({**adapters, "de": adapters["ja"]}, recipe="mean", out=tmp_path / "out")
    assert report.warnings == ("de, ja are one and the same adapter",)


def test_weights_are_stated_to_the_last_digit(tmp_path, adapters):
    weights = {"en": 0.1, "fr": -0.9999999, "ja": 2.0}
    report = merge_adapters(adapters, recipe="sum", weights=weights, out=tmp_path / "out")
    assert report.settings.describe() == "sum weights en=0.1,fr=-0.9999999,ja=2"
    card = (report.out / "README.md").read_text()
    assert "\n| en | 0.1 | `" in card
    assert "\n| fr | -0.9999999 | `" in card
    assert "\n| ja | 2 | `" in card


def test_decompositions_of_another_library_are_counted(tmp_path, adapters, monkeypatch):
    """The merge is the same to rounding, whichever library got it right."""
    settings = {"recipe": "core-ties", "density": 0.5, "rank": 2}
    sound = merge_adapters(adapters, out=tmp_path / "sound", **settings)
    assert sound.repeated == {}
    calls = []

    def wrong(matrix):  # NaN, as some libraries give for some matrices, and only at first
        calls.append(len(matrix))
        values, vectors = np.linalg.eigh(matrix)
        return (values * np.nan if len(calls) == 1 else values), vectors

    monkeypatch.setattr(
        decompose, "_eigh_first", lambda matrix: map(torch.as_tensor, wrong(matrix))
    )
    app = typer.Typer()
    commands.register(app)
    shown = CliRunner().invoke(
        app,
        ["merge", *(f"{name}={folder}" for name, folder in adapters.items()), "-o",
         str(tmp_path / "out"), "--recipe", "core-ties", "--density", "0.5", "--rank", "2",
         "--json"],
    )  # fmt: skip
    assert json.loads(shown.stdout)["repeated_decompositions"] == {min(SHAPES): 1}
    assert (
        "note: 1 decompositions in 1 modules were repeated by another library, because the first "
        "one's result was none"
    ) in shown.stderr
    repeated = deltas(tmp_path / "out")
    for name, update in deltas(sound.out).items():
        assert np.abs(update - repeated[name]).max() <= 1e-5 * np.abs(update).max()

"""Training on a base in 4 bit, by bitsandbytes itself where it is installed (on a CPU, too).

The oracle is a base whose weights are what the 4 bit stand for, in the base's own dtype: on it
everything is trained as on any other. A CPU multiplies the same matrices both times, so that the
factors have the same bits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.digest import file_digest
from koinize.errors import InputError
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import Loaded, load_model
from koinize.model.quantized import is_quantized
from koinize.settings import LoraSpec, TrainingSpec
from koinize.train import train, train_together
from koinize.train.recompute import recomputing
from koinize.train.targets import linear_targets
from tests.train.test_experts import ATTENTION, EXPERTS, MIXTURES, SHAPE
from tests.train.test_saving import EARLY, Stop, saving
from tests.train.test_together import ROUNDING, apart, digests, rows, several

WEIGHTS = "adapter_model.safetensors"
DTYPE = "bfloat16"

bitsandbytes = pytest.importorskip("bitsandbytes")


def written(folder: Path, model: nn.Module, dtype: str = DTYPE) -> Path:
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def whole(of: Loaded, model: nn.Module) -> nn.Module:
    """The model with what the 4 bit of another one stand for."""
    for name, module in of.model.named_modules():
        if is_quantized(module):
            weight = module.weight
            stands_for = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            with torch.no_grad():
                model.get_submodule(name).weight.copy_(stands_for)
    return model


class Bases:
    """One base in 4 bit, with what that stands for, and as it was."""

    def __init__(self, folder: Path, family: str, dtype: str) -> None:
        def made() -> nn.Module:
            # Of sizes that fit a CPU's kernel for scoring, which has no way back.
            return tiny_model(1, family=family, hidden_size=64, intermediate_size=128, head_dim=32)

        place = written(folder / "full", made(), dtype)
        self.full = load_model(place, dtype, "cpu", name="tiny")
        self.four = load_model(place, dtype, "cpu", name="tiny", in_4bit=True)
        place = written(folder / "oracle", whole(self.four, made()), dtype)
        self.oracle = load_model(place, dtype, "cpu", name="tiny")


@pytest.fixture(scope="module", params=[("llama", "bfloat16"), ("gemma3", "float32")])
def bases(request, tmp_path_factory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"), *request.param)


@pytest.fixture(autouse=True)
def one_thread():
    """Of which sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_linear_layers_are_in_4_bit_and_nothing_else(bases: Bases) -> None:
    kinds = {name: type(one) for name, one in bases.full.model.named_modules()}
    for name, module in bases.four.model.named_modules():
        inner = kinds[name] is nn.Linear and name != "lm_head"
        assert is_quantized(module) == inner, name
        if inner:
            assert module.weight.dtype == torch.uint8
            assert module.weight.numel() == module.in_features * module.out_features // 2
            assert module.compute_dtype == bases.four.dtype
            assert module.weight.quant_state.nested
            assert module.weight.quant_state.quant_type == "nf4"
    assert bases.four.dtype == bases.full.dtype


def test_it_learns_as_on_what_the_4_bit_stand_for(bases: Bases, tmp_path: Path) -> None:
    training = TrainingSpec(epochs=3, batch_size=4, learning_rate=1e-2)
    before = digests(bases.four)
    reports = {
        name: train(base, rows("en", 10), rows("en", 3), LoraSpec(r=4), training, tmp_path / name)
        for name, base in vars(bases).items()
    }
    assert digests(bases.four) == before
    four, oracle, full = reports["four"], reports["oracle"], reports["full"]
    assert four.losses == oracle.losses
    assert four.dev_losses == oracle.dev_losses
    assert apart(tmp_path / "four", tmp_path / "oracle") == 0
    assert four.losses[-1] < four.losses[0] / 2
    # A weight in NF4 is off by some 7 % of its block's spread: the loss moves, and not far.
    assert 0 < abs(four.losses[0] / full.losses[0] - 1) < 0.05


@pytest.mark.slow
def test_many_at_once_learn_as_on_what_the_4_bit_stand_for(bases: Bases, tmp_path: Path) -> None:
    train_together(bases.four, several(tmp_path / "four"))
    train_together(bases.oracle, several(tmp_path / "oracle"))
    for one in (tmp_path / "oracle").iterdir():
        assert apart(tmp_path / "four" / one.name, one) <= ROUNDING


def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(
    bases: Bases, tmp_path: Path
) -> None:
    given = rows("ja", 7), rows("ja", 2), LoraSpec(r=2, dropout=0.2), replaced(EARLY)
    train(bases.four, *given, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(bases.four, *given, tmp_path / "cut", Stop(3), saving=saving(tmp_path / "home"))
    went_on = saving(tmp_path / "home")
    train(bases.four, *given, tmp_path / "again", saving=went_on)
    assert went_on.steps_before == 3
    assert file_digest(tmp_path / "again" / WEIGHTS) == file_digest(tmp_path / "whole" / WEIGHTS)


def replaced(training: TrainingSpec) -> TrainingSpec:
    return training.model_copy(update={"epochs": 3})


def test_layers_that_are_run_again_and_a_start_change_nothing(bases: Bases, tmp_path: Path) -> None:
    training = TrainingSpec(epochs=1, batch_size=4)
    given = rows("ja", 7), rows("ja", 2), LoraSpec(r=2), training
    train(bases.four, *given, tmp_path / "trunk")
    branch = [replace(row, target=" quiz") for row in given[0]], *given[1:]
    train(bases.four, *branch, tmp_path / "plain", start=tmp_path / "trunk")
    with recomputing(bases.four.backbone):
        train(bases.four, *branch, tmp_path / "again", start=tmp_path / "trunk")
    assert file_digest(tmp_path / "again" / WEIGHTS) == file_digest(tmp_path / "plain" / WEIGHTS)
    train(bases.oracle, *branch, tmp_path / "oracle", start=tmp_path / "trunk")
    assert apart(tmp_path / "plain", tmp_path / "oracle") == 0


@pytest.mark.parametrize("family", MIXTURES)
def test_the_experts_of_a_mixture_stay_as_they_are(tmp_path: Path, family: str) -> None:
    config = AutoConfig.for_model(family, **SHAPE | MIXTURES[family] | {"vocab_size": 300})
    place = written(tmp_path, AutoModelForCausalLM.from_config(config))
    four, full = (load_model(place, DTYPE, "cpu", in_4bit=one) for one in (True, False))
    for lora in (LoraSpec(), EXPERTS):
        assert linear_targets(four.model, lora) == linear_targets(full.model, lora)
    changed = {name for name, one in four.model.named_modules() if is_quantized(one)}
    assert {name.rpartition(".")[2] for name in changed} == set(ATTENTION)
    report = train(four, rows("en", 4), [], EXPERTS, TrainingSpec(epochs=1), tmp_path / "out")
    assert report.losses[0] > 0


def test_a_family_that_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=300, n_embd=32, n_layer=1, n_head=2)
    place = written(tmp_path, AutoModelForCausalLM.from_config(config))
    with pytest.raises(InputError, match="'gpt2' cannot have its weights in 4 bit"):
        load_model(place, DTYPE, "cpu", in_4bit=True)

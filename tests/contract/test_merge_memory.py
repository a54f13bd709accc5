"""What every recipe promises about memory and devices, measured on its tensors."""

import math
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from koinize.adapter import AdapterHeader, Factors, ModuleHeader
from koinize.engine.memory import byte_count, module_bytes, modules_at_once
from koinize.engine.plan import Inputs
from koinize.engine.stream import MergeStream
from koinize.errors import InputError, StepError
from koinize.merge import place
from koinize.merge.compose import merge_module, stacks
from koinize.merge.groups import merge_groups
from koinize.merge.recipe import RECIPES, merge_settings
from koinize.merge.scope import lower_counts, upper_counts

pytestmark = pytest.mark.slow

every_recipe = pytest.mark.parametrize("recipe", RECIPES.names())
LANGUAGES = ("de", "en", "fr")
OUTPUTS, INPUTS, RANK = 560, 640, 6  # above the side at which approximation becomes random


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that were made within it, and their largest sum."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key, size):
        self.seen.discard(key)
        self.now -= size


def updates(outputs=OUTPUTS, inputs=INPUTS):
    random = torch.Generator().manual_seed(1)
    return {
        language: Factors(
            torch.randn(outputs, RANK, generator=random),
            torch.randn(RANK, inputs, generator=random),
        )
        for language in LANGUAGES
    }


def trunk(outputs=OUTPUTS, inputs=INPUTS):
    random = torch.Generator().manual_seed(2)
    return Factors(
        torch.randn(outputs, RANK, generator=random), torch.randn(RANK, inputs, generator=random)
    )


def headers(outputs=OUTPUTS, inputs=INPUTS, *, start=None):
    module = ModuleHeader("m", RANK, inputs, outputs, 1.0, None, None)
    header = AdapterHeader(Path("x"), "base", None, None, False, None, {"m": module}, ())
    return Inputs(dict.fromkeys(LANGUAGES, header), None if start is None else header)


def configured(recipe, **more):
    used = {"density": 0.5, "seed": 3}
    options = {key: used[key] for key in RECIPES.get(recipe).options if key in used}
    return merge_settings(recipe=recipe, **options, **more)


def variants(recipe):
    yield configured(recipe)
    yield configured(recipe, rank=4)
    yield configured(recipe, rank=100)
    yield configured(recipe, rank=0.99)
    if "rescale" in RECIPES.get(recipe).options:
        yield configured(recipe, rescale="l1")


def starts(*shape):
    return None, trunk(*shape)


@every_recipe
def test_a_module_takes_no_more_than_the_plan_says(recipe):
    """Tensors of torch by their storage, arrays of numpy by tracemalloc, peaks added."""
    for settings, start in product(variants(recipe), starts()):
        given = updates()
        read = [*given.values(), *([start] if start else [])]
        inputs = sum(4 * (one.A.numel() + one.B.numel()) for one in read)
        with Live():  # imports and caches are no part of a merge
            merge_module("m", given, settings, trunk=start)
        tracemalloc.start()
        with Live() as live:
            merge_module("m", given, settings, trunk=start)
        arrays = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        planned = module_bytes(headers(start=start), settings, "m")
        assert inputs + live.peak + arrays <= planned, settings


@pytest.mark.parametrize("recipe", ["mean", "knots-ties", "core-ties"])
def test_groups_take_no_more_than_the_plan_says(recipe):
    groups = (("de", "fr"), ("en",))
    for settings, start in product(variants(recipe), starts()):
        given = updates()
        read = [*given.values(), *([start] if start else [])]
        inputs = sum(4 * (one.A.numel() + one.B.numel()) for one in read)
        with Live():
            merge_groups("m", groups, given, settings, trunk=start)
        tracemalloc.start()
        with Live() as live:
            merge_groups("m", groups, given, settings, trunk=start)
        arrays = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        planned = module_bytes(replace(headers(start=start), groups=groups), settings, "m")
        assert inputs + live.peak + arrays <= planned, settings


@pytest.mark.parametrize("recipe", ["ties", "knots-ties", "core-ties"])
@pytest.mark.parametrize("languages", [3, 20])
def test_thresholds_over_the_whole_adapter_take_no_more_either(recipe, languages):
    given = {f"l{n:02}": update for n, update in enumerate(list(updates().values()) * 7)}
    given = dict(list(given.items())[:languages])
    settings = configured(recipe, scope="adapter")
    one = next(iter(headers().adapters.values()))
    inputs = sum(4 * (one.A.numel() + one.B.numel()) for one in given.values())
    groups = dict.fromkeys(given, 0x3F80)
    stacks("m", given, settings)
    for count, more in ((upper_counts, ()), (lower_counts, (groups,))):
        with Live() as live:
            count(stacks("m", given, settings), given, *more)
        assert inputs + live.peak <= module_bytes(Inputs(dict.fromkeys(given, one)), settings, "m")


@pytest.mark.parametrize("recipe", ["ties", "dare-ties", "knots-ties", "core-ties"])
@pytest.mark.parametrize("kind", ["equal magnitudes", "zeros beside others"])
def test_twenty_awkward_languages_take_no_more_than_the_plan_says(recipe, kind):
    signs = updates()["de"]
    signs = Factors(B=signs.B[:, :1].sign(), A=signs.A[:1].sign())
    awkward = Factors(B=signs.B * (kind == "equal magnitudes"), A=signs.A)
    plain = [Factors(B=one.B[:, :1], A=one.A[:1]) for one in updates().values()]
    given = {f"l{n:02}": awkward if n % 2 else plain[n % 3] for n in range(20)}
    module = ModuleHeader("m", 1, INPUTS, OUTPUTS, 1.0, None, None)
    header = AdapterHeader(Path("x"), "base", None, None, False, None, {"m": module}, ())
    inputs = sum(4 * (one.A.numel() + one.B.numel()) for one in given.values())
    settings = configured(recipe)
    with Live():
        merge_module("m", given, settings)
    tracemalloc.start()
    with Live() as live:
        merge_module("m", given, settings)
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert inputs + live.peak + arrays <= module_bytes(
        Inputs(dict.fromkeys(given, header)), settings, "m"
    )


@every_recipe
def test_every_tensor_is_made_where_the_factors_are(recipe):
    """With another default device, a tensor that forgets its place would mix the two and fail."""
    sizes = [(updates(*shape), start) for shape in ((20, 30), ()) for start in starts(*shape)]
    for (small, start), settings in product(sizes, variants(recipe)):
        here = merge_module("m", small, settings, trunk=start).factors
        with torch.device("meta"):
            there = merge_module("m", small, settings, trunk=start).factors
        assert torch.equal(here.A, there.A)
        assert torch.equal(here.B, there.B)


@every_recipe
def test_what_is_done_on_a_gpu_gives_the_same(monkeypatch, recipe):
    """The ways that only a GPU takes, taken by the CPU: the same within the rounding of float32."""
    for settings, start in product(variants(recipe), starts()):
        here = merge_module("m", updates(), settings, trunk=start)
        with monkeypatch.context() as patch:
            patch.setattr(place, "on_cpu", lambda _: False)
            there = merge_module("m", updates(), settings, trunk=start)
        assert there.error == pytest.approx(here.error, rel=1e-3, abs=1e-4)
        if recipe == "iso" and not start and settings.rank != "full":
            continue  # all singular values are equal: which of them are kept is arbitrary
        expected, found = (one.factors.B @ one.factors.A for one in (here, there))
        # Sums are added up in another order, so a nearly tied vote may turn over: some ten
        # roundings (2^-24) of the entries, each of which may count for as much as any other.
        assert float((found - expected).norm() / expected.norm()) <= math.sqrt(10 * 2.0**-24)


def test_sizes():
    table = {
        "1": 1, "1000": 1000, 17: 17, "1.5GB": 1_500_000_000, "2 MiB": 2 << 20, "0.5kb": 500,
        " 1 GiB ": 1 << 30,
    }  # fmt: skip
    assert {text: byte_count(text) for text in table} == table
    for text in ("", "GB", "-1GB", "1.5 bananas", "0", "1e9", "nan"):
        with pytest.raises(InputError) as caught:
            byte_count(text)
        assert str(caught.value) == (
            f"max-memory '{text}' cannot be read; expected bytes, or a number with a unit such as "
            "1.5GB or 512MiB"
        )


def test_the_modules_in_flight_follow_from_the_limit():
    settings = merge_settings(recipe="ties", density=0.5)
    one = module_bytes(headers(), settings, "m")
    written = 4 * 2 * 3 * RANK * (OUTPUTS + INPUTS)
    assert modules_at_once(headers(), settings, None, 4) == 5
    assert modules_at_once(headers(), settings, one + written, 4) == 1
    assert modules_at_once(headers(), settings, 2 * one + written - 1, 4) == 1
    assert modules_at_once(headers(), settings, 2 * one + written, 4) == 2
    assert modules_at_once(headers(), settings, 100 * one, 4) == 5
    with pytest.raises(InputError, match=r"^module 'm' needs "):
        modules_at_once(headers(), settings, one + written - 1, 4)


def test_a_whole_update_is_counted_in_the_dense_space_alone():
    dense = module_bytes(headers(4000, 9000), merge_settings(recipe="ties"), "m")
    core = module_bytes(headers(4000, 9000), merge_settings(recipe="core-ties"), "m")
    assert dense > 2 * 4 * 4000 * 9000
    assert core < 4000 * 9000


def test_a_device_whose_memory_is_full_is_a_failed_step(monkeypatch):
    """One line that names the module, the device and what to do; exit code 1."""

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("koinize.merge.compose.merge_module", full)
    monkeypatch.setattr(MergeStream, "_read", lambda *_: ({}, None))
    settings = merge_settings(recipe="knots-ties")
    with ThreadPoolExecutor(1) as pool, pytest.raises(StepError) as caught:
        list(MergeStream(headers(), settings, pool, 1, torch.device("cuda:1")).merged())
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        "the memory of device 'cuda:1' is too small for module 'm'; use device cpu, or a "
        "max-memory that keeps fewer modules in flight"
    )

"""Merging relative to a trunk, folders in and folder out."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from koinize.adapter import read_header
from koinize.cli import application
from koinize.engine import adapter_digest, merge_adapters
from koinize.engine.inspect import inspect_adapters
from koinize.engine.verify import verify_adapter
from koinize.errors import InputError, ManyErrors
from koinize.merge.recipe import RECIPES
from tests.peft_folders import SHAPES, Q, V, deltas, save

# float32 factors, sums of at most a dozen products of entries below 30.
CLOSE = 1e-4


def trained_on(folder, trunk, seed, step=0.1, modules=(Q, V)):
    """A branch: the trunk's tensors, moved a little in some modules."""
    save(folder, seed)
    path = folder / "adapter_model.safetensors"
    moved, start = load_file(path), load_file(trunk / "adapter_model.safetensors")
    tensors = {
        name: tensor + step * moved[name] * any(module in name for module in modules)
        for name, tensor in start.items()
    }
    save_file(tensors, path)
    return folder


@pytest.fixture
def trunk(tmp_path):
    return save(tmp_path / "trunk", 100)


@pytest.fixture
def branches(tmp_path, trunk):
    names = ("en", "fr", "ja")
    return {name: trained_on(tmp_path / name, trunk, seed) for seed, name in enumerate(names)}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(work, *given, **options):
    with pytest.raises(InputError) as caught:
        work(*given, **options)
    return str(caught.value)


def test_the_mean_of_the_differences_is_added_to_the_trunk(tmp_path, trunk, branches):
    options = {"recipe": "mean", "weights": {"en": 2.0}, "trunk": trunk}
    plain = merge_adapters(branches, **options, out=tmp_path / "plain")
    more = merge_adapters(branches, **options, scale=1.5, out=tmp_path / "more")
    parts, start = [deltas(folder) for folder in branches.values()], deltas(trunk)
    for module, found in deltas(more.out).items():
        mean = sum(w * part[module] for w, part in zip((2, 1, 1), parts, strict=True)) / 4
        assert np.abs(deltas(plain.out)[module] - mean).max() <= CLOSE
        exact = start[module] + 1.5 * (mean - start[module])
        assert np.abs(found - exact).max() <= CLOSE
    # At scale 1 nothing is left of the trunk that the branches do not hold.
    assert (plain.rank, more.rank, plain.error, more.error) == (9, 12, 0.0, 0.0)


@pytest.mark.parametrize("recipe", ["mean", "ties", "knots-ties", "core-ties"])
def test_one_branch_is_itself(tmp_path, trunk, branches, recipe):
    alone = {"fr": branches["fr"]}
    report = merge_adapters(alone, recipe=recipe, trunk=trunk, out=tmp_path / "out")
    for module, found in deltas(report.out).items():
        assert np.abs(found - deltas(branches["fr"])[module]).max() <= CLOSE


@pytest.mark.parametrize("recipe", sorted(set(RECIPES.names()) - {"tsv", "iso"}))
def test_a_branch_that_is_the_trunk_adds_nothing(tmp_path, trunk, branches, recipe):
    """Not merely little: where no branch moved the result is the trunk, to the last bit but one."""
    still = {
        name: trained_on(tmp_path / f"{name}2", trunk, seed, modules=(V,))
        for seed, name in enumerate(("en", "fr"))
    }
    report = merge_adapters(still, recipe=recipe, trunk=trunk, out=tmp_path / "out")
    scale = np.abs(deltas(trunk)[Q]).max()
    assert np.abs(deltas(report.out)[Q] - deltas(trunk)[Q]).max() <= 16 * 2**-24 * scale


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_bytes_depend_on_neither_order_nor_threads(tmp_path, trunk, branches, recipe):
    options = {"recipe": recipe, "rank": 4, "trunk": trunk}
    one = merge_adapters(branches, **options, out=tmp_path / "one")
    backwards = dict(reversed(branches.items()))
    two = merge_adapters(backwards, **options, out=tmp_path / "two", threads=3)
    assert contents(one.out) == contents(two.out)
    assert one.rank == 4


def test_updating_one_branch_equals_merging_from_scratch(tmp_path, trunk, branches):
    options = {"recipe": "knots-dare-ties", "density": 0.5, "seed": 5, "trunk": trunk}
    merge_adapters(branches, **options, out=tmp_path / "old")
    updated = {**branches, "fr": trained_on(tmp_path / "fr2", trunk, 9)}
    new = merge_adapters(updated, **options, out=tmp_path / "new")
    again = merge_adapters(dict(reversed(updated.items())), **options, out=tmp_path / "again")
    assert contents(new.out) == contents(again.out)
    assert contents(new.out) != contents(tmp_path / "old")


@pytest.mark.parametrize("scope", ["module", "adapter"])
def test_trimming_sees_the_differences(tmp_path, trunk, branches, scope):
    """Of one branch, density .5 of all entries; those of the trunk are not counted."""
    report = merge_adapters(
        {"en": branches["en"]},
        recipe="magnitude-prune", density=0.5, scope=scope, trunk=trunk, rank=0.999999,
        out=tmp_path / "out",
    )  # fmt: skip
    start, moved = deltas(trunk), deltas(branches["en"])
    steps = {module: moved[module] - start[module] for module in SHAPES}
    groups = [[Q, V]] if scope == "adapter" else [[Q], [V]]
    for group in groups:
        magnitudes = np.sort(np.abs(np.concatenate([steps[one].ravel() for one in group])))
        cut = magnitudes[-int(0.5 * len(magnitudes))]
        for module in group:
            exact = start[module] + np.where(np.abs(steps[module]) >= cut, steps[module], 0.0)
            error = np.linalg.norm(deltas(report.out)[module] - exact) / np.linalg.norm(exact)
            assert error <= 1.5e-3  # of an energy of 1 - 1e-6


def test_the_stated_error_is_that_of_trunk_and_merge(tmp_path, trunk, branches):
    options = {"recipe": "knots-ties", "density": 0.5, "trunk": trunk}
    full = merge_adapters(branches, **options, out=tmp_path / "full")
    cut = merge_adapters(branches, **options, rank=3, out=tmp_path / "cut")
    whole, kept = deltas(full.out), deltas(cut.out)
    lost = sum(np.square(whole[one] - kept[one]).sum() for one in whole)
    total = sum(np.square(whole[one]).sum() for one in whole)
    assert cut.error == pytest.approx((lost / total) ** 0.5, rel=1e-4)


def test_a_trunk_that_leaves_a_module_alone(tmp_path, branches):
    """D_T is 0 there, so that module is merged as without a trunk."""
    small = save(tmp_path / "small", 100, shapes={Q: SHAPES[Q]})
    options = {"recipe": "knots-ties", "density": 0.5}
    apart = merge_adapters(branches, **options, out=tmp_path / "apart")
    report = merge_adapters(branches, **options, trunk=small, out=tmp_path / "out")
    assert np.array_equal(deltas(report.out)[V], deltas(apart.out)[V])
    assert np.abs(deltas(report.out)[Q] - deltas(apart.out)[Q]).max() > 0.01


def test_card_verify_and_json(tmp_path, trunk, branches):
    merged = merge_adapters(
        branches, recipe="knots-ties", density=0.5, rank=3, trunk=trunk, out=tmp_path / "out"
    )
    identity = adapter_digest(read_header(trunk))
    assert merged.trunk == identity
    card = (merged.out / "README.md").read_text()
    stated = f"- Trunk (SHA-256): `{identity}`, the recipe merges differences from it.\n"
    assert stated in card
    found = verify_adapter(merged.out, branches, trunk=trunk)
    assert found.mismatches == ()
    assert found.checked[2:] == ("4 input digests", "the merge, done again")
    assert verify_adapter(merged.out, branches).mismatches == (
        "the card also names a trunk, whose folder was not given",
    )
    other = save(tmp_path / "other", 101)
    wrong = adapter_digest(read_header(other))
    assert verify_adapter(merged.out, branches, trunk=other).mismatches == (
        f"the card does not name a trunk with digest {wrong}",
    )
    assert refusal(verify_adapter, merged.out, trunk=trunk) == (
        "there is a trunk but no adapter; expected every LANGUAGE=FOLDER too"
    )
    without = merge_adapters(branches, recipe="mean", out=tmp_path / "without")
    assert verify_adapter(without.out, branches, trunk=trunk).mismatches == (
        f"the card does not name a trunk with digest {identity}",
    )


def test_the_command_line(tmp_path, trunk, branches):
    given = [f"{name}={folder}" for name, folder in branches.items()]
    runner, app, out = CliRunner(), application(), str(tmp_path / "out")
    done = runner.invoke(
        app, ["merge", *given, "--trunk", str(trunk), "-o", out, "--recipe", "mean", "--json"]
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["trunk"] == adapter_digest(read_header(trunk))
    checked = runner.invoke(app, ["verify", out, *given, "--trunk", str(trunk)])
    assert checked.exit_code == 0
    assert "holds: 4 input digests" in checked.stdout
    seen = runner.invoke(app, ["inspect", *given, "--trunk", str(trunk), "--json"])
    assert json.loads(seen.stdout)["norms"] == list(
        inspect_adapters(branches, trunk=trunk).total.norms
    )


def test_inspect_shows_the_differences(tmp_path, trunk, branches):
    found = inspect_adapters(branches, trunk=trunk).total
    start = deltas(trunk)
    steps = [
        np.concatenate([(deltas(one)[name] - start[name]).ravel() for name in sorted(SHAPES)])
        for one in branches.values()
    ]
    assert found.norms == pytest.approx([np.linalg.norm(step) for step in steps], rel=1e-5)
    cosine = steps[0] @ steps[1] / np.linalg.norm(steps[0]) / np.linalg.norm(steps[1])
    assert found.cosine[0][1] == pytest.approx(cosine, abs=1e-5)


def test_inspect_counts_directions_of_the_differences_alone(tmp_path, trunk):
    """A branch with the trunk's A differs from it in the columns of its step, and in no others."""
    folder = trained_on(tmp_path / "en", trunk, 1)
    path = folder / "adapter_model.safetensors"
    start = load_file(trunk / "adapter_model.safetensors")
    same = {
        name: start[name] if "lora_A" in name else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(same, path)
    found = inspect_adapters({"en": folder, "fr": trained_on(tmp_path / "fr", trunk, 2, step=0.0)},
                             trunk=trunk)  # fmt: skip
    assert found.total.energy_ranks == (1, 2, 3)
    assert found.total.modules == (2, 0)
    assert found.total.norms[1] == 0.0


def test_a_module_that_nobody_moved_is_no_end_of_inspect(tmp_path, trunk):
    alone = {"en": trained_on(tmp_path / "en", trunk, 1, step=0.0)}
    assert inspect_adapters(alone, trunk=trunk).total.modules == (0,)


def test_bad_trunks(tmp_path, trunk, branches):
    out = tmp_path / "out"

    def refused(start=trunk, adapters=branches, **options):
        return refusal(
            merge_adapters, adapters, trunk=start, **{"recipe": "mean", **options}, out=out
        )

    base = save(tmp_path / "base", 7, base_model_name_or_path="other/base")
    assert refused(base) == (
        f"{base} the trunk adapts other/base, 'en' adapts example/base; expected adapters of one "
        "base model; if the two are the same, make both adapter_config.json say so"
    )
    shape = save(tmp_path / "shape", 7, shapes={Q: (12, 11)})
    assert refused(shape) == (
        f"{shape} module '{Q}' is 12 x 11 in the trunk and 12 x 10 in 'en'; expected adapters of "
        "one base model"
    )
    assert refused(branches["fr"]) == (
        f"{branches['fr']} is the trunk, and 'fr' too: their difference is 0; expected adapters "
        "that were trained on from the trunk; leave 'fr' out; the trunk is part of the result in "
        "any case"
    )
    assert refused(weights={"trunk": 0.5}) == (
        "there is a weight for the trunk, which has none: it is added whole; use scale, or the "
        "languages' weights, for what is added to it"
    )
    some = save(tmp_path / "some", 3, shapes={Q: SHAPES[Q]})
    assert refused(adapters={**branches, "zh": some}) == (
        f"{some} 'zh' lacks module '{V}', which the trunk adapts; expected an adapter that was "
        "trained on from the trunk"
    )
    for options in ({"recipe": "ties", "space": "factor"}, {"recipe": "sum", "dialect": "peft"}):
        assert refused(**options) == (
            "space 'factor' merges A and B apart, and the difference of two updates is no "
            "difference of their factors: there is no merge relative to a trunk in it; merge in "
            "space 'dense', 'knots' or 'core'"
        )
    assert refused(tmp_path / "nothing").startswith(f"{tmp_path}/nothing does not exist")
    assert not out.exists()


def test_several_mistakes_at_once(tmp_path, trunk, branches):
    with pytest.raises(ManyErrors) as caught:
        merge_adapters(
            branches, recipe="mean", weights={"trunk": 1.0, "xx": 1.0}, trunk=trunk,
            out=tmp_path / "out",
        )  # fmt: skip
    assert len(str(caught.value).splitlines()) == 2


def test_a_trunk_of_another_dtype_decides_too(tmp_path, trunk, branches):
    for folder in branches.values():
        path = folder / "adapter_model.safetensors"
        save_file({name: one.to(torch.bfloat16) for name, one in load_file(path).items()}, path)
    with_trunk = merge_adapters(branches, recipe="mean", trunk=trunk, out=tmp_path / "one")
    alone = merge_adapters(branches, recipe="mean", out=tmp_path / "two")
    assert (with_trunk.dtype, alone.dtype) == ("float32", "bfloat16")


def test_whole_modules_of_a_trunk_have_to_be_the_same(tmp_path, trunk, branches):
    head = "base_model.model.lm_head.weight"
    for folder in (trunk, *branches.values()):
        path = folder / "adapter_model.safetensors"
        value = torch.ones(2, 2) * (2.0 if folder == trunk else 1.0)
        save_file({**load_file(path), head: value}, path)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(
            json.dumps({**config, "modules_to_save": ["lm_head"]})
        )
    assert refusal(
        merge_adapters, branches, recipe="mean", trunk=trunk, out=tmp_path / "out"
    ).startswith(
        f"{trunk} the whole module's tensor '{head}' differs between the trunk and 'en', and"
    )


def test_what_a_merge_from_a_trunk_warns_of(tmp_path, trunk, branches):
    still = trained_on(tmp_path / "zh", trunk, 8, step=0.0)
    config = json.loads((still / "adapter_config.json").read_text())
    (still / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    options = {"recipe": "magnitude-prune", "trunk": trunk, "rank": 8}
    beside = merge_adapters({**branches, "zh": still}, **options, out=tmp_path / "beside")
    assert beside.warnings == (
        "zh changes nothing: every difference from the trunk is zero, so it was never trained",
    )
    empty = merge_adapters(branches, **options, density=1e-9, out=tmp_path / "empty")
    assert empty.warnings == (
        "the merge adds nothing to the trunk in 2 of 2 modules that adapters change: the density "
        "keeps nothing there, or they cancel",
    )
    assert np.abs(deltas(empty.out)[Q] - deltas(trunk)[Q]).max() <= CLOSE

"""inspect, fuse, resize and verify, and the commands over them."""

import json
import math
import re
import sys

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from koinize.cli import merge as commands
from koinize.cli import modules_progress
from koinize.cli.modules_progress import counting_modules
from koinize.engine import merge_adapters
from koinize.engine.inspect import inspect_adapters
from koinize.engine.resize import resize_adapter
from koinize.errors import GateError, InputError
from tests.peft_folders import SHAPES, Q, V, base_model, deltas, merged, save


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr", "ja"))}


# --- inspect


def test_inspect_against_dense_matrices(adapters):
    found = inspect_adapters(adapters, threads=2)
    dense = [deltas(folder) for folder in adapters.values()]
    flat = [np.concatenate([one[name].ravel() for name in sorted(SHAPES)]) for one in dense]
    assert found.languages == ("en", "fr", "ja")
    total = found.total
    assert total.modules == (2, 2, 2)
    assert found.parameters == (3 * (12 + 10 + 6 + 14),) * 3
    assert total.norms == pytest.approx([np.linalg.norm(one) for one in flat], rel=1e-6)
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in flat] for a in flat]
    assert np.array(total.cosine) == pytest.approx(np.array(cosine), abs=1e-6)

    def overlap(one, other, side):
        values = []
        for name in SHAPES:
            bases = []
            for delta in (one[name], other[name]):
                U, _, Vt = np.linalg.svd(delta)
                bases.append(U[:, :3] if side == "columns" else Vt[:3].T)
            values.append((np.linalg.svd(bases[0].T @ bases[1])[1] ** 2).mean())
        return np.mean(values)

    columns = [[overlap(one, other, "columns") for other in dense] for one in dense]
    rows = [[overlap(one, other, "rows") for other in dense] for one in dense]
    assert np.array(total.column_overlap) == pytest.approx(np.array(columns), abs=1e-5)
    assert np.array(total.row_overlap) == pytest.approx(np.array(rows), abs=1e-5)

    def smallest_angle(one, other):
        bases = [np.linalg.svd(d)[0][:, :3] for d in (one, other)]
        return np.degrees(np.arccos(np.linalg.svd(bases[0].T @ bases[1])[1].max().clip(-1, 1)))

    angles = np.mean([smallest_angle(dense[0][name], dense[2][name]) for name in SHAPES])
    assert total.column_angle[0][2] == pytest.approx(angles, abs=1e-3)

    def rank(delta, share):
        energy = np.linalg.svd(delta, compute_uv=False) ** 2
        return 1 + int((energy.cumsum() < share * energy.sum()).sum())

    ranks = [[np.mean([rank(d, s) for d in one.values()]) for s in (0.9, 0.99)] for one in dense]
    assert np.array(total.ranks).tolist() == np.array(ranks).tolist()

    assert total.energy_ranks == (1, 2, 3)
    squares = [np.linalg.svd(d, compute_uv=False) ** 2 for d in dense[0].values()]
    kept = [sum(s[:k].sum() for s in squares) / sum(s.sum() for s in squares) for k in (1, 2, 3)]
    assert total.energy[0] == pytest.approx(kept, rel=1e-6)


def test_the_energy_is_what_resizing_keeps(tmp_path, adapters):
    """The relative error e of a resize to rank k leaves 1 - e^2 of the energy."""
    (kept,) = inspect_adapters({"en": adapters["en"]}).total.energy
    error = resize_adapter(adapters["en"], 2, out=tmp_path / "two").error
    assert kept[1] == pytest.approx(1 - error**2, rel=1e-5)


def test_sign_conflicts_are_counted(adapters):
    """Few rows, so that all of them are counted; the same adapter twice opposes itself nowhere."""
    twice = {"en": adapters["en"], "fr": adapters["en"]}
    assert inspect_adapters(twice).total.sign_conflict == ((0.0, 0.0), (0.0, 0.0))
    found = inspect_adapters(adapters)
    one, other = deltas(adapters["en"]), deltas(adapters["ja"])
    opposed = sum(((one[name] * other[name]) < 0).sum() for name in SHAPES)
    whole = sum(np.prod(shape) for shape in SHAPES.values())
    assert found.total.sign_conflict[0][2] == pytest.approx(opposed / whole, rel=1e-12)


def test_sampled_signs_are_near_the_gaussian_estimate(tmp_path):
    """64 of 4,000 rows: random adapters of cosine c oppose one another on arccos(c) / pi."""
    tall = {Q: (4000, 300)}
    folders = {name: save(tmp_path / name, seed, tall) for seed, name in enumerate(("en", "fr"))}
    total = inspect_adapters(folders).total
    expected = math.acos(total.cosine[0][1]) / math.pi
    # 19,200 entries that share 3 + 3 directions: a standard error of about .01.
    assert total.sign_conflict[0][1] == pytest.approx(expected, abs=0.04)


def test_inspect_by_layer_and_by_module(tmp_path, adapters):
    shapes = {f"model.layers.{layer}.{name}": (5, 4) for layer in (2, 10) for name in "qv"}
    shapes["lm_head"] = (5, 4)
    folders = {name: save(tmp_path / f"{name}2", seed, shapes) for seed, name in enumerate("de")}
    whole = inspect_adapters(folders)
    assert whole.parts == {}
    layers = inspect_adapters(folders, by="layer")
    assert list(layers.parts) == ["lm_head", "model.layers.2", "model.layers.10"]
    assert layers.total == whole.total
    assert layers.parts["model.layers.2"].modules == (2, 2)
    modules = inspect_adapters(folders, by="module").parts
    assert sorted(modules) == sorted(shapes)
    squares = sum(part.norms[0] ** 2 for part in modules.values())
    assert whole.total.norms[0] == pytest.approx(math.sqrt(squares), rel=1e-12)


def test_inspect_adapters_with_different_modules(tmp_path, adapters):
    lone = save(tmp_path / "de", 5, shapes={Q: (12, 10)})
    found = inspect_adapters({"de": lone, "en": adapters["en"]})
    one, other = deltas(lone)[Q], deltas(adapters["en"])
    norms = np.linalg.norm(one), math.hypot(*(np.linalg.norm(d) for d in other.values()))
    assert found.total.cosine[0][1] == pytest.approx((one * other[Q]).sum() / norms[0] / norms[1])
    assert found.total.modules == (1, 2)
    alone = inspect_adapters({"de": lone, "en": adapters["en"]}, by="module").parts[V]
    assert (alone.norms[0], alone.cosine[0][1], alone.column_overlap[0][1]) == (0.0, 0.0, 0.0)


# --- resize


def test_resize_is_the_best_approximation(tmp_path, adapters):
    report = resize_adapter(adapters["en"], 2, out=tmp_path / "out")
    lost = total = 0.0
    for name, delta in deltas(adapters["en"]).items():
        U, S, Vt = np.linalg.svd(delta)
        assert deltas(report.out)[name] == pytest.approx((U[:, :2] * S[:2]) @ Vt[:2], abs=1e-4)
        lost, total = lost + (S[2:] ** 2).sum(), total + (S**2).sum()
    assert report.rank == 2
    assert report.error == pytest.approx(math.sqrt(lost / total), abs=1e-6)


@pytest.mark.parametrize("rank", [3, 4])
def test_resize_says_when_the_rank_is_above_the_adapters(tmp_path, adapters, rank):
    report = resize_adapter(adapters["en"], rank, out=tmp_path / "out")
    assert (report.rank, report.error) == (3, 0.0)
    note = "rank 4 is above the adapter's own, 3, which the result keeps"
    assert report.warnings == ((note,) if rank == 4 else ())


@pytest.mark.parametrize("rank", ["full", "none", 0, -1, 0.0, 1.0, 2.5, math.nan, True])
def test_resize_refuses_what_is_no_rank(tmp_path, adapters, rank):
    with pytest.raises(InputError) as caught:
        resize_adapter(adapters["en"], rank, out=tmp_path / "out")
    assert str(caught.value) == (
        f"rank {rank!r} is not a number from 1, or a share between 0 and 1"
    )
    assert not (tmp_path / "out").exists()


# --- the command line


@pytest.fixture
def run():
    app = typer.Typer()
    commands.register(app)

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke


def given(adapters):
    return [f"{language}={folder}" for language, folder in adapters.items()]


def test_merge_command(tmp_path, adapters, run):
    options = ["--recipe", "ties", "--density", 0.5, "--rank", 2, "--weight", "fr=2", "--json"]
    options += ["--set", "layers.0.*:density=0.25", "--set", 'v_proj:weights={"ja": 0.5}']
    found = json.loads(run("merge", *given(adapters), "-o", tmp_path / "out", *options))
    assert found["settings"] == {
        "recipe": "ties",
        "density": 0.5,
        "weights": {"fr": 2.0},
        "rank": 2,
        "overrides": {"layers.0.*": {"density": 0.25}, "v_proj": {"weights": {"ja": 0.5}}},
    }
    assert found["modules"].keys() == SHAPES.keys()
    assert found["vllm_flags"] == "--enable-lora --max-lora-rank 8"
    assert found["dtype"] == "float32"
    text = run("merge", *given(adapters), "-o", tmp_path / "mean", "--recipe", "mean")
    assert text == (
        f"{tmp_path}/mean: mean, 2 modules\nrank 9, 0.00% lost by the change of rank\n"
        "written in float32, 24 significant bits\nvLLM: --enable-lora --max-lora-rank 16\n"
    )


def test_bad_arguments(tmp_path, adapters, run):
    some = given(adapters)
    table = [
        (["en"], "'en' cannot be read; expected LANGUAGE=FOLDER"),
        (["en=a", "en=b"], "'en' is given twice; expected each once, as LANGUAGE=FOLDER"),
        ([*some, "--set", "x"], "'x' cannot be read; expected PATTERN:OPTION=VALUE"),
        (
            [*some, "--set", "x:weights={en: 2}"],
            "'{en: 2}' cannot be read; expected JSON such as {\"en\": 2}",
        ),
        (
            [*some, "--rank", "0"],
            "rank 0 is not 'full', a number from 1, or a share between 0 and 1",
        ),
        (
            [*some, "--set", "mlp:density=0.5"],
            f"the override 'mlp' matches no module; expected a glob over names such as '{Q}'",
        ),
        (
            [*some, "--set", "*:seed=1"],
            "overrides['*']: 'seed' cannot differ from module to module; choose one of: density, "
            "epsilon, normalize, outliers, rank, rescale, scale, sign, weights",
        ),
    ]
    for arguments, message in table:
        with pytest.raises(InputError) as caught:
            run("merge", *arguments, "-o", tmp_path / "out")
        assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


def test_overrides_that_disagree(tmp_path, adapters, run):
    both = ["--set", "layers.0.*:density=0.5", "--set", "q_proj:density=0.4"]
    with pytest.raises(InputError) as caught:
        run("merge", *given(adapters), "-o", tmp_path / "out", *both)
    assert str(caught.value) == (
        f"module '{Q}' gets two values of 'density', from the overrides 'layers.0.*' and 'q_proj'; "
        "make the patterns disjoint"
    )


def test_overrides_change_their_modules_alone(tmp_path, adapters):
    plain = merge_adapters(adapters, recipe="knots-ties", out=tmp_path / "plain").out
    local = merge_adapters(
        adapters,
        recipe="knots-ties",
        overrides={"layers.0.*": {"density": 0.5, "rank": 2}},
        out=tmp_path / "local",
    )
    both = merge_adapters(
        adapters, recipe="knots-ties", density=0.5, rank=2, out=tmp_path / "b"
    ).out
    assert (deltas(local.out)[Q] == deltas(both)[Q]).all()
    assert (deltas(local.out)[V] == deltas(plain)[V]).all()
    assert [module.rank for module in local.modules] == [2, 6]


def test_the_other_commands(tmp_path, adapters, run):
    assert "knots-ties" in run("recipes")
    assert json.loads(run("recipes", "--json"))["ties"]["space"] == "dense"
    shown = run("inspect", *given(adapters), "--by", "layer")
    for title in (
        "cosine of the updates",
        "smallest principal angle, rows (A)",
        "energy kept by rank",
        "model.layers.1 ",
    ):
        assert title in shown
    with pytest.raises(InputError) as caught:
        run("inspect", *given(adapters), "--by", "modul")
    assert str(caught.value) == "there is no breakdown by 'modul'; did you mean 'module'?"
    assert json.loads(run("inspect", *given(adapters), "--json"))["languages"] == ["en", "fr", "ja"]
    assert run("resize", adapters["en"], "2", "-o", tmp_path / "two").startswith(
        f"{tmp_path}/two: rank 2, "
    )
    with pytest.raises(InputError) as caught:
        run("resize", adapters["en"], "full", "-o", tmp_path / "full")
    assert str(caught.value) == "rank 'full' is not a number from 1, or a share between 0 and 1"
    base, _ = base_model(tmp_path / "base", torch.bfloat16)
    assert "of the adapter's update was lost" in run(
        "fuse", adapters["en"], base, "-o", tmp_path / "fused"
    )
    out = merged(tmp_path, adapters)
    assert run("verify", out, *given(adapters)) == (
        "holds: 2 modules: shapes and finite values\nholds: 2 file digests\n"
        "holds: 3 input digests\nholds: the merge, done again\n"
    )
    swapped = {**adapters, "en": adapters["fr"], "fr": adapters["en"]}
    with pytest.raises(GateError, match="the card does not name 'en' with digest "):
        run("verify", out, *given(swapped))


def test_merge_command_takes_a_limit_and_a_device(tmp_path, adapters, run):
    options = ["--recipe", "mean", "--max-memory", "1.5GB", "--device", "cpu"]
    assert run("merge", *given(adapters), "-o", tmp_path / "out", *options).startswith(
        f"{tmp_path}/out: mean, 2 modules\n"
    )
    with pytest.raises(InputError) as caught:
        run("merge", *given(adapters), "-o", tmp_path / "no", "--max-memory", "lots")
    assert str(caught.value) == (
        "max-memory 'lots' cannot be read; expected bytes, or a number with a unit such as 1.5GB "
        "or 512MiB"
    )
    assert caught.value.exit_code == 2


def test_every_command_speaks_json(tmp_path, adapters, run):
    found = json.loads(run("resize", adapters["en"], "2", "-o", tmp_path / "two", "--json"))
    assert found["rank"] == 2
    assert found["modules"].keys() == SHAPES.keys()
    base, _ = base_model(tmp_path / "base", torch.bfloat16)
    found = json.loads(run("fuse", adapters["en"], base, "-o", tmp_path / "fused", "--json"))
    assert found.keys() == {"out", "modules", "loss"}
    assert 0.0 < found["loss"] < 0.1
    out = merged(tmp_path, adapters)
    assert json.loads(run("verify", out, *given(adapters), "--json")) == {
        "checked": [
            "2 modules: shapes and finite values",
            "2 file digests",
            "3 input digests",
            "the merge, done again",
        ],
        "mismatches": [],
    }
    inspected = json.loads(run("inspect", *given(adapters), "--by", "module", "--json"))
    assert inspected["parts"].keys() == SHAPES.keys()
    assert len(inspected["column_angle"]) == 3


def test_progress_in_plain_lines(capsys, monkeypatch):
    """One in five seconds and one at the end, with the rate and the time that is left."""
    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(modules_progress.time, "monotonic", lambda: next(clock))
    with counting_modules() as report:
        for done in (1, 3, 4, 8):
            report(done, 8)
    assert capsys.readouterr().err == (
        "3/8 modules, 0.5 modules/s, 10 s left\n8/8 modules, 0.667 modules/s, done\n"
    )
    with counting_modules(quiet=True) as report:
        assert report is None


def test_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with counting_modules() as report:
        report(1, 2)
        report(2, 2)
    shown = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"2/2 modules, [\d.e+]+ modules/s 0:00:0\d left 0:00:00", shown)


def test_norms_are_made_equal_by_overrides(tmp_path, adapters):
    """As docs/merging.md says: weights 1 / norm, module by module, from what `inspect` shows."""
    found = inspect_adapters(adapters, by="module")
    overrides = {
        module: {"weights": {one: 1 / n for one, n in zip(adapters, part.norms, strict=True)}}
        for module, part in found.parts.items()
    }
    report = merge_adapters(adapters, recipe="sum", overrides=overrides, out=tmp_path / "out")
    parts = [deltas(folder) for folder in adapters.values()]
    for module, merged_update in deltas(report.out).items():
        equal = sum(part[module] / np.linalg.norm(part[module]) for part in parts)
        assert np.abs(merged_update - equal).max() <= 1e-5


def test_a_scale_by_depth_is_two_overrides(tmp_path, adapters):
    local = {"layers.0.*": {"scale": 0.5}, "layers.[1-9].*": {"scale": 2.0}}
    report = merge_adapters(adapters, recipe="mean", overrides=local, out=tmp_path / "out")
    plain = deltas(merge_adapters(adapters, recipe="mean", out=tmp_path / "plain").out)
    found = deltas(report.out)
    assert np.abs(found[Q] - plain[Q] / 2).max() <= 1e-5
    assert np.abs(found[V] - plain[V] * 2).max() <= 1e-5

"""The study of generations: which rows a training sees, what is written, and a small run."""

from __future__ import annotations

import gzip
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from koinize.examples import write_example
from koinize.settings import EvaluationSection, TrainingSpec
from koinize.tasks import Example
from koinize.tasks.classify import Classify
from koinize.tasks.generate import Generate

STUDY = Path(__file__).parents[2] / "examples" / "generations"
MODULES = [path.stem for path in STUDY.glob("*.py")]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the study by its name, and forgets all of them afterwards."""
    import importlib

    monkeypatch.syspath_prepend(str(STUDY))
    for name in MODULES:
        sys.modules.pop(name, None)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def rows_of(counts: dict[str, int]) -> dict[str, tuple[Example, ...]]:
    return {
        language: tuple(
            Example(f"{language}{number:03}", language, f"text {number}", " x")
            for number in range(count)
        )
        for language, count in counts.items()
    }


def test_a_seed_draws_rows_whatever_their_order(load) -> None:
    scenarios = load("scenarios")
    rows = rows_of({"de": 40})["de"]
    drawn = scenarios.drawn(rows, 1, 12)
    assert drawn == scenarios.drawn(rows[::-1], 1, 12) == scenarios.drawn(rows, 1, None)[:12]
    assert set(drawn) != set(scenarios.drawn(rows, 2, 12))


def test_a_language_had_a_third_before_and_nothing_before_it_came(load) -> None:
    scenarios = load("scenarios")
    rows = rows_of({"de": 60, "ja": 61, "zh": 3})
    before = scenarios.with_part(rows, ["ja"], scenarios.BEFORE)
    assert {one: len(own) for one, own in before.items()} == {"de": 60, "ja": 21, "zh": 3}
    assert before["ja"] == rows["ja"][:21]
    assert scenarios.with_part(rows, ["zh"], 0.0).keys() == {"de", "ja"}
    # A third of 3 is 1 and not 2: 3 x (1/3) may be a little above 1 in floating point.
    assert len(scenarios.part(rows["zh"], 1 / 3)) == 1


def test_anchors_are_a_share_of_every_other_language_and_frozen(load) -> None:
    scenarios = load("scenarios")
    rows = rows_of({"de": 40, "en": 41, "ja": 60})
    found = scenarios.anchors(rows, "ja", 0.25, seed=3)
    assert [row.language for row in found] == ["de"] * 10 + ["en"] * 11
    shuffled = {one: own[::-1] for one, own in rows.items()}
    assert found == scenarios.anchors(shuffled, "ja", 0.25, seed=3)
    # Another language's new rows change no anchor of the others.
    more = rows | rows_of({"fr": 20})
    assert [row for row in scenarios.anchors(more, "ja", 0.25, seed=3) if row in found] == [*found]
    assert set(found) != set(scenarios.anchors(rows, "ja", 0.25, seed=4))


def test_a_branch_never_sees_rows_of_others_that_its_trunk_did_not_know(load) -> None:
    scenarios = load("scenarios")
    rows = rows_of({"de": 40, "ja": 60, "zh": 60})
    known = scenarios.with_part(rows, ["ja", "zh"], scenarios.BEFORE)
    found = scenarios.branch_rows(known, rows, "ja", scenarios.FULL, seed=0)
    assert found[:60] == rows["ja"]
    assert set(found[60:]) <= {*rows["de"], *known["zh"]}
    assert len(found) == 60 + 10 + 5


@pytest.mark.parametrize(
    ("visits", "rows", "epochs"), [(240, 240, 1), (300, 300, 1), (301, 150, 2), (900, 300, 3)]
)
def test_equal_compute_sees_as_many_rows_as_a_branch(load, visits, rows, epochs) -> None:
    scenarios = load("scenarios")
    some, found = scenarios.equal_compute(rows_of(dict.fromkeys(("de", "en", "ja"), 100)), visits)
    assert found == epochs
    assert rows <= len(some) <= rows + 3  # every language's part is rounded up
    assert {row.language for row in some} == {"de", "en", "ja"}


def test_the_weights_of_a_release_are_those_of_trunk_plus_differences(load) -> None:
    scenarios = load("scenarios")
    trunk, de, ja = 7.0, 10.0, 5.0
    weights = scenarios.sum_weights("trunk", ["de", "ja"], 0.75)
    value = sum(weights[name] * one for name, one in (("trunk", trunk), ("de", de), ("ja", ja)))
    assert value == trunk + 0.75 * (de - trunk) + 0.75 * (ja - trunk)
    assert scenarios.sum_weights("trunk", ["de"], 1.0) == {"trunk": 0.0, "de": 1.0}


def test_half_a_year_ends_with_all_rows_and_one_language_grows_a_month(load) -> None:
    scenarios = load("scenarios")
    rows = rows_of(dict.fromkeys(("de", "en", "fr", "ja", "zh"), 400))
    changes = scenarios.months(rows)
    sizes = [
        {one: len(own) for one, own in scenarios.rows_of_month(rows, changes, month).items()}
        for month in range(len(changes) + 1)
    ]
    assert set(sizes[0].values()) == {300}
    assert set(sizes[-1].values()) == {400}
    grown = [
        {one: after[one] - before[one] for one in after if after[one] != before[one]}
        for before, after in pairwise(sizes)
    ]
    assert grown == [{"de": 100}, {"ja": 50}, {"fr": 100}, {"zh": 100}, {"en": 100}, {"ja": 50}]


def test_a_lean_branch_costs_less_than_a_third_of_comb_and_both_ways_are_planned(load) -> None:
    arms = load("arms")
    rows = rows_of(dict.fromkeys(("de", "en", "fr", "ja", "zh"), 300))
    plan = arms.plan_of("main", rows, TrainingSpec(epochs=1), seed=0)
    seen = {one.name: len(one.rows) * one.settings.epochs for one in plan.trainings}
    assert seen["comb"] == 1500
    assert seen["update-ja-lean"] == seen["add-ja-lean"] == 300 + 4 * 30  # 28 %
    assert seen["update-ja-branch"] == 2 * (300 + 4 * 75) == seen["equal-branch"]
    assert seen["update-ja-trunk"] == 1300
    assert seen["update-ja-continued"] == 2 * 200
    assert seen["add-ja-trunk"] == 1200
    assert {one.settings.seed for one in plan.trainings} == {0}


def test_a_lean_study_has_the_way_at_30_percent_alone_and_chooses_nothing(load) -> None:
    arms = load("arms")
    rows = rows_of(dict.fromkeys(("de", "en", "fr", "ja", "zh"), 300))
    plan = arms.plan_of("main", rows, TrainingSpec(epochs=1), seed=0, lean=True)
    expected = {f"{what}/{one}/lean" for what in ("update", "add") for one in rows}
    assert {arm.name for arm in plan.arms} == {"comb", *expected}
    assert {label for arm in plan.arms for label in arm.candidates} == {"0", "0.5", "1"}
    assert len(plan.trainings) == 1 + 10 + 10  # COMB, trunks, branches
    # Where COMB sees every row three times, the way with two epochs is at 30 %.
    plan = arms.plan_of("main", rows, TrainingSpec(epochs=3), seed=0, lean=True)
    assert {arm.name.rpartition("/")[2] for arm in plan.arms} == {"comb", "branch"}


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [
        # COMB: 3 epochs of 300 / 8 = 38 steps, 114; half are 57. Trunks of 30, 60 and 150 rows.
        (3, {"0.1": 12, "0.1-long": 56, "0.2": 24, "0.2-long": 56, "0.5": 57}),
        # COMB: 38 steps, half are 19: 5 epochs of 4 steps, 2 of 8, and 1 of 19 is the task's own.
        (1, {"0.1": 4, "0.1-long": 20, "0.2": 8, "0.2-long": 16, "0.5": 19}),
    ],
)
def test_a_trunk_of_a_share_sees_that_share_and_has_half_of_combs_steps(
    load, epochs, steps
) -> None:
    arms, scenarios = load("arms"), load("scenarios")
    rows = rows_of(dict.fromkeys(("de", "en", "fr", "ja", "zh"), 60))
    plan = arms.plan_of("shares", rows, TrainingSpec(epochs=epochs), seed=0, lean=True)
    found = {one.name: one for one in plan.trainings}
    trunks = {name: found[f"share-{name}-trunk"] for name in steps}
    taken = {
        name: scenarios.steps(len(one.rows), one.settings.epochs, 8) for name, one in trunks.items()
    }
    assert taken == steps
    way = "lean" if epochs == 1 else "branch"
    assert {arm.name for arm in plan.arms} == {"comb", *(f"share/{one}/{way}" for one in steps)}
    assert len(found) == 1 + 5 * (1 + 5)
    branch = found[f"share-0.2-long-{way}-ja"]
    assert branch.start == ("share-0.2-long-trunk",)
    assert branch.rows[:60] == rows["ja"]
    # Anchors: of the 12 rows that the trunk knew of each other language.
    assert len(branch.rows) == 60 + 4 * (2 if epochs == 1 else 3)
    assert set(branch.rows[60:]) <= set(trunks["0.2"].rows)


def test_the_arms_of_a_share_are_the_trunk_the_average_the_mean_and_a_half(load) -> None:
    arms = load("arms")
    plan = arms.plan_of("shares", rows_of({"de": 20, "ja": 20}), TrainingSpec(epochs=3), seed=0)
    (arm,) = (arm for arm in plan.arms if arm.name == "share/0.1/branch")
    trunk, de, ja = "share-0.1-trunk", "share-0.1-branch-de", "share-0.1-branch-ja"
    assert {label: one.weights for label, one in arm.candidates.items()} == {
        "0": {trunk: 1.0},
        "0.5": {trunk: 0.0, de: 0.5, ja: 0.5},
        "mean": {trunk: 0.0, de: 0.5, ja: 0.5},
        "average": pytest.approx({trunk: 1 / 3, de: 1 / 3, ja: 1 / 3}),
    }
    assert {*arm.fixed} == {*arm.candidates}


def test_rounds_see_every_row_once_and_begin_at_the_mean_of_the_former(load) -> None:
    arms = load("arms")
    rows = rows_of({"de": 10, "ja": 11})
    plan = arms.plan_of("sync", rows, TrainingSpec(epochs=3), seed=0)
    found = {one.name: one for one in plan.trainings}
    sizes = [len(found[f"sync-4-from-base-{number}-ja"].rows) for number in (1, 2, 3, 4)]
    assert sizes == [2, 3, 3, 3]
    for way, first in (("from-base", ()), ("from-0.1", ("sync-0.1-trunk",))):
        for count in (2, 4):
            trainings = [found[f"sync-{count}-{way}-{at + 1}-ja"] for at in range(count)]
            assert tuple(row for one in trainings for row in one.rows) == rows["ja"]
            assert {one.settings.epochs for one in trainings} == {3}
            assert trainings[0].start == first
            assert trainings[1].start == (f"sync-{count}-{way}-1-de", f"sync-{count}-{way}-1-ja")
    (arm,) = (arm for arm in plan.arms if arm.name == "sync/2/from-base")
    last = {"sync-2-from-base-2-de": 0.5, "sync-2-from-base-2-ja": 0.5}
    assert {label: one.weights for label, one in arm.candidates.items()} == {"mean": last}
    # With three rows there are no four rounds.
    fewer = arms.plan_of("sync", rows_of({"de": 3, "ja": 11}), TrainingSpec(), seed=0)
    assert {arm.name.split("/")[1] for arm in fewer.arms if arm.name != "comb"} == {"2"}


def test_fewer_training_rows_leave_dev_and_test_whole(load) -> None:
    study = load("study")
    limits = study.Limits(train=200, dev=40)
    assert limits.smaller(None, 30) == study.Limits(train=30, dev=40)
    assert limits.smaller(None, 300) == limits
    assert limits.smaller(50, 60) == study.Limits(train=50, dev=40, test=50)
    assert study.Limits().smaller(None, None) == study.Limits()


def test_results_of_other_numbers_of_training_rows_are_not_mixed(
    load, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, journal = load("study"), load("journal")
    worked: list[int | None] = []
    monkeypatch.setattr(study, "work", lambda _, options, *__: worked.append(options.train_rows))
    few, whole = tmp_path / "few", tmp_path / "whole"
    for folder, most in ((few, {"train_rows": 30}), (whole, {})):  # formerly nothing was said
        one = journal.Journal(folder, 0)
        one.add({"what": "rows", "task": "reviews", "split": "dev", **most})
        one.flush()
    for folder, wanted, said in (
        (few, ["--train-rows", "60"], "--train-rows 30"),
        (few, [], "--train-rows 30"),
        (whole, ["--train-rows", "30"], "all training rows"),
    ):
        assert study.main([str(folder), *wanted]) == 2
        assert f"{folder} has results of {said}; give another folder" in capsys.readouterr().err
    assert worked == []
    assert study.main([str(few), "--train-rows", "30"]) == 0
    assert study.main([str(whole)]) == 0
    assert study.main([str(tmp_path / "new"), "--train-rows", "60"]) == 0
    assert worked == [30, None, 60]


@pytest.mark.parametrize("directions", [3, 1])
def test_a_mean_to_start_from_is_the_best_one_of_the_adapters_shape(
    load, tmp_path: Path, directions: int
) -> None:
    import numpy as np
    from safetensors.torch import load_file, save_file

    from koinize.adapter import read_header
    from koinize.settings import LoraSpec
    from koinize.train.lora import first_factors
    from tests.peft_folders import SHAPES, deltas, save

    folders = {one: save(tmp_path / one, seed) for seed, one in enumerate(("de", "ja"))}
    for folder in folders.values():
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor[:, directions:] = 0.0
        save_file(tensors, folder / "adapter_model.safetensors")
    starts, out = load("starts"), tmp_path / "starts" / "mean"
    lost = starts.write_mean(folders, out)
    each, found = [deltas(folder) for folder in folders.values()], deltas(out)
    squares = np.zeros(2)
    for name in SHAPES:
        left, sizes, right = np.linalg.svd((each[0][name] + each[1][name]) / 2)
        expected = (left[:, :3] * sizes[:3]) @ right[:3]
        np.testing.assert_allclose(found[name], expected, atol=1e-5)  # float32, entries about 1
        squares += sizes[3:] @ sizes[3:], sizes @ sizes
    assert lost == pytest.approx(math.sqrt(squares[0] / squares[1]), abs=1e-3)
    assert (lost > 0.01) == (directions == 3)
    # It is of the shape that a training goes on from, and no direction of A is dead.
    shapes = {name: (3, inputs, outputs) for name, (outputs, inputs) in SHAPES.items()}
    lora = LoraSpec(r=3, alpha=6)
    for _, (A, _) in first_factors(shapes, dict.fromkeys(shapes, 2.0), lora, out):
        assert (A.norm(dim=1) > 0.5).all()
    assert read_header(out).base_model == "example/base"
    assert [path.name for path in out.parent.iterdir()] == ["mean"]


def test_a_set_up_pays_for_all_its_trainings_and_waits_for_a_critical_path(load, tmp_path) -> None:
    journal, resampling = load("journal"), load("resampling")
    one = journal.Journal(tmp_path, 0)
    about = {"what": "train", "task": "reviews", "seed": 0, "group": "shares"}
    for name, tokens, start in (
        ("share-0.1-trunk", 10, []),
        ("share-0.1-long-trunk", 1000, []),
        ("share-0.1-branch-de", 20, ["share-0.1-trunk"]),
        ("share-0.1-branch-ja", 50, ["share-0.1-trunk"]),
        ("share-0.1-long-branch-de", 20, ["share-0.1-long-trunk"]),
        ("share-0.5-branch-de", 20, ["share-0.5-trunk"]),  # whose line is lost
        ("sync-2-from-base-1-de", 1, []),
        ("sync-2-from-base-1-ja", 2, []),
        ("sync-2-from-base-2-de", 4, ["sync-2-from-base-1-de", "sync-2-from-base-1-ja"]),
        ("sync-2-from-base-2-ja", 3, ["sync-2-from-base-1-de", "sync-2-from-base-1-ja"]),
    ):
        one.add({**about, "name": name, "tokens": tokens, "start": start})
    one.flush()
    results = resampling.Results(tmp_path, 10)
    arms = ("share/0.1/branch", "share/0.1-long/branch", "share/0.5/branch", "sync/2/from-base")
    paid = [results.paid(("reviews", 0, "shares", name)) for name in arms]
    assert paid == [(80, 60), (1020, 1020), None, (10, 6)]
    assert results.paid(("reviews", 1, "shares", arms[0])) is None


def answered(*said: str) -> dict[str, dict[str, list]]:
    scores = {"a": [2.0, 0.0], "b": [0.0, 2.0]}
    return {"de": {"prediction": [*said], "scores": [scores[one] for one in said]}}


def test_a_set_up_that_is_there_in_part_is_compared_with_the_comb_of_its_job(
    load, tmp_path
) -> None:
    journal, resampling, analysis = load("journal"), load("resampling"), load("analysis")
    one = journal.Journal(tmp_path, 0)
    gold = {"de": {"key": ["1", "2"], "gold": ["a", "b"], "index": [0, 1]}}
    for task in ("reviews", "topic"):
        line = {"what": "rows", "task": task, "split": "test", "rows": gold}
        one.add({**line, "metric": "accuracy", "labels": ["a", "b"]})
    for task, seed, group, name, candidate, said in (
        ("reviews", 0, "main", "comb", "1", "bb"),
        ("reviews", 0, "shares", "comb", "1", "ba"),
        ("reviews", 0, "shares", "share/0.1/branch", "mean", "aa"),
        ("reviews", 1, "shares", "share/0.1/branch", "mean", "aa"),  # its COMB is not there yet
        ("topic", 0, "main", "comb", "1", "bb"),
        ("topic", 0, "shares", "share/0.2/lean", "mean", "ab"),
    ):
        about = {"task": task, "seed": seed, "group": group, "name": name}
        line = {"what": "score", **about, "candidate": candidate, "split": "test", "tokens": 1}
        one.add({**line, "answers": answered(*said)})
    one.flush()
    made = analysis.Analysis(resampling.Results(tmp_path, 50))
    table = analysis.pooled_set_up_table(made)
    assert [row[:3] for row in table.rows] == [
        ("share: 0.1, lean or branch, mean of the branches", "1", "1"),
        ("share: 0.2, lean or branch, mean of the branches", "1", "1"),
    ]
    assert [row[3].split()[0] for row in table.rows] == ["+50.0", "+50.0"]
    table = analysis.scenario_table(made, "reviews", "share")
    assert [row[:2] for row in table.rows] == [("0.1, branch, mean of the branches", "1")]
    assert analysis.scenario_table(made, "reviews", "sync") is None


@pytest.mark.parametrize("group", ["main", "paper", "several", "half-year", "shares", "sync"])
def test_every_arm_of_a_job_has_its_trainings_in_an_earlier_wave(load, group: str) -> None:
    arms = load("arms")
    rows = rows_of(dict.fromkeys(("de", "en", "fr", "ja", "zh"), 40))
    plan = arms.plan_of(group, rows, TrainingSpec(epochs=3), seed=0)
    trained: set[str] = set()
    for wave in plan.waves():
        assert all(trained.issuperset(one.start) for one in wave)
        trained |= {one.name for one in wave}
    used = {n for arm in plan.arms for one in arm.candidates.values() for n in one.weights}
    assert used <= trained
    assert set(plan.needed(plan.arms)) == set(plan.trainings)
    assert len({arm.name for arm in plan.arms}) == len(plan.arms)
    for arm in plan.arms:
        assert set(arm.fixed) <= set(arm.candidates)
        for one in arm.candidates.values():
            assert one.recipe or group == "paper" or math.isclose(sum(one.weights.values()), 1.0)


def test_a_journal_that_was_cut_keeps_what_was_whole(load, tmp_path: Path) -> None:
    journal = load("journal")
    one = journal.Journal(tmp_path, 0)
    for number in range(3):
        one.add({"what": "arm", "name": str(number)})
        one.add({"what": "arm", "name": str(number)})  # changes nothing
        one.flush()
    path = tmp_path / "results-0.jsonl.gz"
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 3
    path.write_bytes(path.read_bytes()[:-5])
    assert [line["name"] for line in journal.read_all(tmp_path)] == ["0", "1"]
    again = journal.Journal(tmp_path, 1)
    assert again.has(what="arm", name="1")
    assert not again.has(what="arm", name="2")


def test_nll_is_over_the_options_or_a_token_of_the_reference(load) -> None:
    scoring = load("scoring")
    gold = {"key": ["a"], "gold": ["x"], "index": [1]}
    scores = {"prediction": ["y"], "scores": [[math.log(3), math.log(1)]]}
    assert scoring.nll(scores, gold) == pytest.approx([math.log(4)])
    assert scoring.nll({"nll": [6.0], "length": [3]}, gold) == [2.0]


def test_seeds_are_outermost_and_rows_are_shared(load) -> None:
    resampling = load("resampling")
    import numpy as np

    # Two seeds whose differences are -1 and +1 in every resample: the mean is -1, 0 or +1.
    values = {0: np.full(2001, -1.0), 1: np.full(2001, 1.0)}
    drawn = resampling.over_seeds(values)
    assert drawn[0] == 0.0
    assert set(drawn[1:]) == {-1.0, 0.0, 1.0}
    assert np.mean(drawn[1:] == 0.0) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))


@pytest.mark.slow
def test_a_study_writes_no_answers_that_nobody_keeps(load) -> None:
    run = object.__new__(load("jobs").JobRun)
    run.loaded = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    run.spec = SimpleNamespace(evaluation=EvaluationSection())
    run.task = Classify(labels=("a", "b"), prompt="{text}", free=True)
    assert not run._evaluation().free
    run.task = Generate(prompt="{text}", max_new_tokens=7)
    assert run._evaluation().max_new_tokens == 7


def test_a_sum_on_the_bench_is_the_merge_of_the_engine(load, tmp_path: Path) -> None:
    import torch

    from koinize.engine import merge_adapters
    from koinize.settings import LoraSpec
    from koinize.train import train

    bench, jobs = load("bench"), load("jobs")
    write_example("tiny", tmp_path / "tiny")
    from koinize.model.loaded import load_model, with_adapter

    loaded = load_model(tmp_path / "tiny" / "base", "float32", "cpu")
    rows = rows_of({"de": 4, "ja": 4})
    lora = LoraSpec(r=4, alpha=8)
    settings = TrainingSpec(epochs=2, learning_rate=1e-2)
    for language in rows:
        train(loaded, rows[language], (), lora, settings, tmp_path / language)
    weights = {"de": -0.25, "ja": 1.25}
    folders = {language: tmp_path / language for language in rows}
    merge_adapters(folders, out=tmp_path / "sum", recipe="sum", weights=weights)
    ids = torch.arange(5, 25)[None]
    with with_adapter(loaded, tmp_path / "sum"), torch.inference_mode():
        expected = loaded.model(input_ids=ids).logits
    rank = bench.rank_of([weights], lora.r)
    with bench.layers_of_rank(loaded, lora, rank) as put, torch.inference_mode():
        parts = {one: bench.read_factors(tmp_path / one, loaded.device) for one in rows}
        put([(parts["de"], 1.0), (parts["ja"], 1.0)])  # leaves nothing behind
        put([(parts[one], weight) for one, weight in weights.items()])
        found = loaded.model(input_ids=ids).logits
        put([])
        bare = loaded.model(input_ids=ids).logits
    assert not torch.allclose(found, bare, atol=1e-4)
    # Two ways to the same sum in float32.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert jobs.choose({"0": (50.0, 1.0), "1": (50.0, 0.5)}) == {"by_nll": "1", "by_metric": "0"}


@pytest.mark.slow
def test_a_small_study_runs_is_resumed_and_analysed(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_example("tiny", tmp_path / "tiny")
    study, analysis = load("study"), load("analysis")
    monkeypatch.setattr(study.logging, "disable", lambda _: None)  # for all that comes after it
    out = tmp_path / "out"
    arguments = [str(out), "--tasks", str(tmp_path / "tiny"), "--rows", "4", "--device", "cpu"]
    assert study.main([*arguments, "--deadline", "0"]) == 0
    assert "the time is up" in capsys.readouterr().out
    assert study.main([*arguments, "--groups", "main", "half-year", "--lean"]) == 0
    lean = [line["what"] for line in load("journal").read_all(out)]
    assert {"train", "score"} <= {*lean}
    assert not {"choice", "done", "failed"} & {*lean}
    before = (out / "results-0.jsonl.gz").read_bytes()
    assert study.main([*arguments, "--groups", "main", "half-year", "--lean"]) == 0
    assert (out / "results-0.jsonl.gz").read_bytes() == before
    assert study.main([*arguments]) == 0
    lines = list(load("journal").read_all(out))
    done = [line["group"] for line in lines if line["what"] == "done"]
    assert done == ["main", "paper", "several", "half-year", "shares", "sync"], lines[-1]
    before = (out / "results-0.jsonl.gz").read_bytes()
    assert study.main([*arguments]) == 0
    assert (out / "results-0.jsonl.gz").read_bytes() == before
    assert analysis.main([str(out), "--into", str(tmp_path / "into"), "--resamples", "50"]) == 0
    text = (tmp_path / "into" / "generations.txt").read_text()
    titles = ("Set-up", "Pooled", "is updated", "is added", "in one release", "Half a year")
    for title in (*titles, "a trunk of a share", "meet in their mean", "in other ways, pooled"):
        assert title in text
    tests = [line for line in lines if line["what"] == "score" and line["split"] == "test"]
    comb = next(line for line in tests if line["name"] == "comb")
    assert {one: len(own["prediction"]) for one, own in comb["answers"].items()} == {
        "de": 4,
        "en": 4,
        "ja": 4,
    }
    assert json.dumps(comb)


@pytest.mark.slow
def test_the_tables_of_shares_are_those_of_the_kept_answers(load, tmp_path):
    """docs/results/shares.md shows every row that the analysis makes of what is kept beside it."""
    results = STUDY.parents[1] / "docs" / "results"
    for path in (results / "shares").glob("*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert load("analysis").main([str(tmp_path)]) == 0
    found = (tmp_path / "generations.md").read_text().split("\n### ")
    tables = [part for part in found if part.startswith("reviews: Everything at once: ")]
    rows = [line for part in tables for line in part.splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    shown = (results / "shares.md").read_text().splitlines()
    assert [row for row in rows if row not in shown] == []

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


@pytest.mark.parametrize("group", ["main", "paper", "several", "half-year"])
def test_every_arm_of_a_job_has_its_trainings_in_an_earlier_wave(load, group: str) -> None:
    arms = load("arms")
    rows = rows_of(dict.fromkeys(("de", "en", "fr", "ja", "zh"), 40))
    plan = arms.plan_of(group, rows, TrainingSpec(epochs=3), seed=0)
    trained: set[str] = set()
    for wave in plan.waves():
        assert all(one.start is None or one.start in trained for one in wave)
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
    assert done == ["main", "paper", "several", "half-year"], capsys.readouterr().out
    before = (out / "results-0.jsonl.gz").read_bytes()
    assert study.main([*arguments]) == 0
    assert (out / "results-0.jsonl.gz").read_bytes() == before
    assert analysis.main([str(out), "--into", str(tmp_path / "into"), "--resamples", "50"]) == 0
    text = (tmp_path / "into" / "generations.txt").read_text()
    for title in ("Set-up", "Pooled", "is updated", "is added", "in one release", "Half a year"):
        assert title in text
    tests = [line for line in lines if line["what"] == "score" and line["split"] == "test"]
    comb = next(line for line in tests if line["name"] == "comb")
    assert {one: len(own["prediction"]) for one, own in comb["answers"].items()} == {
        "de": 4,
        "en": 4,
        "ja": 4,
    }
    assert json.dumps(comb)

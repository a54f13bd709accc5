"""A training that ends badly is repeated: which try stands, what waits for it, what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from koinize.cli import application
from koinize.errors import InputError, StepError
from koinize.ledger import Ledger
from koinize.pipeline import run as running
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.plan import Missing
from koinize.pipeline.run import Outcome
from koinize.pipeline.step import NO_NUMBER, TRY, Step
from koinize.pipeline.tries import ended_badly, may_fail, number_of, others_of
from koinize.pipeline.work import Job, perform, perform_together
from koinize.report.costs import Accounts
from koinize.settings import LARGEST_SEED, LoraSpec, TrainingSpec
from koinize.spec import load
from koinize.store import Store
from koinize.train import NoNumberError, Training
from tests.pipeline.conftest import SPEC, Small, done_by
from tests.pipeline.test_run import Recorder

BRIEF = SPEC.replace(
    "{candidates: [paper], mean_scales: [1.0, 2.0]}", "{candidates: [sum]}\nbaselines: [base, comb]"
)
WELL, BADLY, WORSE, NOTHING = 0.1, 2.0, 3.0, math.inf
"""Dev losses in the end; each begins at 1."""


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, ""),  # a trainer of one's own
        ({NO_NUMBER: "the loss is nan"}, "the loss is nan"),
        ({"dev_losses": [2.0, 0.5], "kept_epoch": 2, "dev_loss_before": 0.5}, ""),
        (
            {"dev_losses": [0.4, 2.0], "kept_epoch": 2, "dev_loss_before": 0.5},
            "its dev loss rose to 2, from 0.5 before its first step",
        ),
        ({"dev_losses": [0.4, 2.0], "kept_epoch": 1, "dev_loss_before": 0.5}, ""),
        (
            {"dev_losses": [math.nan], "kept_epoch": 1, "dev_loss_before": 5.0},
            "its dev loss rose to inf, from 5 before its first step",
        ),
    ],
)
def test_how_a_training_ended(facts: dict, said: str) -> None:
    assert ended_badly(facts) == said


def test_every_try_has_seeds_of_its_own() -> None:
    assert TrainingSpec(seed=7).of_try(1) == TrainingSpec(seed=7)
    assert TrainingSpec(seed=7).of_try(3).seed == 9
    assert LoraSpec(seed=LARGEST_SEED).of_try(2).seed == 0
    assert TrainingSpec(retries=3).identity == TrainingSpec().identity


class Tried:
    """A project whose trainings end with these dev losses, by the name of each try."""

    def __init__(self, small: Small) -> None:
        self.small, self.store = small, Store(small.root / ".koinize")
        self.ends: dict[str, float] = {}
        self.trained: list[str] = []

    def perform(self, job: Job) -> dict[str, object]:
        """As a worker does it, without a model."""
        step, store = job.step, Store(job.home)
        with store.building(step.id, step.name, step.identity) as draft:
            draft.facts.update(rows=dict(step.rows), units=step.units, tokens=0)
            draft.facts["settings"] = dict(step.settings)
            if step.kind == "train":
                draft.facts.update(self.train(step, job))
                draft.facts.update(updates=0)
                (draft.folder / "examples.json").write_text("{}")
            elif step.kind == "evaluate":
                rows = [
                    {"key": str(n), "gold": "good", "prediction": "good"}
                    for n in range(next(iter(step.rows.values())))
                ]
                text = "".join(f"{json.dumps(row)}\n" for row in rows)
                (draft.folder / "rows.jsonl").write_text(text)
            elif step.kind == "merge":
                draft.facts.update(rank=4, truncation_error=0.0)
            elif step.kind == "select":
                draft.facts.update(KINDS["select"].perform(job, store, draft))
        return dict(draft.facts)

    def train(self, step: Step, job: Job) -> dict[str, object]:
        name = f"{step.address.role or step.language} {number_of(step)}"
        self.trained.append(name)
        loss = self.ends.get(name, WELL)
        if loss == NOTHING:
            if not may_fail(step, job.spec.training.retries, self.store):
                raise StepError("the loss is nan")
            return {NO_NUMBER: "the loss is nan"}
        return {"dev_losses": [loss], "kept_epoch": 1, "dev_loss_before": 1.0}

    @property
    def steps(self) -> dict[str, Step]:
        return self.small.steps(self.store)

    def missing(self) -> list[Missing]:
        present, steps = self.store.ids(), self.steps.values()
        once = {one.id: one for one in steps if one.id not in present}
        return [Missing(one, "", 1.0) for one in once.values()]

    def run(self) -> Outcome:
        spec, root = load(self.small.root / "koinize.yaml"), self.small.root
        home = root / ".koinize"
        return running.run(self.missing(), spec, root, home, Recorder(), self.missing)

    def finish(self, **ends: float) -> list[str]:
        self.ends |= {name.replace("_", " "): loss for name, loss in ends.items()}
        self.trained.clear()
        outcome = self.run()
        assert (outcome.failed, outcome.skipped) == ({}, [])
        assert self.missing() == []
        self.store.point({name: step.id for name, step in self.steps.items()})
        return outcome.done

    def stands(self, name: str) -> int:
        return number_of(self.steps[name])


@pytest.fixture
def tried(small: Small, monkeypatch: pytest.MonkeyPatch) -> Tried:
    small.spec(BRIEF.replace("{epochs: 2}", "{epochs: 2, retries: 2}"))
    found = Tried(small)
    done_by(monkeypatch, found.perform)
    return found


def test_without_a_bad_end_everything_is_as_without_retries(small: Small, tried: Tried) -> None:
    planned = tried.steps
    assert {one.name for one in planned.values() if one.waits} == {
        one.name for one in planned.values() if one.kind in ("merge", "select", "evaluate")
    } - {f"evaluate/mood/BASE/{one}/dev" for one in ("de", "en")}
    tried.finish()
    assert sorted(tried.trained) == ["comb 1", "de 1", "en 1"]
    with_retries = {name: step.id for name, step in tried.steps.items()}
    small.spec(BRIEF)
    assert {name: step.id for name, step in tried.steps.items()} == with_retries
    assert not any(one.waits for one in small.steps().values())


def test_a_bad_end_is_repeated_until_one_is_good(tried: Tried) -> None:
    done = tried.finish(de_1=BADLY, de_2=WORSE, de_3=WELL, comb_1=BADLY)
    assert sorted(tried.trained) == ["comb 1", "comb 2", "de 1", "de 2", "de 3", "en 1"]
    assert (tried.stands("train/mood/de"), tried.stands("train/mood/comb")) == (3, 2)
    assert tried.stands("train/mood/en") == 1
    steps = tried.steps
    merge = next(one for one in steps.values() if one.kind == "merge")
    assert merge.uses.adapters["de"] == steps["train/mood/de"].id
    first_use = min(n for n, name in enumerate(done) if name.startswith(("merge", "evaluate")))
    last_try = max(n for n, name in enumerate(done) if name.startswith("train"))
    assert last_try < first_use, "nothing is made of a try that may not stand"


@pytest.mark.parametrize(
    ("ends", "stands"),
    [
        ((BADLY, WORSE, WORSE), 1),
        ((WORSE, BADLY, WORSE), 2),
        ((WORSE, WORSE, BADLY), 3),
        ((BADLY, BADLY, BADLY), 1),  # the first of equals
        ((NOTHING, WORSE, NOTHING), 2),
        ((NOTHING, NOTHING, WELL), 3),
    ],
)
def test_where_none_ends_well_the_lowest_dev_loss_stands(
    tried: Tried, ends: tuple[float, ...], stands: int
) -> None:
    tried.finish(de_1=ends[0], de_2=ends[1], de_3=ends[2])
    assert tried.stands("train/mood/de") == stands
    (others,) = others_of(tried.steps.values()).values()
    assert sorted(map(number_of, others)) == [n for n in (1, 2, 3) if n != stands]


def test_where_no_try_has_an_adapter_the_last_one_fails(small: Small, tried: Tried) -> None:
    tried.ends = {f"de {number}": NOTHING for number in (1, 2, 3)}
    outcome = tried.run()
    assert outcome.failed == {"train/mood/try 3/de": "the loss is nan"}
    assert tried.missing()[0].step.waits is False  # it is tried again, with the same seed
    small.spec(BRIEF)
    with pytest.raises(InputError, match="train/mood/de every try ended without an adapter: the"):
        tried.missing()


def test_killed_between_two_tries_it_goes_on_with_the_next(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(job: Job) -> dict[str, object]:
        if number_of(job.step) == 2:
            raise KeyboardInterrupt
        return tried.perform(job)

    tried.ends = {"de 1": BADLY, "de 2": BADLY}
    done_by(monkeypatch, stopping)
    with pytest.raises(KeyboardInterrupt):
        tried.run()
    done_by(monkeypatch, tried.perform)
    tried.finish()
    assert tried.trained == ["de 2", "de 3"]
    assert tried.stands("train/mood/de") == 3


def test_retries_that_are_allowed_later_repeat_only_what_ended_badly(
    small: Small, tried: Tried
) -> None:
    small.spec(BRIEF)
    tried.finish(de_1=BADLY)
    assert sorted(tried.trained) == ["comb 1", "de 1", "en 1"]
    small.spec(BRIEF.replace("{epochs: 2}", "{epochs: 2, retries: 1}"))
    assert tried.steps["train/mood/try 2/de"].why == (
        "tried again with another seed: its dev loss rose to 2, from 1 before its first step"
    )
    done = tried.finish()
    assert tried.trained == ["de 2"]
    assert "merge/mood/sum" in done  # of the new adapter


@pytest.mark.slow
def test_a_kept_comb_and_a_frozen_trunk_stay_the_try_that_stands(
    small: Small, tried: Tried
) -> None:
    tried.finish(comb_1=BADLY)
    before = tried.steps["train/mood/comb"]
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    after = tried.steps["train/mood/comb"]
    assert (after.id, after.stale) == (before.id, ("train rows de",))
    small.rows("de", "train", [f"de train {n}" for n in range(4)])
    small.spec(BRIEF.replace("{epochs: 2}", "{epochs: 2, trunk: joint, retries: 2}"))
    tried.finish()
    assert tried.steps["trunk/mood"].id == before.id
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    tried.finish(branch_1=BADLY)
    assert tried.trained == ["branch 1", "branch 2"]
    assert tried.steps["trunk/mood"].id == before.id
    branch = tried.steps["branch/mood/de"]
    assert (number_of(branch), branch.uses.trunk) == (2, before.id)
    merge = next(one for one in tried.steps.values() if one.kind == "merge")
    assert merge.uses.adapters == {"de": branch.id}


def test_an_adapter_that_is_trained_on_goes_on_from_the_try_that_stands(
    small: Small, tried: Tried
) -> None:
    small.spec(BRIEF.replace("{epochs: 2}", "{epochs: 2, retries: 1, update: {mode: continue}}"))
    tried.finish(de_1=BADLY)
    before = tried.steps["train/mood/de"]
    assert number_of(before) == 2
    assert tried.steps["train/mood/de"].id == before.id
    assert TRY in before.inputs


def test_all_tries_are_paid_for(tried: Tried) -> None:
    tried.finish(de_1=BADLY, comb_1=BADLY)
    steps = tried.steps
    intervals = Ledger(tried.small.root / ".koinize" / "ledger.jsonl").intervals()
    source = type("Source", (), {})()
    source.intervals, source.price = intervals, None
    source.current = {step.address: step.id for step in steps.values()}
    source.tries = {
        one: [other.id for other in some] for one, some in others_of(steps.values()).items()
    }
    accounts = Accounts(source)
    for name, role in (("train/mood/de", "de"), ("train/mood/comb", "comb")):
        ids = {steps[name].id, *source.tries[steps[name].id]}
        assert len(ids) == 2, role
        own = [one for one in intervals if one.artifact in ids and one.kind == "train"]
        taken = accounts.taken(accounts.find(steps[name].address))
        assert taken.machine == sum(one.machine_seconds for one in own)
        assert taken.steps == 2


@pytest.mark.parametrize("together", [False, True])
def test_a_try_without_an_adapter_is_an_artifact_while_another_one_may_have_one(
    small: Small, tried: Tried, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    error = NoNumberError("the loss is nan at step 3")
    error.steps, error.planned, error.tokens = 2, 8, 70

    def fail(*_: object, **__: object) -> None:
        raise error

    def fail_together(
        loaded: object, trainings: list[Training], progress: object, ended: Callable[..., None]
    ) -> None:
        for place in range(len(trainings)):
            ended(place, error, 0.5)

    nothing = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr("koinize.pipeline.work.loaded", lambda job: nothing)
    monkeypatch.setattr("koinize.model.base.identity", lambda *_: "b" * 64)
    monkeypatch.setattr("koinize.train.train", fail)
    monkeypatch.setattr("koinize.train.train_together", fail_together)
    spec, root = load(small.root / "koinize.yaml"), small.root

    def done(name: str) -> Mapping[str, Any]:
        job = Job(tried.steps[name], spec, root, root / ".koinize", threads=1)
        if not together:
            return perform(job)
        if failures := perform_together([job]):
            raise StepError(failures[job.step.id]["error"])
        return tried.store.open(job.step.id).facts

    for name in ("train/mood/de", "train/mood/try 2/de"):
        facts, units = done(name), tried.steps[name].units
        assert facts[NO_NUMBER] == "the loss is nan at step 3"
        assert (facts["steps"], facts["tokens"], facts["units"]) == (2, 70, round(units / 4))
    with pytest.raises(StepError, match="the loss is nan"):
        done("train/mood/try 3/de")


def koinize(*arguments: str) -> str:
    """What the command prints, in this process."""
    done = CliRunner().invoke(application(), arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_a_run_repeats_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real trainings; that each ended badly is only said."""
    for module in ("tries", "endings"):
        monkeypatch.setattr(f"koinize.pipeline.{module}.ended_badly", lambda _: "it ended badly")
    monkeypatch.chdir(tmp_path)
    koinize("init", "--example", "tiny", "project")
    monkeypatch.chdir(tmp_path / "project")
    text = Path("koinize.yaml").read_text()
    text = text.replace("[de, en, ja]", "[de, en]").replace(
        "batch_size: 4", "batch_size: 4, retries: 1"
    )
    text += "baselines: [base]\nmachine: {executor: inline, together: 2}\n"
    Path("koinize.yaml").write_text(text)
    assert "a training that ends badly on dev is repeated with another seed, once" in koinize(
        "plan"
    )
    told = json.loads(koinize("run", "--json"))
    assert [one.partition(":")[0] for one in told["warnings"]] == ["train/mood/de", "train/mood/en"]
    assert all("(the best of 2 seeds)" in one for one in told["warnings"])
    assert told["notes"][0] == "2 of 2 trainings were repeated with another seed"
    report = " ".join(koinize("report").split())
    assert told["notes"][0] in report
    assert not json.loads(koinize("run", "--json"))["done"]

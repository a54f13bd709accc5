"""Steps that one worker does at once: which they are, and that each becomes what it would alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from koinize import machine
from koinize.errors import StepError
from koinize.examples import tiny
from koinize.executors.inline import InlineExecutor
from koinize.ledger import IDLE, LOAD, PROVISION, Interval, Ledger, elapsed, joules, total
from koinize.ledger.energy import Counter, Meter
from koinize.pipeline import Outcome, Project, work
from koinize.pipeline import run as running
from koinize.pipeline.account import Account
from koinize.pipeline.inputs import examples_of
from koinize.pipeline.joining import LONG, joined
from koinize.pipeline.kinds import evaluate, train
from koinize.pipeline.plan import Missing, Plan
from koinize.pipeline.step import PART, Step
from koinize.pipeline.work import Failure, Job, Over
from koinize.spec import Spec, load
from koinize.store import Artifact, Home, Store
from tests.pipeline.conftest import SPEC, Small

WEIGHTS = "adapter_model.safetensors"
# Sums of hundreds of float32 products in another order, over some 20 steps of AdamW.
ROUNDING = 100 * torch.finfo(torch.float32).eps
SHARED = """\
koinize: 1
name: tiny
base: {model: base, dtype: float32}
languages: [de, en, ja]
tasks:
  mood:
    kind: classify
    labels: [good, bad]
    verbalizers: {good: "+", bad: "-"}
    prompt: "{text} = "
lora: {r: 4, alpha: 8}
training: {epochs: 2, learning_rate: 2.0e-2, batch_size: 4}
merge: {candidates: [mean]}
baselines: [base, indv, comb]
"""


class Quiet:
    """A watcher that only remembers in which order steps ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def planned(self, todo: Plan) -> None: ...

    def started(self, step: Step) -> None: ...

    def resumed(self, step: Step, done: int, total: int) -> None: ...

    def moved(self, step: Step, done: int, total: int) -> None: ...

    def ended(self, step: Step, seconds: float, error: str) -> None:
        self.ends.append(step.name)


def spec_with(small: Small, **machine: int) -> Spec:
    said = ", ".join(f"{key}: {value}" for key, value in machine.items())
    small.spec(SPEC.replace("{executor: inline}", f"{{executor: inline, {said}}}"))
    return load(small.root / "koinize.yaml")


def missing(small: Small, *kinds: str) -> list[Missing]:
    """Steps that take 2 s for COMB's training and 1 s for any other."""
    steps = [one for one in small.steps().values() if one.kind in kinds]
    found = [Missing(one, "", 2.0 if one.address.role == "comb" else 1.0) for one in steps]
    return sorted(found, key=lambda one: -one.seconds)


def names(some: list[Missing]) -> list[str]:
    return [one.step.name for one in some]


def test_by_default_every_step_is_alone(small: Small) -> None:
    ready = missing(small, "train")
    assert names(joined(ready, 1, spec_with(small, workers=1))) == ["train/mood/comb"]


@pytest.mark.parametrize(
    ("free", "together", "expected"),
    [
        (1, 9, ["comb", "de", "en"]),
        (1, 2, ["comb", "de"]),
        # Of 4 seconds each of two workers gets two: COMB's, and those of the languages.
        (2, 9, ["comb"]),
        (3, 9, ["comb"]),
    ],
)
def test_a_worker_takes_no_more_than_its_part(
    small: Small, free: int, together: int, expected: list[str]
) -> None:
    spec, ready = spec_with(small, together=together), missing(small, "train")
    assert names(joined(ready, free, spec)) == [f"train/mood/{one}" for one in expected]
    rest = [one for one in ready if one.step.name != "train/mood/comb"]
    if free == 2:
        assert names(joined(rest, 1, spec)) == ["train/mood/de", "train/mood/en"]


def test_dropout_and_factors_in_bfloat16_keep_a_training_alone(small: Small) -> None:
    small.spec(
        SPEC.replace("{executor: inline}", "{together: 9}")
        + "lora: {overrides: {de: {dropout: 0.1}}}\n"
    )
    ready = missing(small, "train")
    spec = load(small.root / "koinize.yaml")
    assert names(joined(ready, 1, spec)) == ["train/mood/comb", "train/mood/en"]
    alone = [one for one in ready if one.step.language == "de"]
    assert names(joined(alone + ready, 1, spec)) == ["train/mood/de"]
    text = SPEC.replace("{epochs: 2}", "{epochs: 2, adapter_dtype: bfloat16}")
    small.spec(text.replace("{executor: inline}", "{together: 9}"))
    assert len(joined(ready, 1, load(small.root / "koinize.yaml"))) == 1


def test_evaluations_of_the_same_rows_go_together(small: Small) -> None:
    spec, ready = spec_with(small, together=3), missing(small, "evaluate")
    group = [one.step for one in joined(ready, 1, spec)]
    assert len(group) == 3
    assert {(one.language, one.split) for one in group} == {(group[0].language, group[0].split)}
    assert len({one.system for one in group}) == 3


def asked(small: Small, seconds: float) -> list[Missing]:
    """What every system is asked on dev, in the order in which steps are ready."""
    found = [one for one in missing(small, "evaluate") if one.step.split == "dev"]
    return [
        Missing(one.step, "", seconds)
        for one in sorted(found, key=lambda one: (one.step.language, one.step.system))
    ]


def test_one_system_is_asked_in_all_languages_in_turn(small: Small) -> None:
    spec, ready = spec_with(small, workers=1), asked(small, 1.0)
    assert len({one.step.system for one in ready}) >= 3
    group = [one.step for one in joined(ready, 1, spec)]
    assert [one.language for one in group] == ["de", "en"]
    assert len({one.system for one in group}) == 1
    # The other systems are work enough for a second worker; the languages of the last are not.
    assert len(joined(ready, 2, spec)) == 2
    last = [one for one in ready if one.step.system == group[0].system]
    assert len(joined(last, 2, spec)) == 1
    # What takes long is alone, and so is what each language has an adapter of its own for.
    assert len(joined(asked(small, LONG), 1, spec)) == 1
    own = [one for one in missing(small, "evaluate") if one.step.system.key == "INDV"]
    assert len(own) > 1
    assert len(joined(own, 1, spec)) == 1
    shared = [one.step for one in joined(ready, 1, spec_with(small, together=2))]
    assert len({one.language for one in shared}) == 1
    assert len({one.system for one in shared}) == 2


def test_merges_are_alone(small: Small) -> None:
    spec, ready = spec_with(small, together=3), missing(small, "merge")
    assert len(ready) > 2
    assert len(joined(ready, 1, spec)) == 1


# As a user runs it


def project(folder: Path, text: str) -> Project:
    folder.mkdir()
    tiny.write(folder)
    (folder / "koinize.yaml").write_text(text)
    return Project.at(folder / "koinize.yaml")


def run(one: Project) -> Outcome:
    return one.run(Quiet(), lambda _: None)[1]


def made(one: Project, kind: str) -> dict[str, Artifact]:
    return {step.name: one.store.open(step.id) for step in one.steps if step.kind == kind}


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "local"])
def test_together_is_alone_but_for_rounding(tmp_path: Path, executor: str) -> None:
    machine = f"machine: {{executor: {executor}, workers: 1, threads: 1"
    alone = project(tmp_path / "alone", SHARED + machine + "}\n")
    both = project(tmp_path / "together", SHARED + machine + ", together: 9}\n")
    assert [step.id for step in alone.steps] == [step.id for step in both.steps]
    for one in (alone, both):
        assert not run(one).failed
    for name, expected in made(alone, "train").items():
        found = both.store.open(expected.id)
        assert found.inputs == expected.inputs
        assert found.path("examples.json").read_text() == expected.path("examples.json").read_text()
        mine, theirs = load_file(found.path(WEIGHTS)), load_file(expected.path(WEIGHTS))
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            assert float((mine[key] - value).abs().max()) < ROUNDING, (name, key)
        assert found.facts["tokens"] == expected.facts["tokens"]
        assert found.facts["losses"] == pytest.approx(expected.facts["losses"], rel=ROUNDING)
    for name, expected in made(alone, "evaluate").items():
        found = both.store.open(expected.id)
        rows = zip(_rows(found), _rows(expected), strict=True)
        for mine, theirs in rows:
            assert mine["scores"] == pytest.approx(theirs["scores"], rel=ROUNDING), name
    check_account(both)


HALVED = (
    SHARED.partition("merge:")[0]
    + "merge: {candidates: [{recipe: [ties, knots-ties], scale: [1, 2, 4]}], choose: halving}\n"
    "baselines: []\nevaluation: {normalize: pmi}\n"
)


@pytest.mark.slow
def test_languages_in_turn_are_byte_for_byte_what_they_are_alone(tmp_path: Path) -> None:
    one = project(tmp_path / "p", HALVED + "machine: {executor: inline, workers: 1, threads: 1}\n")
    assert not run(one).failed
    one = Project.at(one.file)
    parts = [step for step in one.steps if step.kind == "evaluate"]
    assert any(PART in step.settings for step in parts)
    groups = [i.group for i in one.intervals() if i.group]
    assert len(set(groups)) >= 7  # every candidate on the first rung, and test
    assert {groups.count(each) for each in groups} <= {2, 3}
    assert not any(i.is_share for i in one.intervals())
    store = Store(tmp_path / "alone")
    for step in parts:
        job = Job(step, one.spec, one.root, one.home, 1)
        with store.building(step.id, step.name, step.identity) as draft:
            evaluate.perform(job, one.store, draft)
        alone, turn = (some.open(step.id).path("rows.jsonl") for some in (store, one.store))
        assert alone.read_bytes() == turn.read_bytes(), step.name
        assert all("unconditional" in row for row in _rows(one.store.open(step.id)))


def _rows(artifact: Artifact) -> list[dict[str, object]]:
    return [json.loads(line) for line in artifact.path("rows.jsonl").read_text().splitlines()]


def check_account(one: Project) -> None:
    """The machine's time is all there, and nothing of it twice; a group's members share theirs."""
    found = one.intervals()
    assert {i.kind for i in found if i.group} == {"train", "evaluate"}
    assert total(found)[0] == pytest.approx(elapsed(found), abs=Decimal("0.01"))
    groups: dict[str, list[Interval]] = {}
    for interval in found:
        if interval.group:
            groups.setdefault(interval.group, []).append(interval)
    for some in groups.values():
        some.sort(key=lambda interval: interval.end)
        for before, after in pairwise(some):
            assert after.begin >= before.end
    trained = sorted((i for i in found if i.kind == "train"), key=lambda i: i.end)
    for interval in trained[:-1]:  # the last one has what is left
        facts = one.store.open(interval.artifact).facts
        assert float(interval.seconds) <= facts["seconds"] + 0.002


@pytest.mark.slow
def test_one_that_diverges_ends_alone_and_names_its_rows(tmp_path: Path) -> None:
    text = SHARED.replace("alpha: 8}", "alpha: 8, overrides: {ja: {alpha: 1.0e+38}}}")
    text = text.replace("baselines: [base, indv, comb]", "baselines: [indv]")
    one = project(tmp_path / "p", text + "machine: {executor: inline, together: 3}\n")
    todo = [Missing(step, "", 1.0) for step in one.steps if step.kind in ("base", "train")]
    outcome = running.run(todo, one.spec, one.root, one.home, Quiet())
    assert set(outcome.failed) == {"train/mood/ja"}
    said = outcome.failed["train/mood/ja"]
    named = said.partition("on the rows ")[2].partition(";")[0].split(", ")
    rows = examples_of(one.spec.tasks["mood"], one.root, "ja", "train", None)
    assert len(named) == 4
    assert set(named) <= {row.key for row in rows}
    assert {"train/mood/de", "train/mood/en"} <= set(outcome.done)
    [failed] = [i for i in one.intervals() if i.status == "failed"]
    assert (failed.step, failed.error) == ("train/mood/ja", said)
    assert failed.group == next(i.group for i in one.intervals() if i.step == "train/mood/de")


# With the work faked


def test_the_peak_of_a_group_is_not_begun_anew_at_each_artifact(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded of each comes after its work, and others are still at theirs."""
    seen: list[str] = []
    monkeypatch.setattr(machine, "reset_peak_memory", lambda: seen.append("reset"))
    monkeypatch.setattr(machine, "peak_memory", lambda: len(seen))

    def together(jobs: Sequence[Job], _store: Store, _scratch: Path, over: Over) -> None:
        for job in jobs:
            seen.append(job.step.name)
            over(job, lambda _: {}, 1.0)

    monkeypatch.setattr(work, "_load_first", lambda _: 0.0)
    monkeypatch.setattr(work, "_base_of", lambda _: "")
    monkeypatch.setattr(train, "perform_together", together)
    spec, home = spec_with(small), small.root / ".koinize"
    jobs = [Job(one.step, spec, small.root, home, 1) for one in missing(small, "train")]
    assert work.perform_together(jobs) == {}
    assert seen == ["reset", *(job.step.name for job in jobs)]


def fake_group(trouble: dict[str, Exception], told: list[str]) -> object:
    """Commits every step but those with trouble: what is told is said, the rest is raised."""

    def perform_together(jobs: list[Job]) -> dict[str, Failure]:
        failures: dict[str, Failure] = {}
        for number, job in enumerate(jobs):
            step = job.step
            if step.name in told:
                failures[step.id] = Failure(error=str(trouble[step.name]), seconds=0.25)
            elif step.name in trouble:
                raise trouble[step.name]
            else:
                with Store(job.home).building(step.id, step.name, step.identity) as draft:
                    draft.facts.update(seconds=0.0, load_seconds=0.0, tokens=7 + number, units=1)
        return failures

    return perform_together


@pytest.fixture
def grouped(small: Small, monkeypatch: pytest.MonkeyPatch) -> object:
    def go(trouble: dict[str, Exception], told: list[str]) -> Outcome:
        monkeypatch.setattr(running, "perform_together", fake_group(trouble, told))
        monkeypatch.setattr(running, "perform", lambda job: fake_group({}, [])([job]))
        spec = spec_with(small, together=9)
        home = small.root / ".koinize"
        present = Store(home).ids()
        todo = [one for one in missing(small, "train") if one.step.id not in present]
        return running.run(todo, spec, small.root, home, Quiet())

    return go


def intervals(small: Small) -> list[Interval]:
    found = Ledger(small.root / ".koinize" / "ledger.jsonl").intervals()
    return [one for one in found if one.kind not in (PROVISION, LOAD, IDLE)]


def test_what_a_dead_worker_kept_is_kept_and_the_rest_failed(small: Small, grouped) -> None:
    outcome = grouped({"train/mood/en": BrokenProcessPool("killed")}, [])
    assert outcome.done == ["train/mood/comb", "train/mood/de"]
    said = "train/mood/en ended with its worker process: killed"
    assert outcome.failed == {"train/mood/en": said}
    assert [one.status for one in intervals(small)] == ["done", "done", "failed"]
    assert [one.tokens for one in intervals(small)] == [7, 8, 0]


def test_what_is_told_of_one_ends_that_one(small: Small, grouped) -> None:
    outcome = grouped({"train/mood/comb": StepError("out of luck")}, ["train/mood/comb"])
    assert outcome.failed == {"train/mood/comb": "out of luck"}
    assert outcome.done == ["train/mood/de", "train/mood/en"]


def test_an_error_for_all_is_that_of_each(small: Small, grouped) -> None:
    outcome = grouped({"train/mood/comb": StepError("no model", where="base")}, [])
    assert set(outcome.failed.values()) == {"base no model"}
    assert len(outcome.failed) == 3


def test_ctrl_c_closes_all_intervals_and_keeps_what_is_there(small: Small, grouped) -> None:
    with pytest.raises(KeyboardInterrupt):
        grouped({"train/mood/en": KeyboardInterrupt()}, [])
    assert [one.status for one in intervals(small)] == ["done", "done", "interrupted"]
    assert grouped({}, []).done == ["train/mood/en"]


def test_the_energy_of_a_group_is_divided_and_adds_up(
    small: Small, grouped, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = [0]

    def read() -> int:
        level[0] += 1000  # a joule with every reading
        return level[0]

    @contextmanager
    def fake() -> Iterator[Meter]:
        yield Meter([Counter(read, 1000)], "a fake meter")

    monkeypatch.setattr(running, "metering", fake)
    grouped({}, [])
    found = Ledger(small.root / ".koinize" / "ledger.jsonl").intervals()
    assert all(one.joules is not None and one.joules >= 0 for one in found)
    read_in_all = Decimal(level[0]) / 1000 - 1  # the first reading is where it begins
    assert joules(found) == pytest.approx(read_in_all, abs=Decimal("0.001") * len(found))


def test_what_is_over_ends_while_the_others_go_on(small: Small) -> None:
    """A worker has four steps in hand, of which it kept one and told of another."""
    home = small.root / ".koinize"
    spec = spec_with(small, together=9)
    some = [Missing(one, "", 1.0) for one in small.steps().values() if one.kind == "evaluate"][:4]
    jobs = [Job(one.step, spec, small.root, home, 1) for one in some]
    ledger, watcher = Ledger(home / "ledger.jsonl"), Quiet()
    account = Account(Home(home), ledger, None, lambda _: {})
    run = running._Run(some, spec, small.root, home, watcher, InlineExecutor(), account)
    hand = account.begin(some, jobs, InlineExecutor().place())
    kept, failed, *rest = (job.step for job in jobs)
    with Store(home).building(kept.id, kept.name, kept.identity) as draft:
        draft.facts.update(seconds=0.0, tokens=7)
    jobs[1].failure_file.parent.mkdir(parents=True)
    jobs[1].failure_file.write_text('{"error": "out of luck", "seconds": 0.0}')
    jobs[2].failure_file.write_text('{"error": "torn')
    run._look(hand)
    assert watcher.ends == [kept.name, failed.name]
    assert [job.step for job in hand.jobs] == rest
    assert run.outcome.done == [kept.name]
    assert run.outcome.failed == {failed.name: "out of luck"}
    assert [one.status for one in ledger.intervals()] == ["done", "failed", "open", "open"]
    # The last one of a group ends with its worker's work, which accounts for what time is left.
    hand.jobs.remove(jobs[2])
    with Store(home).building(rest[1].id, rest[1].name, rest[1].identity) as draft:
        draft.facts.update(seconds=0.0)
    run._look(hand)
    assert [job.step for job in hand.jobs] == rest[1:]


def test_a_step_that_cannot_begin_ends_alone(small: Small) -> None:
    """Rows of de were edited after the plan; the others are trained."""
    spec = spec_with(small, together=9)
    some = [one for one in missing(small, "train") if one.step.language]
    jobs = [Job(one.step, spec, small.root, small.root / ".koinize", 1) for one in some]
    small.rows("de", "train", ["other", "rows"])
    told: list[tuple[str, str]] = []

    def over(job: Job, outcome: object, seconds: float) -> None:
        told.append((job.step.language, str(outcome)))

    ready = list(train._ready(jobs, Store(small.root / ".koinize"), over))
    assert [job.step.language for job, _ in ready] == ["en"]
    [(language, said)] = told
    assert language == "de"
    assert "changed while it was read" in said

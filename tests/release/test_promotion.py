"""Promotions in a row: the budget of error, drift, scoring on new rows, two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from koinize.errors import GateError, InputError, KoinizeError, StepError
from koinize.gate import Verdict
from koinize.ledger import Ledger
from koinize.pipeline import Plan, Project, work
from koinize.pipeline import project as projects
from koinize.pipeline.results import Results
from koinize.pipeline.step import Uses
from koinize.pipeline.systems import COMB
from koinize.release import Attempt, Attempts, Release, Releases, anchor, promote, rollback
from koinize.release.archive import Channel
from koinize.release.attempts import Trial
from koinize.release.candidate import candidate
from koinize.release.doctor import mend
from koinize.release.judge import Comparison, Judgement, Lost
from koinize.release.text import percent, refusal
from koinize.store import Store
from koinize.store.record import write_record
from tests.pipeline.conftest import Small, done_by
from tests.release.releasing import (
    ONE_MERGE,
    TEST_ROWS,
    Quiet,
    answers,
    finish,
    prepared,
    project_of,
    releases,
    retrain,
    texts,
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    return prepared(tmp_path)


@pytest.fixture
def rows_wrong(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """An evaluation without a model: so many of the first test rows of a language are wrong."""
    wrong: dict[str, int] = {}

    def perform(job: work.Job) -> dict[str, object]:
        step = job.step
        if step.kind != "evaluate":
            return work.perform(job)
        found = answers(Project.at(job.root / "koinize.yaml"), step.languages[0], "test", wrong)
        with Store(job.home).building(step.id, step.name, step.identity) as draft:
            (draft.folder / "rows.jsonl").write_text(found)
        return {}

    done_by(monkeypatch, perform)
    return wrong


def attempts(project: Small | Project) -> tuple[Attempt, ...]:
    root = project.root if isinstance(project, Small) else project.home.parent
    return Attempts(root / ".koinize", "mood").all()


def try_again(small: Small, rows: int, wrong: Mapping[str, int] | None = None) -> bool:
    """Another German adapter, of so many training rows, and whether it passes."""
    retrain(small, "de", rows)
    return promote(finish(small, wrong), "mood", "production").switched


# The budget of error


def test_every_refused_candidate_lowers_the_level_of_the_next(small: Small) -> None:
    promote(finish(small), "mood", "production")
    assert attempts(small) == (), "a first release is compared with nothing"
    assert not try_again(small, 5, {"de": 40})
    assert not try_again(small, 6, {"en": 20})
    assert try_again(small, 7)
    found = attempts(small)
    assert [(one.trial, one.incumbent, one.passed) for one in found] == [
        (1, 1, False),
        (2, 1, False),
        (3, 1, True),
    ]
    assert [one.level for one in found] == pytest.approx([0.025, 0.05 / 6, 0.05 / 12])
    assert [one.budget_left for one in found] == pytest.approx([0.025, 0.05 / 3, 0.0125])
    assert len({one.identity for one in found}) == 3


def test_a_release_has_a_budget_of_its_own(small: Small) -> None:
    promote(finish(small), "mood", "production")
    for rows in (5, 6, 7):
        assert try_again(small, rows)
    assert [(one.trial, one.incumbent) for one in attempts(small)] == [(1, 1), (1, 2), (1, 3)]


def test_the_mean_is_judged_at_the_level_of_the_test_that_it_stands_in(small: Small) -> None:
    promote(finish(small), "mood", "production")
    for attempt in range(2):
        retrain(small, "de", 6 + attempt)
        done = promote(finish(small, {"de": 40 + attempt}), "mood", "production")
    assert done.judgement.trial is not None
    (mean,) = done.judgement.means
    assert mean.verdict.level == done.judgement.trial.level == pytest.approx(0.05 / 6)


def test_a_first_release_of_one_language_speaks_of_no_mean(small: Small) -> None:
    small.spec(ONE_MERGE.replace("[en, de]", "[de]"))
    _, *beside = promote(finish(small), "mood", "production").judgement.notes
    assert [one.split(":")[0] for one in beside] == ["against BASE, in de", "against COMB, in de"]


def test_a_second_look_is_no_second_test(small: Small) -> None:
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    project = finish(small, {"de": 40})
    first = promote(project, "mood", "production").judgement
    again = promote(project, "mood", "production").judgement
    assert len(attempts(small)) == 1
    assert again.trial == first.trial == Trial(1, 0.025, 0.05 / 6)
    assert [one.verdict for one in again.comparisons] == [one.verdict for one in first.comparisons]


def test_a_refused_candidate_stays_at_its_level_when_others_came_between(small: Small) -> None:
    promote(finish(small), "mood", "production")
    assert not try_again(small, 5, {"de": 40})
    assert not try_again(small, 6, {"de": 30})
    retrain(small, "de", 5)
    back = promote(finish(small), "mood", "production").judgement
    assert back.trial == Trial(1, 0.025, 0.05 / 12)
    assert len(attempts(small)) == 2


def test_going_back_does_not_refill_the_budget(small: Small) -> None:
    promote(finish(small), "mood", "production")
    assert try_again(small, 5)
    rollback(project_of(small), "mood", "production")
    assert not try_again(small, 6, {"de": 40})
    assert [(one.trial, one.incumbent) for one in attempts(small)] == [(1, 1), (2, 1)]


def test_channels_that_use_the_same_adapter_share_its_budget(small: Small) -> None:
    project = finish(small)
    promote(project, "mood", "staging")
    promote(project, "mood", "production")
    retrain(small, "de", 6)
    project = finish(small)
    assert promote(project, "mood", "staging").switched
    # What was shown on staging is the same comparison on production: no second test.
    assert promote(project, "mood", "production").switched
    assert [(one.channel, one.trial) for one in attempts(small)] == [("staging", 1)]


def test_an_edited_or_shortened_record_is_found(small: Small) -> None:
    promote(finish(small), "mood", "production")
    assert try_again(small, 5)
    ledger, heads = (small.root / ".koinize" / name for name in ("ledger.jsonl", "heads.jsonl"))
    whole, noted = ledger.read_text(), heads.read_text()
    retrain(small, "de", 6)
    project = finish(small)

    ledger.write_text(whole.replace('"passed": true', '"passed": false'))
    with pytest.raises(KoinizeError, match="this line does not follow from the one before it"):
        promote(project, "mood", "production")

    lines = whole.splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]))  # the line of the attempt is the last one
    with pytest.raises(KoinizeError, match=f"not whole: {len(lines)} records were in the ledger"):
        promote(project, "mood", "production")

    ledger.write_text("")
    heads.unlink()  # but v2 remembers that there was an attempt
    with pytest.raises(KoinizeError, match="not whole: 1 attempts were made, and 0 are recorded"):
        promote(project, "mood", "production")

    ledger.write_text(whole)
    heads.write_text(noted)
    assert promote(project, "mood", "production").switched


def test_what_an_older_koinize_recorded_still_counts(small: Small) -> None:
    """In a file beside the releases, without margins at first."""
    promote(finish(small), "mood", "production")
    former = small.root / ".koinize" / "releases" / "mood" / "attempts.json"
    reference = releases(small).open(1).record["adapter"]
    attempt = Attempt("2026", "production", "a" * 64, "b" * 64, 1, reference, 1, 0.025, 0.5, False)
    told = {key: value for key, value in asdict(attempt).items() if key != "margins"}
    write_record(former, {"format": 1, "attempts": [told]})
    assert [one.margins for one in attempts(small)] == [{}]
    assert not try_again(small, 5, {"de": 40})
    assert [one.trial for one in attempts(small)] == [1, 2]


def test_a_mended_ledger_forgets_no_attempt(small: Small) -> None:
    """Its end is cut off where a line broke; attempts after that are kept beside the releases."""
    promote(finish(small), "mood", "production")
    assert not try_again(small, 5, {"de": 40})
    ledger = small.root / ".koinize" / "ledger.jsonl"
    first, *others = ledger.read_text().splitlines(keepends=True)
    ledger.write_text(first.replace("gate", "gift", 1) + "".join(others))
    mend(small.root)
    assert ledger.read_text() == ""
    assert [(one.trial, one.passed) for one in attempts(small)] == [(1, False)]
    assert not try_again(small, 6, {"de": 40})
    assert [one.trial for one in attempts(small)] == [1, 2]


def test_where_nothing_could_be_compared_nothing_is_spent(small: Small) -> None:
    promote(finish(small), "mood", "production")
    small.rows("de", "test", texts("de", TEST_ROWS))
    assert not try_again(small, 6)
    assert attempts(small) == ()


def test_the_comparison_is_an_interval_in_the_ledger(small: Small) -> None:
    promote(finish(small), "mood", "production")
    assert try_again(small, 5)
    [one] = Ledger(small.root / ".koinize" / "ledger.jsonl").intervals()
    assert (one.kind, one.step, one.status, one.units) == ("gate", "gate/mood", "done", 800)
    assert one.artifact == releases(small).open(2).record["adapter"]


# What decides


@pytest.mark.parametrize(
    ("old", "new", "gated"),
    [
        ("metrics: [accuracy]", "metrics: [accuracy, macro-f1]", ("accuracy",)),
        ("metrics: [accuracy]", "metrics: [macro-f1, accuracy]", ("macro-f1",)),
        (
            "metrics: [accuracy]",
            "metrics: [accuracy, macro-f1]\n    margins: {macro-f1: 3}",
            ("macro-f1",),
        ),
        (
            "training:",
            "margins: {accuracy: 2, recall: 1}\ntraining:",
            ("accuracy",),
        ),
    ],
)
def test_stated_margins_decide_else_the_first_metric(
    small: Small, old: str, new: str, gated: tuple[str, ...]
) -> None:
    small.spec(ONE_MERGE.replace(old, new))
    assert candidate(finish(small), "mood").gated == gated


def test_what_another_adapter_answered_speaks_for_nothing(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = finish(small)
    comb = Results(project, "mood").of_split(COMB, "test")
    monkeypatch.setattr(Results, "of_split", lambda *_: comb)
    with pytest.raises(InputError, match=r"'evaluate/mood/COMB/.*' scored another adapter than"):
        candidate(project, "mood")


def test_a_metric_that_is_only_shown_has_no_say(small: Small) -> None:
    small.spec(ONE_MERGE.replace("[accuracy]", "[accuracy, recall]\n    margins: {accuracy: 40}"))
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    done = promote(finish(small, {"de": 40}), "mood", "production")
    assert done.switched
    shown = {(one.language, one.metric): one for one in done.judgement.comparisons}
    assert shown["de", "recall"].verdict.verdict == "worse"
    assert [one.metric for one in done.judgement.gated] == ["accuracy", "accuracy"]
    [tried] = attempts(small)
    assert tried.p_value == shown["de", "accuracy"].verdict.p_value
    assert tried.margins == {"accuracy": 40}


# Drift


@pytest.fixture
def drifting(small: Small) -> Small:
    """Three releases, each 5 of 400 rows (1.25 points) below the last; the margin is 6 points."""
    small.spec(ONE_MERGE.replace("[accuracy]", "[accuracy]\n    margins: {accuracy: 6}"))
    promote(finish(small), "mood", "production")
    assert try_again(small, 5, {"de": 5})
    assert try_again(small, 6, {"de": 10})
    return small


def test_many_tolerated_losses_are_stopped_at_the_anchor(drifting: Small) -> None:
    retrain(drifting, "de", 7)
    done = promote(finish(drifting, {"de": 18}), "mood", "production")
    assert [one.verdict.verdict for one in done.judgement.gated] == ["not worse", "not worse"]
    drift = done.judgement.drift
    assert (drift.anchor, drift.lost) == (1, ("de",))
    assert drift.comparisons[0].verdict.difference == -4.5
    assert not done.switched
    assert not attempts(drifting)[-1].passed
    with pytest.raises(GateError) as refused:
        done.refuse()
    lines = str(refused.value).splitlines()
    assert "Drift since v1, the anchor" in lines
    assert (
        "  de: worse than v1, the anchor, by what may be more than the margin; if that is meant, "
        "pin another one with `koinize anchor`"
    ) in lines


def test_another_anchor_can_be_pinned_and_is_remembered(drifting: Small) -> None:
    retrain(drifting, "de", 7)
    project = finish(drifting, {"de": 18})
    assert anchor(project, "mood", "production", 2).anchor == 2
    done = promote(project, "mood", "production")
    assert done.switched
    assert done.judgement.drift.anchor == 2
    events = releases(drifting).channel("production").events
    assert [(one.action, one.version, one.before) for one in events[-2:]] == [
        ("anchor", 2, 1),
        ("promote", 4, 3),
    ]
    assert rollback(project, "mood", "production").anchor == 2
    with pytest.raises(InputError, match="there is no release v9"):
        anchor(project, "mood", "production", 9)


# Scoring the release in use


@pytest.fixture
def grown(small: Small, rows_wrong: dict[str, int]) -> Project:
    """v1 is in use; since then 100 German test rows came, and a candidate answered all 500."""
    rows_wrong["de"] = 0
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    small.rows("de", "test", [*texts("de"), *texts("de", TEST_ROWS)[:100]])
    return finish(small)


def test_the_release_in_use_answers_the_new_rows_first(grown: Project) -> None:
    seen: list[Plan] = []
    done = promote(grown, "mood", "production", Quiet(), seen.append)
    [plan] = seen
    assert [one.step.name for one in plan.missing] == ["evaluate/mood/v1/de/test"]
    assert done.switched
    rows = {language: one.common for language, one in done.judgement.overlaps.items()}
    assert rows == {"de": 500, "en": 400}
    assert done.judgement.notes == ()
    kinds = [one.kind for one in Ledger(grown.home / "ledger.jsonl").intervals()]
    assert [kind for kind in kinds if kind in ("evaluate", "gate")] == ["evaluate", "gate"]


def test_what_was_scored_is_not_scored_again(grown: Project, rows_wrong: dict[str, int]) -> None:
    rows_wrong["de"] = 7
    seen: list[Plan] = []
    for _ in range(2):
        rollback_or_none(grown)
        promote(grown, "mood", "production", Quiet(), seen.append)
    assert len(seen) == 1
    [name] = [name for name in grown.store.names() if "/v1/" in name]
    assert name == "evaluate/mood/v1/de/test"
    assert len(attempts(grown)) == 1


def rollback_or_none(project: Project) -> None:
    if releases(project).channel("production").current == 2:
        rollback(project, "mood", "production")


def test_nothing_is_scored_where_nothing_is_new(small: Small) -> None:
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    small.rows("de", "test", texts("de")[:-10])  # rows that went need no answer
    seen: list[Plan] = []
    assert promote(finish(small), "mood", "production", Quiet(), seen.append).switched
    assert seen == []


def test_other_evaluation_settings_are_a_reason_to_score(
    small: Small, rows_wrong: dict[str, int]
) -> None:
    promote(finish(small), "mood", "production")
    small.spec(ONE_MERGE + "evaluation: {max_length: 300}\n")
    retrain(small, "de", 6)
    seen: list[Plan] = []
    promote(finish(small), "mood", "production", Quiet(), seen.append)
    assert [one.step.name for one in seen[0].missing] == [
        "evaluate/mood/v1/de/test",
        "evaluate/mood/v1/en/test",
    ]


def test_a_refused_estimate_changes_nothing(grown: Project) -> None:
    def refuse(_: Plan) -> None:
        raise InputError("too dear")

    with pytest.raises(InputError, match="too dear"):
        promote(grown, "mood", "production", Quiet(), refuse)
    assert releases(grown).channel("production").current == 1
    assert attempts(grown) == ()


def test_a_failed_scoring_is_a_failed_step(grown: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: work.Job) -> dict[str, object]:
        raise StepError("no memory", where=job.step.name)

    done_by(monkeypatch, fail)
    with pytest.raises(StepError) as error:
        promote(grown, "mood", "production", Quiet())
    assert str(error.value) == "evaluate/mood/v1/de/test no memory"
    assert releases(grown).channel("production").current == 1


def test_a_merge_that_the_store_lost_is_scored_from_the_release(grown: Project) -> None:
    record = releases(grown).open(1).record
    grown.store.discard(record["adapter"])
    seen: list[Plan] = []
    assert promote(grown, "mood", "production", Quiet(), seen.append).switched
    imported, scored = (one.step for one in seen[0].missing)
    assert (imported.kind, imported.name) == ("import", "import/mood/v1")
    assert scored.uses == Uses(adapter=imported.id)
    weights = grown.store.open(imported.id).path("adapter_model.safetensors").read_text()
    assert weights == f"de en {record['adapter']}"


# Two processes, and a kill at a bad moment


PROMOTE = """
import os, signal, sys, time
from pathlib import Path
from koinize.errors import KoinizeError
from koinize.pipeline import Project, project as projects
from koinize.ledger import Ledger
from koinize.release import archive, promotion
projects.base.identity = lambda *_: "b" * 64
root, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
places = {
    "before the attempt": (Ledger, "end"),
    "before the release": (promotion, "_release"),
    "before the switch": (archive.Releases, "switch"),
}
if moment in places:
    setattr(*places[moment], die)
elif moment != "never":
    Path(root, moment).touch()
    while len(list(root.glob("ready-*"))) < 2: time.sleep(0.001)
while True:
    try:
        done = promotion.promote(Project.at(root / "koinize.yaml"), "mood", "production")
        print(done.switched, done.release.name)
        break
    except KoinizeError as error:
        if "another koinize works here" not in str(error): raise
        print("waited", file=sys.stderr)
        time.sleep(0.01)
"""


def started(small: Small, moment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROMOTE, str(small.root), moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_at_once_agree(small: Small) -> None:
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    finish(small)
    both = [started(small, f"ready-{n}") for n in range(2)]
    told = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert sorted(out for out, _ in told) == ["False v2\n", "True v2\n"]
    assert releases(small).versions() == [1, 2]
    assert [one.version for one in releases(small).channel("production").events] == [1, 2]
    assert len(attempts(small)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "tried", "made"),
    [
        ("before the attempt", 0, [1]),
        ("before the release", 1, [1]),
        ("before the switch", 1, [1, 2]),
    ],
)
def test_killed_at_a_bad_moment(small: Small, moment: str, tried: int, made: list[int]) -> None:
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    finish(small)
    one = started(small, moment)
    one.communicate(timeout=120)
    assert one.returncode == -signal.SIGKILL
    assert releases(small).channel("production").current == 1
    assert (len(attempts(small)), releases(small).versions()) == (tried, made)
    again = started(small, "never")
    assert again.communicate(timeout=120)[0] == "True v2\n"
    assert releases(small).channel("production").current == 2
    assert (len(attempts(small)), releases(small).versions()) == (1, [1, 2])
    assert attempts(small)[0].trial == 1


# What a refusal says, for each kind of task


def test_the_worst_examples_of_a_choice_show_the_options(small: Small) -> None:
    spec = ONE_MERGE.replace("kind: classify\n    labels: [good, bad]", "kind: choose").replace(
        'prompt: "{text} ="', 'prompt: "{text}"'
    )
    small.spec(spec)
    for language in ("de", "en"):
        for split, count in (("train", 4), ("dev", 2), ("test", TEST_ROWS)):
            rows = [
                {"text": f"{language} {split} {n}", "options": ["Elbe", "Harz"], "answer": n % 2}
                for n in range(count)
            ]
            path = small.root / "data" / f"{language}.{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    promote(finish(small), "mood", "production")
    path = small.root / "data" / "de.train.jsonl"
    path.write_text(path.read_text().replace("train 3", "train 9"))
    done = promote(finish(small, {"de": 40}), "mood", "production")
    assert not done.switched
    lost = done.judgement.lost[0]
    assert {lost.truth, lost.candidate} == {"0: Elbe", "1: Harz"}
    assert lost.incumbent == lost.truth


def test_long_texts_are_shown_where_they_part() -> None:
    same = "The ministry said on Monday that the bridge over the river would be closed " * 2
    lost = Lost(
        language="de",
        metric="rouge-l",
        key="00ff",
        truth=same + "until spring.",
        incumbent=same + "until spring.",
        candidate=same + "for ever and a day.",
        loss=12.4,
        prompt="Summarise.\n" + "x" * 100 + " In one sentence:",
    )
    verdict = Verdict("worse", -3.0, -4.0, -2.0, 1.0, 500, 1.0, 1.0, None, "s")
    refused = Judgement(
        incumbent=1,
        comparisons=(Comparison("de", "rouge-l", verdict),),
        lost=(lost, replace(lost, metric="chrf", loss=8.6)),  # one row, told once
        trial=Trial(2, 0.05 / 6, 0.05 / 12),
    )
    assert refusal("news", "production", refused).splitlines()[3:] == [
        "  de        rouge-l       -3.00  -4.00 to -2.00       1   500  1    worse",
        "  de rouge-l, chrf: row 00ff lost 12 and 9 points",
        f"    prompt     '...{'x' * 63} In one sentence:'",
        f"    truth      '...{(same + 'until spring.')[-80:]}'",
        f"    v1         '...{(same + 'until spring.')[-80:]}'",
        f"    candidate  '...{(same + 'for ever and a day.')[-80:]}'",
        "v1 stays in use; improve those languages or add test rows, and run again",
    ]


def test_levels_are_short() -> None:
    assert [percent(one) for one in (0.025, 0.05 / 6, 0.05 / 420)] == ["2.5 %", "0.83 %", "0.012 %"]


@pytest.mark.parametrize("way", ["promote", "rollback"])
@pytest.mark.parametrize("before", [True, False])
def test_ctrl_c_while_a_channel_is_written_leaves_server_and_channel_agreed(
    small: Small, monkeypatch: pytest.MonkeyPatch, way: str, before: bool
) -> None:
    """The server has the new release by then: what is left is done, and then it stops."""
    for rows in (5, 6):
        retrain(small, "de", rows)
        promote(finish(small), "mood", "production")
    retrain(small, "de", 7)
    project, served, switch = finish(small), ["v2"], Releases.switch

    @contextmanager
    def serve(release: Release, former: Release | None) -> Iterator[None]:
        served.append(release.name)
        try:
            yield
        except BaseException:
            served.append(former.name if former else "nothing")
            raise

    def stopped(self: Releases, channel: Channel) -> None:
        if before:
            signal.raise_signal(signal.SIGINT)
        switch(self, channel)
        if not before:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Releases, "switch", stopped)
    change = promote if way == "promote" else rollback
    with pytest.raises(KeyboardInterrupt):
        change(project, "mood", "production", serve=serve)
    in_use = releases(small).channel("production").current
    assert served == ["v2", f"v{in_use}"]
    assert in_use == (3 if way == "promote" else 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

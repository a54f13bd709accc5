"""What the results say, by arithmetic on paper, on a project of two languages."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.gate import compare
from koinize.ledger import Interval
from koinize.ledger.address import read_address
from koinize.ledger.scopes import SCOPES
from koinize.metrics import Score, metrics
from koinize.report import Evaluation, ReportInput, System, TaskInput, results
from koinize.report.break_even import break_even
from koinize.report.quality import mean_score
from koinize.report.sections.costs import _trained as trained

BEGIN = datetime(2026, 2, 3, 9, tzinfo=UTC)
PRICE = {"per_hour": "3.6", "currency": "EUR", "source": "a bill", "date": "2026-01-31"}  # 1/1000 s


def work(step, start, seconds, **changes):
    """One interval; the kind is the step's first word."""
    kind = step.split("/")[0]
    fields = {
        "id": f"{step}@{start}",
        "run": "r1",
        "step": step,
        "kind": kind,
        "artifact": f"id of {step}",
        "started": BEGIN + timedelta(seconds=start),
        "seconds": Decimal(seconds),
        "share": Decimal(1),
        "device": "cpu",
        "status": "done",
        "tokens": 0,
        "units": 0,
        "error": "",
        "price": PRICE,
    }
    return Interval(**fields | changes)


LEDGER = [
    work("train/t/de", 0, 4, status="failed", error="no space left"),
    work("train/t/de", 4, 10),
    work("train/t/en", 14, 20),
    work("train/t/comb", 34, 25),
    work("merge/t/m", 60, 2),
    work("evaluate/t/m/de/dev", 62, 1),
    work("evaluate/t/m/en/dev", 63, 1),
    work("select/t", 64, 1),
    work("evaluate/t/COMB/de/test", 65, 3),
    work("evaluate/t/m/de/test", 68, 3),
    work("evaluate/t/m/en/test", 71, 3, status="interrupted"),
]


TESTED = [
    *LEDGER[:-1],
    work("evaluate/t/m/en/test", 71, 3),
    work("evaluate/t/COMB/en/test", 74, 3),
    work("load", 80, 4, artifact=""),
]


def rows(language, right, n=4):
    """n rows of label a, the first `right` of them answered rightly."""
    return [
        {"key": f"{language}{i}", "language": language, "gold": "a", "prediction": "ab"[i >= right]}
        for i in range(n)
    ]


def evaluation(system, language, right, split="test", signature="s"):
    return Evaluation("t", system, language, split, rows(language, right), signature)


TASK = TaskInput(
    name="t",
    kind="classify",
    metrics=("accuracy",),
    labels=("a", "b"),
    languages=("de", "en"),
    margins={"accuracy": 10.0},
    reference="COMB",
    systems=[
        System("INDV", "individual"),
        System("COMB", "combined"),
        System("m", "candidate", {"recipe": "ties"}, chosen=True, rank=8, truncation_error=0.0),
        System("twin", "candidate", {"recipe": "dare-ties"}, same_as="m"),
    ],
    evaluations=[
        evaluation("m", "de", 3, "dev"),
        evaluation("m", "en", 2, "dev"),
        evaluation("m", "de", 4),
        evaluation("m", "en", 2),
        evaluation("COMB", "de", 0),
        evaluation("COMB", "en", 2),
        evaluation("INDV", "de", 4),
    ],
)


GERMAN = read_address("train/t/de")


def source(**changes):
    fields = {
        "project": "p",
        "created": "2026-02-03T10:00:00+00:00",
        "version": "0.1.0",
        "spec": {},
        "price": PRICE,
        "tasks": [TASK],
        "intervals": LEDGER,
        "current": {one.address: one.artifact for one in LEDGER},
        "notes": ["a note"],
    }
    return ReportInput(**fields | changes)


@pytest.fixture(scope="module")
def found():
    return results(source())


@pytest.fixture(scope="module")
def costs(found):
    return found["tasks"][0]["costs"]


def costs_of(**changes):
    return results(source(**changes))["tasks"][0]["costs"]


def test_scores_per_language_and_their_mean(found):
    scores = {
        (row["split"], row["system"], row["language"]): row for row in found["tasks"][0]["scores"]
    }
    assert scores["test", "m", "de"]["value"] == 100.0
    assert scores["test", "m", "en"]["value"] == 50.0
    assert scores["test", "m", None]["value"] == 75.0
    assert scores["test", "m", None]["n"] == 8
    assert scores["test", "COMB", None]["value"] == 25.0
    assert scores["dev", "m", None]["value"] == 62.5
    # INDV was not evaluated in en, so it has no mean.
    assert ("test", "INDV", None) not in scores
    assert scores["test", "m", "de"]["signature"] == "accuracy|boot:2000|seed:12345|level:95|v:1"


def test_a_twin_shares_the_scores_of_the_merge_that_it_equals(found):
    dev = {row["name"]: row["mean"] for row in found["tasks"][0]["selection"]}
    assert dev["twin"] == dev["m"]
    assert dev["m"]["value"] == 62.5


def test_the_mean_adds_the_distances_to_the_ends_in_squares():
    mean = mean_score([Score(80.0, 76.0, 83.0, 100, "s"), Score(60.0, 57.0, 64.0, 50, "s")])
    # sqrt(4^2 + 3^2) / 2 below, sqrt(3^2 + 4^2) / 2 above
    signature = "s|mean:2 languages|interval:square-and-add"
    assert mean == Score(70.0, 67.5, 72.5, 150, signature)


def test_verdicts_compare_the_choice_with_comb_and_indv(found):
    verdicts = {
        (row["system"], row["reference"], row["language"]): row
        for row in found["tasks"][0]["verdicts"]
    }
    de = verdicts["m", "COMB", "de"]
    assert (de["difference"], de["n"], de["margin"]) == (100.0, 4, 10.0)
    judged = compare(rows("de", 4), rows("de", 0), metrics.get("accuracy"), 10.0).to_dict()
    assert {key: de[key] for key in judged} == judged
    assert verdicts["m", "COMB", "en"]["difference"] == 0.0
    assert verdicts["m", "INDV", "de"]["difference"] == 0.0
    assert verdicts["INDV", "COMB", "de"]["difference"] == 100.0
    assert ("m", "INDV", "en") not in verdicts  # one side was not evaluated
    assert not any("twin" in pair for pair in verdicts)


def test_the_joint_verdict_needs_every_language(found):
    joint = {(row["system"], row["reference"]): row for row in found["tasks"][0]["joint"]}
    assert set(joint) == {("m", "COMB")}


@pytest.mark.parametrize("margins", [{}, {"accuracy": 0.0}])
def test_without_a_margin_there_is_no_verdict_and_a_note(margins):
    found = results(source(tasks=[replace(TASK, margins=margins)]))
    assert found["tasks"][0]["verdicts"] == []
    note = "t: no margin above 0 is set for accuracy, so it has no verdicts."
    assert found["notes"] == ["a note", note]


def answering(system, given, right):
    """An evaluation of a system that gave these answers where those were right."""
    rows = [
        {"key": str(key), "gold": gold, "prediction": answer}
        for key, (answer, gold) in enumerate(zip(given, right, strict=True))
    ]
    return Evaluation("t", system, "de", "test", rows, "s")


@pytest.mark.parametrize(
    ("given", "right", "said"),
    [
        ("a" * 19 + "b", "ab" * 10, "19 of 20 rows of de test, where it is right in 10."),
        ("a" * 18 + "bb", "ab" * 10, None),  # 90 % is not more than 90 %
        ("a" * 20, "a" * 19 + "b", None),  # the rows are so
        ("a" * 9, "ab" * 4 + "a", None),  # too few to tell
    ],
)  # fmt: skip
def test_an_adapter_that_gives_one_answer_is_told(given, right, said):
    odd = replace(TASK, evaluations=[answering("INDV", given, right)])
    notes = results(source(tasks=[odd]))["notes"]
    assert [one for one in notes if "answers" in one] == (
        [f"t: INDV answers 'a' in {said}"] if said else []
    )


def test_an_adapter_that_is_worse_than_none_is_told():
    systems = [*TASK.systems, System("BASE", "base")]
    rows = [
        answering("BASE", "aaaaaaabbb", "aaaaaaaaaa"),
        answering("INDV", "aaaabbbbbb", "a" * 10),
    ]
    odd = replace(TASK, systems=systems, evaluations=rows, margins={"accuracy": 30.0})
    note = "t: INDV scores 40.0 in de (accuracy, test), and BASE without an adapter 70.0."
    assert note not in results(source(tasks=[odd]))["notes"]  # just the margin
    odd = replace(odd, margins={"accuracy": 29.0})
    assert note in results(source(tasks=[odd]))["notes"]


def test_scores_under_two_signatures_are_told(found):
    assert found["notes"] == ["a note"]
    odd = [*TASK.evaluations[:-1], evaluation("INDV", "de", 4, signature="another")]
    found = results(source(tasks=[replace(TASK, evaluations=odd)]))
    note = (
        "t: systems were scored on de test under different signatures; their scores do not compare."
    )
    assert note in found["notes"]


def test_signatures_name_the_systems_of_the_report_alone(found):
    """What only MEAN was chosen among is nowhere else, and is not there while a recipe is kept."""
    more = [*TASK.evaluations, evaluation("mean scale 2", "de", 4, "dev")]
    said = results(source(tasks=[replace(TASK, evaluations=more)]))["tasks"][0]["signatures"]
    assert said == found["tasks"][0]["signatures"]
    assert {one for row in said for one in row["systems"]} == {"m", "COMB", "INDV"}


def test_setup_on_both_clocks_and_in_money(costs):
    assert costs["combined"] == {
        "elapsed_seconds": 25.0,
        "machine_seconds": 25.0,
        "cost": pytest.approx(0.025),
        "steps": 1,
    }
    assert costs["trainings"]["machine_seconds"] == 30.0
    assert costs["merged"]["machine_seconds"] == 32.0  # 10 + 20 + 2
    assert costs["merged"]["cost"] == pytest.approx(0.032)
    assert costs["savings"] == {
        "elapsed": pytest.approx(-28.0),  # 1 - 32 / 25
        "machine": pytest.approx(-28.0),
        "cost": pytest.approx(-28.0),
        "parallel": pytest.approx(12.0),  # 1 - (20 + 2) / 25
    }
    assert costs["parallel_seconds"] == 22.0
    assert costs["choosing"]["machine_seconds"] == 3.0  # two dev evaluations and the choice
    assert costs["with_choosing"]["machine_seconds"] == 35.0
    assert costs["savings_with_choosing"]["machine"] == pytest.approx(-40.0)
    assert costs["testing"]["machine_seconds"] == 6.0  # the interrupted one is not in it


def costs_tested(intervals):
    return costs_of(intervals=intervals, current={one.address: one.artifact for one in TESTED})


def by_scope(update):
    return {one["scope"]: one for one in update["scopes"]}


def test_an_update_is_one_training_and_the_merge(costs):
    assert [one["language"] for one in costs["updates"]] == ["de", "en"]
    de, en = (by_scope(one)["training"] for one in costs["updates"])
    assert de["update"]["elapsed_seconds"] == 12.0
    assert de["savings"]["machine"] == pytest.approx(52.0)
    assert en["savings"]["elapsed"] == pytest.approx(12.0)
    unknown = by_scope(costs["updates"][0])["testing"]
    assert (unknown["update"], unknown["savings"]["machine"]) == (None, None)  # one was interrupted


def test_both_sides_of_an_update_pay_for_the_same_things():
    """Loading 4 s, de 10 s, merge 2 s, choice 3 s, two tests of 3 s each; COMB 25 s, two tests."""
    both = {}
    for scope, one in by_scope(costs_tested(TESTED)["updates"][0]).items():
        both[scope] = [one[side]["machine_seconds"] for side in ("update", "combined")]
        assert [one[side]["elapsed_seconds"] for side in ("update", "combined")] == both[scope]
        assert one["savings"]["machine"] == pytest.approx(
            100 * (1 - both[scope][0] / both[scope][1])
        )
        # One run did all of it, and trained en as well.
        assert (one["update_is"], one["combined_is"]) == ("derived", "derived")
    assert both == {"training": [16, 29], "testing": [22, 35], "choosing": [25, 35]}


def test_an_update_that_one_run_did_was_measured_as_such():
    mine = ("train/t/de", "merge/t/m", "evaluate/t/m/de/test", "evaluate/t/m/en/test")
    later = [replace(one, run="r2") if one.step in mine else one for one in TESTED]
    found = by_scope(costs_tested(later)["updates"][0])
    assert [found[one]["update_is"] for one in SCOPES] == ["measured", "measured", "derived"]
    assert [found[one]["combined_is"] for one in SCOPES] == ["derived"] * 3


def test_comb_that_one_run_did_was_measured_as_such():
    mine = ("train/t/comb", "evaluate/t/COMB/de/test")
    later = [replace(one, run="r2") if one.step in mine else one for one in TESTED]
    found = by_scope(costs_tested(later)["updates"][0])
    # The run that scored COMB in en is another one.
    assert [found[one]["combined_is"] for one in SCOPES] == ["measured", "derived", "derived"]
    mine = (*mine, "evaluate/t/COMB/en/test")
    later = [replace(one, run="r2") if one.step in mine else one for one in TESTED]
    found = by_scope(costs_tested(later)["updates"][0])
    assert [found[one]["combined_is"] for one in SCOPES] == ["measured"] * 3


def test_comb_that_was_not_tested_is_tested_as_the_merge_was():
    untested = [one for one in TESTED if one.address.system.title != "COMB"]
    found = by_scope(costs_tested(untested)["updates"][0])
    assert [found[one]["combined_is"] for one in SCOPES] == ["derived", "estimated", "estimated"]
    assert found["testing"]["combined"]["machine_seconds"] == 35


def test_comb_that_was_trained_on_other_rows_is_an_estimate_of_its_retraining():
    task = replace(source().tasks[0], changed_since=("train rows de",))
    current = {one.address: one.artifact for one in TESTED}
    found = costs_of(intervals=TESTED, current=current, tasks=[task])["updates"][0]
    assert [one["combined_is"] for one in found["scopes"]] == ["estimated"] * 3
    assert found["scopes"][0]["update_is"] == "derived"


def test_a_continued_adapters_last_update_is_no_set_up():
    costs = costs_of(continued={GERMAN: ["an earlier one"]})
    for figure in ("trainings", "merged", "with_choosing", "parallel_seconds"):
        assert costs[figure] is None
    assert set(costs["savings"].values()) == {None}
    assert costs["combined"]["machine_seconds"] == 25.0
    assert by_scope(costs["updates"][0])["training"]["update"]["elapsed_seconds"] == 12.0
    without = [one for one in LEDGER if one.step != "train/t/comb"]
    assert costs_of(intervals=without, continued={GERMAN: []})["combined"] is None


def test_elapsed_is_not_machine_time():
    half = {"share": Decimal("0.5")}
    side_by_side = [
        work("train/t/de", 0, 10, **half),
        work("train/t/en", 0, 20, **half),
        work("train/t/comb", 20, 25, **half),
        work("merge/t/m", 45, 2, **half),
    ]
    costs = costs_of(intervals=side_by_side)
    assert costs["trainings"]["elapsed_seconds"] == 20.0
    assert costs["trainings"]["machine_seconds"] == 15.0
    assert costs["merged"]["elapsed_seconds"] == 22.0
    assert costs["savings"]["elapsed"] == pytest.approx(12.0)  # 1 - 22 / 25
    assert costs["savings"]["machine"] == pytest.approx(-28.0)  # 1 - 16 / 12.5


def test_comb_has_the_same_workers_and_machines_as_the_merge():
    third = {"share": Decimal("0.333333")}
    costs = costs_of(
        intervals=[
            work("train/t/de", 0, 10, **third),
            work("train/t/en", 0, 20, **third),
            work("train/t/comb", 0, 30, **third),
            work("merge/t/m", 30, 2, **third),
        ]
    )
    assert costs["savings"]["elapsed"] == pytest.approx(100 * (1 - 22 / 30))
    assert costs["combined_by_all_workers"] == {
        "workers": 3,
        "elapsed_seconds": pytest.approx(10.0),  # 30 / 3
        "saved": pytest.approx(-120.0),  # 1 - 22 / 10
    }
    assert costs["combined_on_as_many_machines"] == {
        "workers": 2,  # languages
        "elapsed_seconds": pytest.approx(15.0),
        "saved": pytest.approx(100 * (1 - 22 / 15)),  # the longest training, then the merge
    }
    de, en = (by_scope(one)["training"] for one in costs["updates"])
    assert de["savings"]["elapsed"] == pytest.approx(60.0)  # 1 - 12 / 30
    assert de["saved_at_best"] == pytest.approx(-20.0)  # 1 - 12 / 10
    assert en["saved_at_best"] == pytest.approx(-120.0)


@pytest.mark.parametrize(
    ("missing", "dashes"),
    [
        ("train/t/de", {"trainings", "merged", "with_choosing", "parallel_seconds"}),
        ("merge/t/m", {"merges", "merged", "with_choosing", "parallel_seconds"}),
        ("select/t", {"choosing", "with_choosing"}),
    ],
)
def test_nothing_is_computed_from_missing_work(missing, dashes):
    costs = costs_of(intervals=[one for one in LEDGER if one.step != missing])
    names = ("combined", "trainings", "merges", "merged", "choosing", "with_choosing")
    absent = {name for name in (*names, "parallel_seconds") if costs[name] is None}
    assert absent - {"combined"} == dashes
    if missing != "select/t":
        assert set(costs["savings"].values()) == {None}
        best = costs["combined_by_all_workers"], costs["combined_on_as_many_machines"]
        assert [one["saved"] for one in best] == [None, None]
        assert set(costs["break_even"]["training"].values()) == {None}
    assert set(costs["savings_with_choosing"].values()) == {None}
    assert set(costs["break_even"]["choosing"].values()) == {None}


def test_without_comb_it_is_estimated_by_the_trainings_and_marked():
    half = {"share": Decimal("0.5")}
    costs = costs_of(
        intervals=[
            work("train/t/de", 0, 10, **half),
            work("train/t/en", 0, 20, **half),
            work("merge/t/m", 20, 2, **half),
        ]
    )
    assert costs["combined_is"] == "estimated"
    # One worker would train one language after the other: 30 s, and half a machine for as long.
    assert costs["combined"]["elapsed_seconds"] == 30.0
    assert costs["combined"]["machine_seconds"] == 15.0
    assert costs["combined"]["cost"] == pytest.approx(0.015)
    assert costs["savings"]["machine"] == pytest.approx(100 * (1 - 16 / 15))
    update = by_scope(costs["updates"][0])["training"]
    assert update["savings"]["machine"] == pytest.approx(60.0)  # 1 - (5 + 1) / 15
    assert update["combined_is"] == "estimated"
    neither = costs_of(intervals=[work("train/t/de", 0, 10), work("merge/t/m", 20, 2)])
    assert (neither["combined"], neither["combined_is"]) == (None, None)


def test_the_break_even_is_the_dearer_set_up_over_what_an_update_saves(costs):
    """COMB 25 s. Merged: set-up 32, updates 12 and 22, 17 on average; choosing takes 3 more, and
    testing 6 on either side.
    """
    assert costs["combined_is"] == "measured"
    assert costs["break_even"]["training"]["machine"] == {
        "extra": 7.0,
        "saved": 8.0,
        "updates": 1,
        "until": None,
    }
    unloaded = [one for one in TESTED if one.kind != "load"]
    assert costs_tested(unloaded)["break_even"]["choosing"] == {
        clock: {"extra": extra, "saved": saved, "updates": 2, "until": None}
        for clock, extra, saved in (
            ("elapsed", 10.0, 5.0),
            ("machine", 10.0, 5.0),
            ("cost", pytest.approx(0.01), pytest.approx(0.005)),
        )
    }


@pytest.mark.parametrize(
    ("setup", "combined", "update", "updates", "until"),
    [
        (100, 100, 50, 0, None),  # no dearer: from the start
        (90, 100, 50, 0, None),
        (101, 100, 50, 1, None),
        (150, 100, 50, 1, None),  # exactly after the first
        (151, 100, 50, 2, None),
        (101, 100, 100, None, None),  # an update saves nothing: never
        (101, 100, 120, None, None),
        (
            90,
            100,
            105,
            0,
            3,
        ),  # 10 ahead, 5 lost with each: even after two, behind from the third on
        (100, 100, 105, 0, 1),
        (100, 100, 100, 0, None),
    ],
)
def test_break_even(setup, combined, update, updates, until):
    found = break_even(Decimal(setup), Decimal(combined), Decimal(update))
    assert (found["updates"], found["until"]) == (updates, until)


@given(*[st.decimals("0.001", "1000", places=3)] * 3)
def test_break_even_is_what_counting_says(setup, combined, update):
    """One update after the other, until merging has cost no more than COMB; 2,000 at most."""
    found = break_even(setup, combined, update)
    behind = [setup + n * update > combined + n * combined for n in range(2000)]
    first = behind.index(False) if False in behind else None
    if found["updates"] is None or found["updates"] >= 2000:
        assert first is None
    else:
        assert first == found["updates"]
    if found["until"] is not None and found["until"] < 2000:
        assert behind.index(True) == found["until"]


@pytest.mark.parametrize(("thirds", "expected"), [(5, (162, None)), (7, (0, 163)), (8, (0, 82))])
def test_a_mean_of_three_decimals_moves_no_break_even(thirds, expected):
    """COMB takes 2. An update takes a third less, and the set-up 54 more: 162 updates pay for it.
    Or it takes one or two thirds more, and the set-up 54 less: 162 or 81 use that up.
    """
    setup = Decimal(2 + 54) if thirds == 5 else Decimal(2 - 54)
    found = break_even(setup, Decimal(2), Decimal(thirds) / 3)
    assert (found["updates"], found["until"]) == expected


def test_a_trace_of_rounding_is_no_extra():
    trace = Decimal("1e-27")
    found = break_even(Decimal(2) + trace, Decimal(2), Decimal(3))
    assert (found["updates"], found["until"]) == (0, 1)
    found = break_even(Decimal(3), Decimal(2), Decimal(2) - trace)
    assert found["updates"] is None


def test_break_even_needs_all_three():
    assert break_even(None, Decimal(1), Decimal(1)) is None
    assert break_even(Decimal(1), None, Decimal(1)) is None
    assert break_even(Decimal(1), Decimal(1), None) is None


def around_a_run():
    """Two workers for 20 s: 2 s of starting them, 4 s of loading, two trainings, a gate apart."""
    half, run = {"share": Decimal("0.5")}, {"run": "r2", "artifact": ""}
    energy = {"joules": "3600", "source": "a meter"}
    return [
        work("provision", 0, 2, **run),
        work("load", 2, 4, **half, run="r2", artifact="id of train/t/de"),
        work("train/t/de", 6, 10, **half, run="r2", energy=energy),
        work("train/t/en", 2, 14, **half, run="r2", status="failed"),
        replace(work("idle", 0, 20, **run), share=Decimal("0.2")),
        work("gate/t", 100, 5, run="r3", artifact="id of merge/t/m"),
    ]


def test_what_is_around_the_steps_is_counted_once():
    found = results(source(intervals=around_a_run()))
    spent = {row["label"]: row["machine_seconds"] for row in found["costs"]["breakdown"]}
    assert spent == {
        "train de": 5.0,
        "start the workers": 2.0,
        "load the model": 2.0,
        "judge releases": 5.0,
        "failed": 7.0,
        "idle": 4.0,
    }
    assert sum(spent.values()) == 20.0 + 5.0  # both runs on the whole machine
    run, gate = found["costs"]["runs"]
    assert (run["elapsed_seconds"], run["machine_seconds"], run["idle_seconds"]) == (
        20.0,
        16.0,
        4.0,
    )
    assert run["steps"] == {"done": 1, "failed": 1, "interrupted": 0, "open": 0}
    assert run["idle_cost"] == pytest.approx(0.004)
    assert (gate["elapsed_seconds"], gate["idle_seconds"]) == (5.0, 0.0)
    beside = {row["label"]: row for row in found["costs"]["around"]}
    assert list(beside) == [
        "start the workers",
        "load the model",
        "judge releases",
        "failed",
        "idle",
    ]
    assert (beside["load the model"]["elapsed_seconds"], beside["load the model"]["steps"]) == (
        4,
        1,
    )
    assert beside["idle"]["elapsed_seconds"] == 4.0  # of 20 s, something ran until 16 s
    assert beside["idle"]["machine_seconds"] == 4.0
    assert beside["idle"]["cost"] == pytest.approx(0.004)


def test_energy_is_summed_where_it_was_read():
    energy = results(source(intervals=around_a_run()))["costs"]["energy"]
    assert energy == {
        "joules": 3600.0,
        "sources": ["a meter"],
        "machine_time_percent": pytest.approx(20.0),  # 5 of 25 machine seconds
    }
    assert results(source())["costs"]["energy"] is None


def test_no_bar_of_the_timeline_is_idle():
    timeline = results(source(intervals=around_a_run()))["costs"]["timeline"]
    assert [bar["kind"] for bar in timeline["bars"]] == ["provision", "load", "train", "train"]
    assert timeline["lanes"] == 2
    assert timeline["elapsed_seconds"] == 20.0  # the whole run, as in the table of runs


def test_an_imported_adapter_has_no_known_training_time():
    imported = [replace(one, kind="import") if one.step == "train/t/de" else one for one in LEDGER]
    costs = costs_of(intervals=imported)
    assert costs["merged"] is None
    assert costs["savings"]["machine"] is None
    assert by_scope(costs["updates"][0])["training"]["update"] is None
    assert by_scope(costs["updates"][1])["training"]["update"]["machine_seconds"] == 22.0


def test_only_work_on_the_present_artifact_stands():
    later = work("train/t/de", 80, 7, artifact="another version")
    found = results(source(intervals=[*LEDGER, later]))
    assert found["tasks"][0]["costs"]["trainings"]["machine_seconds"] == 30.0
    spent = {row["label"]: row["machine_seconds"] for row in found["costs"]["breakdown"]}
    assert spent["superseded"] == 7.0
    chain = {GERMAN: ["another version"]}
    found = results(source(intervals=[*LEDGER, later], continued=chain))
    spent = {row["label"]: row["machine_seconds"] for row in found["costs"]["breakdown"]}
    assert spent["trainings gone on from"] == 7.0
    assert "superseded" not in spent


def test_the_breakdown_counts_every_second_once(found):
    spent = {row["label"]: row["machine_seconds"] for row in found["costs"]["breakdown"]}
    assert spent == {
        "train de": 10.0,
        "train en": 20.0,
        "train COMB": 25.0,
        "merge the candidates": 2.0,
        "choose on dev": 3.0,
        "evaluate on test": 6.0,
        "failed": 4.0,
        "interrupted": 3.0,
        "idle": 1.0,  # between COMB's end at 59 and the merge at 60
    }
    assert sum(spent.values()) == 74.0  # the run's elapsed time on one machine


def test_the_breakdown_of_a_large_ledger_adds_up(realistic):
    costs = realistic["costs"]
    spent = sum(row["machine_seconds"] for row in costs["breakdown"])
    elapsed = sum(run["elapsed_seconds"] for run in costs["runs"])
    assert spent == pytest.approx(elapsed, abs=0.01)  # a millisecond of rounding per run


def test_runs_show_idle_failed_and_interrupted_time(found):
    (run,) = found["costs"]["runs"]
    assert run["elapsed_seconds"] == 74.0
    assert run["machine_seconds"] == 73.0
    assert run["idle_seconds"] == 1.0
    assert run["idle_cost"] == pytest.approx(0.001)
    assert run["failed_seconds"] == 4.0
    assert run["interrupted_seconds"] == 3.0
    assert run["cost"] == pytest.approx(0.074)
    assert run["steps"] == {"done": 9, "failed": 1, "interrupted": 1, "open": 0}


def test_the_timeline_is_that_of_the_last_run_that_trained(realistic):
    timeline = realistic["costs"]["timeline"]
    assert timeline["run"] == "c07de91b"
    assert timeline["lanes"] == 2
    ends = [0.0, 0.0]
    for bar in timeline["bars"]:
        assert bar["start_seconds"] >= ends[bar["lane"]] - 0.05
        ends[bar["lane"]] = bar["start_seconds"] + bar["seconds"]


def test_a_price_that_changed_and_machines_that_differ_in_price_are_said():
    other = {**PRICE, "per_hour": "9.99"}
    changed = "The price changed between runs: work is counted at the price of its time."
    differ = "Machines differ in price: work is counted at the price of its machine."
    first, *rest = LEDGER
    for interval, said in (
        (replace(first, price=other), changed),
        (replace(first, price=other, device="another"), differ),
    ):
        notes = results(source(intervals=[interval, *rest]))["notes"]
        assert [note for note in (changed, differ) if note in notes] == [said]


def test_without_a_price_there_is_no_cost():
    found = results(source(price=None, intervals=[replace(one, price={}) for one in LEDGER]))
    costs = found["tasks"][0]["costs"]
    assert (found["prices"], found["currency"]) == ([], None)
    assert costs["merged"]["cost"] is None
    assert costs["savings"]["cost"] is None
    assert costs["savings"]["machine"] == pytest.approx(-28.0)
    assert found["costs"]["runs"][0]["cost"] is None


def test_work_without_a_price_is_counted_at_the_projects_price_and_told():
    found = results(source(intervals=[replace(one, price={}) for one in LEDGER]))
    assert found["tasks"][0]["costs"]["merged"]["cost"] == pytest.approx(0.032)
    assert (
        "Work that was recorded without a price is counted at the project's price."
        in (found["notes"])
    )


def test_a_changed_price_is_told_and_two_currencies_have_no_sum():
    dearer = [replace(LEDGER[1], price={**PRICE, "per_hour": "7.2"}), *LEDGER[2:]]
    found = results(source(intervals=dearer))
    assert found["tasks"][0]["costs"]["merged"]["cost"] == pytest.approx(0.042)
    assert (
        "The price changed between runs: work is counted at the price of its time."
        in (found["notes"])
    )
    dollars = [replace(LEDGER[1], price={**PRICE, "currency": "USD"}), *LEDGER[2:]]
    found = results(source(intervals=dollars))
    assert found["tasks"][0]["costs"]["merged"]["cost"] is None
    assert "The ledger has prices in several currencies, so no cost is shown." in found["notes"]


def test_results_are_plain_json_with_fixed_keys(found):
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        "format",
        "project",
        "created",
        "version",
        "spec",
        "prices",
        "currency",
        "tasks",
        "releases",
        "costs",
        "notes",
    ]
    assert list(found["tasks"][0]) == [
        "name",
        "kind",
        "metrics",
        "labels",
        "languages",
        "margins",
        "reference",
        "changed_since",
        "halved",
        "chosen",
        "systems",
        "inference",
        "interference",
        "scores",
        "selection",
        "against_mean",
        "verdicts",
        "pooled",
        "power",
        "stated",
        "joint",
        "answers",
        "collapsed",
        "calibration",
        "signatures",
        "costs",
    ]
    assert list(found["tasks"][0]["scores"][0]) == [
        "split",
        "metric",
        "system",
        "language",
        "value",
        "low",
        "high",
        "n",
        "signature",
    ]
    assert list(found["costs"]) == ["breakdown", "around", "energy", "runs", "timeline"]


def test_a_note_says_of_seconds_that_they_are_shares():
    said = (
        "Steps that a worker did at once with others: 2. The seconds of each are a share of the "
        "worker's, of a training by tokens, of an evaluation an equal one."
    )
    joined = [
        replace(one, group="g") if one.step in ("train/t/de", "train/t/en") else one
        for one in LEDGER
    ]
    assert said in results(source(intervals=joined))["notes"]
    in_turn = [replace(one, group="g-turn") if one.group else one for one in joined]
    assert said not in results(source(intervals=in_turn))["notes"]
    assert said not in results(source())["notes"]


def test_what_was_written_freely_is_scored_on_test_alone():
    """Of four German answers one is no label, and of four English ones two are German labels."""
    said = {"de": ["a", "a", "b", ""], "en": ["a", "a", "", ""]}
    written = [
        replace(
            one,
            rows=[
                {
                    **row,
                    "answer": answer,
                    "written": answer or {"de": "?", "en": "ah"}[one.language],
                }
                for row, answer in zip(one.rows, said[one.language], strict=True)
            ],
        )
        if one.split == "test"
        else one
        for one in TASK.evaluations
    ]
    names = ("accuracy", "free-accuracy", "parsed", "label-language")
    task = replace(
        TASK,
        metrics=names,
        margins=dict.fromkeys(names, 10.0),
        evaluations=written,
        label_texts={"de": ("ah", "be"), "en": ("a", "b")},
    )
    (found,) = results(source(tasks=[task]))["tasks"]
    assert {row["metric"] for row in found["scores"] if row["split"] == "dev"} == {"accuracy"}
    values = {
        (row["metric"], row["language"]): row["value"]
        for row in found["scores"]
        if (row["split"], row["system"]) == ("test", "m")
    }
    assert {name: values[name, "de"] for name in names[1:]} == dict(
        zip(names[1:], (50.0, 75.0, 100.0), strict=True)
    )
    assert {name: values[name, "en"] for name in names[1:]} == dict(
        zip(names[1:], (50.0, 50.0, 50.0), strict=True)
    )
    assert {row["metric"] for row in found["verdicts"]} == set(names)


@pytest.mark.parametrize(
    ("steps", "below"),
    [
        (1, ""),
        (2, "and 1 more training with another seed"),
        (3, "and 2 more trainings with other seeds"),
    ],
)
def test_trainings_that_were_repeated_are_counted(steps, below):
    amount = {"elapsed_seconds": 3.0, "machine_seconds": 3.0, "cost": None, "steps": steps}
    head, *_, counted = trained("COMB: one training on all languages", 1, amount, None)
    assert (head.below, counted.text) == (below, str(steps))

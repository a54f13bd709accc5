"""The project commands: messages and exit codes as a user meets them."""

from __future__ import annotations

import errno
import json
import re
import sys
from dataclasses import replace

import pytest

from koinize import __version__, machine
from koinize.cli.options import open_project
from koinize.cli.plan_view import show_plan
from koinize.ledger import Ledger
from koinize.ledger.scopes import WORDS
from koinize.pipeline import Missing, Step
from koinize.pipeline import project as projects
from koinize.store import Store
from tests.cli.conftest import Call
from tests.pipeline.conftest import SPEC, Small, done_by
from tests.pipeline.steps import step_named


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"koinize {__version__}\n", "")


def test_help_names_the_commands(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert all(command in out for command in ("init", "plan", "run", "report", "merge"))


def test_an_unknown_command_is_bad_usage(call: Call) -> None:
    code, _, err = call("plann")
    assert code == 2
    assert "plann" in err


def test_no_project_here(call: Call, small: Small) -> None:
    (small.root / "koinize.yaml").unlink()
    assert call("plan") == (
        2,
        "",
        "koinize: koinize.yaml there is no such file; run `koinize init` to write a first one, or "
        "name the folder of one\n",
    )


def test_a_mistake_in_the_spec(call: Call, small: Small) -> None:
    small.spec(SPEC.replace("epochs", "epoch"))
    code, _, err = call("plan")
    assert code == 2
    assert err == (
        "koinize: koinize.yaml:10:12 unknown key 'epoch' in training; did you mean 'epochs'?\n"
    )


def test_a_missing_file(call: Call, small: Small) -> None:
    (small.root / "data" / "de.test.jsonl").unlink()
    code, _, err = call("plan")
    assert code == 2
    assert err.startswith("koinize: data/de.test.jsonl")
    assert "no such file" in err


def test_an_empty_split(call: Call, small: Small) -> None:
    (small.root / "data" / "de.test.jsonl").write_text("")
    code, _, err = call("plan")
    assert code == 2
    assert err.startswith("koinize: data/de.test.jsonl")


def test_a_label_outside_the_set(call: Call, small: Small) -> None:
    path = small.root / "data" / "en.train.jsonl"
    path.write_text(path.read_text() + '{"text": "odd", "label": "goood"}\n')
    code, _, err = call("plan")
    assert code == 2
    assert "data/en.train.jsonl:5" in err
    assert "goood" in err
    assert "did you mean 'good'?" in err


def test_a_row_that_leaks_into_test(call: Call, small: Small) -> None:
    small.rows("en", "test", ["en train 0", "another", "third"])
    code, _, err = call("plan")
    assert code == 2
    assert "leaks from" in err
    assert "en.test.jsonl:1" in err


def test_two_bad_files_are_both_named(call: Call, small: Small) -> None:
    for language in ("de", "en"):
        path = small.root / "data" / f"{language}.dev.jsonl"
        path.write_text(path.read_text() + "{not json\n")
    code, _, err = call("plan")
    assert code == 2
    assert "de.dev.jsonl:3" in err
    assert "en.dev.jsonl:3" in err


def test_the_plan_as_a_table_and_as_json(call: Call, small: Small) -> None:
    code, out, _ = call("plan")
    assert code == 0
    assert "train/mood/de" in out
    assert "never done" in out
    assert f"{len(small.steps())} of {len(small.steps())} steps are missing" in out
    code, out, _ = call("plan", "--json")
    plan = json.loads(out)
    assert plan["total"] == len(plan["missing"]) == len(small.steps())
    assert plan["estimated_from"] == "first guesses"
    assert plan["first_guesses"] == ["base", "train", "merge", "evaluate", "select"]
    low, high = plan["wall_interval"]
    assert low < plan["wall_seconds"] < high
    assert (plan["cost"], plan["cost_interval"], plan["saving"]) == (None, None, None)


def test_a_comb_of_other_words_is_told_to_people_and_to_machines(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    prompt = 'prompt: "{text} ="'
    small.spec(SPEC.replace(prompt, 'prompt: {en: "{text} =", de: "{text} ="}'))
    small.made(Store(small.root / ".koinize"))
    assert json.loads(call("plan", "--json")[1])["unfair_comparisons"] == []
    small.spec(SPEC.replace(prompt, 'prompt: {en: "{text} =", de: "Text: {text} ="}'))
    said = (
        "mood: COMB was trained before the wording of de (prompt) changed, so there it is no fair "
        "comparison; `koinize run --retrain-comb` trains it again"
    )
    assert f"warning: {said}\n" in call("plan")[1]
    assert json.loads(call("plan", "--json")[1])["unfair_comparisons"] == [said]


def test_a_report_needs_a_finished_run(call: Call) -> None:
    code, _, err = call("report")
    assert code == 2
    assert err.endswith("steps are missing, first 'base'; run `koinize run` first\n")


def test_a_failed_step_is_exit_code_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(job: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("koinize.pipeline.kinds.base.perform", lambda *_: full(None))
    code, _, err = call("run")
    assert code == 1
    assert err.startswith(
        "koinize: base failed: No space left on device; make room or mend the permissions, then "
        "run again: finished steps are kept\n"
    )


def test_ctrl_c_is_exit_code_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(job: object) -> None:
        raise KeyboardInterrupt

    done_by(monkeypatch, interrupted)
    code, _, err = call("run")
    assert code == 130
    assert err == "koinize: stopped; finished steps are kept, run again to go on\n"


def test_an_unexpected_failure_leaves_its_traceback_in_a_log(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koinize.pipeline.kinds.base.perform", lambda *_: 1 / 0)
    code, _, err = call("run")
    log = small.root / ".koinize" / "logs" / "base.log"
    assert code == 1
    assert "base failed unexpectedly: ZeroDivisionError: division by zero" in err
    assert "Traceback" not in err
    assert "ZeroDivisionError" in log.read_text()


def test_init_writes_a_project_and_refuses_a_second(call: Call, small: Small) -> None:
    code, out, _ = call("init", "new")
    assert code == 0
    assert (small.root / "new" / "koinize.yaml").is_file()
    assert len(list((small.root / "new" / "data").glob("*.jsonl"))) == 15
    assert "next: cd new && koinize plan" in out
    assert call("init", "new")[0] == 2
    code, _, err = call("init", "other", "--example", "review")
    assert code == 2
    assert "did you mean 'reviews'?" in err
    assert not (small.root / "other").exists()


def test_the_schema_is_json(call: Call) -> None:
    code, out, _ = call("schema")
    assert code == 0
    schema = json.loads(out)
    assert "languages" in schema["properties"]
    assert "Classify" in schema["$defs"]


PRICE = 'price: {per_hour: "3.60", source: a list, date: 2026-01-02}\n'


def test_a_plan_above_a_limit_is_shown_and_refused(call: Call, small: Small) -> None:
    small.spec(SPEC + PRICE)
    code, out, err = call("plan", "--max-time", "1s", "--max-cost", "1000")
    assert code == 3
    assert "train/mood/de" in out
    assert err.startswith(f"koinize: not started: {len(small.steps())} missing steps may take ")
    assert err.endswith(", above --max-time 1.0 s; raise the limit or do less\n")
    code, out, _ = call("plan", "--max-time", "1s", "--json")
    assert code == 3
    assert len(json.loads(out)["missing"]) == len(small.steps())
    assert call("plan", "--max-time", "100h", "--max-cost", "1000")[0] == 0


def test_a_run_above_a_limit_does_not_start(call: Call, small: Small) -> None:
    small.spec(SPEC + PRICE)
    code, _, err = call("run", "--max-cost", "0.0001")
    assert code == 3
    assert ", above --max-cost 0.0001; raise the limit or do less" in err
    assert not (small.root / ".koinize" / "ledger.jsonl").exists()


def test_a_limit_on_the_cost_needs_a_price(call: Call) -> None:
    for command in ("plan", "run"):
        code, _, err = call(command, "--max-cost", "1")
        assert code == 2
        assert "koinize: --max-cost there is no price to reckon with; say under `price`" in err


def test_a_limit_that_cannot_be_read(call: Call) -> None:
    code, out, err = call("run", "--max-time", "soon")
    assert (code, out) == (2, "")
    assert err == (
        "koinize: --max-time 'soon' is no time; expected such as 5400, 90min, 1h30m or 2h\n"
    )


def done_by_nobody(small: Small) -> None:
    """Every step's artifact, and a second for every unit of it in the ledger."""
    project = open_project(small.root)
    ledger = Ledger(project.home / "ledger.jsonl")
    for number, step in enumerate(project.steps):
        with project.store.building(step.id, step.name, step.identity) as draft:
            draft.facts.update(rows=dict(step.rows), settings=dict(step.settings))
        ledger.start(
            str(number),
            run="r",
            step=step.name,
            kind=step.kind,
            artifact=step.id,
            device=machine.device(),
            share="1",
            price={},
        )
        ledger.end(str(number), status="done", seconds=step.units, units=step.units)
    project.store.point({step.name: step.id for step in project.steps})


def test_an_update_and_its_saving(call: Call, small: Small) -> None:
    small.spec(SPEC.replace("inline", "inline, workers: 1") + PRICE)
    call("plan")  # makes what every project has
    done_by_nobody(small)
    assert "nothing is missing" in call("plan")[1]
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    code, out, _ = call("plan")
    assert code == 0
    assert "train rows de changed, +2 rows" in out
    assert "against retraining COMB on all rows of mood (measured here" in out
    assert [words for words in WORDS.values() if f"  {words}\n" in out] == [*WORDS.values()]
    assert "without what is idle" in out
    assert "idle time included" in out
    plan = json.loads(call("plan", "--json")[1])
    assert plan["estimated_from"] == "the ledger"
    assert plan["saving"]["measured"] is True
    # A second for every unit: COMB's training on what it would read today, and its two tests.
    fresh = small.steps()
    comb = [fresh[f"evaluate/mood/COMB/{one}/test"].units for one in ("de", "en")]
    expected = fresh["train/mood/comb"].units + sum(comb)
    widest = plan["saving"]["scopes"][-1]
    assert widest["retrain"]["wall_seconds"] == pytest.approx(expected)
    both = widest["update"]["wall_seconds"] + plan["saving"]["besides"]["wall_seconds"]
    assert both == pytest.approx(plan["wall_seconds"])
    share = widest["update"]["machine_seconds"] / widest["retrain"]["machine_seconds"]
    assert widest["machine_less"] == pytest.approx(100 * (1 - share))
    assert float(plan["cost"]) == pytest.approx(plan["wall_seconds"] * 3.6 / 3600, abs=1e-6)


def test_both_clocks_stand_beside_comb_on_the_same_workers(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    small.spec(SPEC.replace("executor: inline", "workers: 3") + PRICE)
    _, out, _ = call("plan")
    lines = [re.split("  +", line.strip())[0] for line in out.splitlines()]
    start = lines.index("before anything is tested, mood takes")
    assert lines[start + 1 : start + 6] == [
        "merged, the languages side by side",
        "COMB, trained by one of 3 workers",
        "COMB, trained by the 3 at once",
        "the last is at best (estimated: 3 workers 3 times as fast as one)",
        "working side by side saves time, not work",
    ]
    plan = json.loads(call("plan", "--json")[1])
    set_up = plan["set_up"]
    assert (set_up["tasks"], set_up["workers"], plan["saving"]) == (["mood"], 3, None)
    one, three = set_up["combined"], set_up["combined_by_all_workers"]
    assert three["wall_seconds"] == pytest.approx(one["wall_seconds"] / 3)
    assert three["machine_seconds"] == pytest.approx(one["machine_seconds"])

    done_by_nobody(small)
    small.rows("de", "train", [f"de train {n}" for n in range(6)])
    _, out, _ = call("plan")
    assert "  with the 3 workers training COMB at once, " in out
    assert " at best (estimated): against that the update takes " in out
    plan = json.loads(call("plan", "--json")[1])
    saving = plan["saving"]
    assert (saving["workers"], plan["set_up"]) == (3, None)
    widest = saving["scopes"][-1]
    alone, shared = widest["retrain"], widest["retrain_by_all_workers"]
    # A second for every unit: three workers save two thirds of COMB's training.
    comb = small.steps()["train/mood/comb"].units
    less = alone["wall_seconds"] - shared["wall_seconds"]
    assert less == pytest.approx(comb * 2 / 3)
    # What waits is no part of it: that is in what the whole plan costs.
    assert float(shared["cost"]) == pytest.approx(shared["machine_seconds"] * 3.6 / 3600, abs=1e-6)
    small.spec(SPEC.replace("inline", "inline, workers: 3") + PRICE)
    assert "at once" not in call("plan")[1], "inline is one worker"


def test_a_run_with_nothing_to_do_leaves_the_report_alone(call: Call, small: Small) -> None:
    call("plan")
    done_by_nobody(small)
    report, ledger = small.root / "report.html", small.root / ".koinize" / "ledger.jsonl"
    report.write_text("as it was")
    before = ledger.read_bytes()
    code, out, _ = call("run", "--max-time", "0")
    assert (code, out) == (0, "nothing to do; the report is report.html\n")
    assert report.read_text() == "as it was"
    assert ledger.read_bytes() == before


def test_what_no_spec_asks_for_is_forgotten(call: Call, small: Small) -> None:
    memory = small.root / ".koinize" / "inputs.json"
    call("plan")
    first = json.loads(memory.read_text())
    small.spec(SPEC.replace("[en, de]", "[de]"))
    call("plan")
    assert any("data/en.train.jsonl" in key for key in first)
    assert not any("data/en.train.jsonl" in key for key in json.loads(memory.read_text()))
    for number in range(5, 9):
        small.rows("de", "dev", [f"de dev {n}" for n in range(number)])
        call("plan")
    assert len(json.loads(memory.read_text())) == 3 + 1 + 1  # splits, findings, its own digest


def test_a_reason_is_shown_as_it_is(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    monkeypatch.setenv("COLUMNS", "200")
    project = open_project(small.root)
    why = "evaluation.stop changed from ['[end]'] to ['[/INST]']"
    missing = Missing(project.steps[0], why, 1.0)
    show_plan(replace(project.plan(), missing=(missing,)), project)
    assert f"base  {why}" in capsys.readouterr().out


def step(name: str) -> Step:
    return step_named(name)


def test_a_long_plan_has_a_line_for_all_steps_that_are_missing_alike(
    call: Call, small: Small, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    languages = ("de", "en", "ja", "zh")
    missing = [
        *(Missing(step(f"train/t/{one}"), "never done", 1.0) for one in ("en", "comb")),
        Missing(step("train/t/de"), "train rows de changed, +1 rows", 2.0),
    ]
    for number, language in enumerate(languages * 2):  # a new system and an old one in turn
        for system, why in (("new", "never done"), ("old", f"merge/t/{number} is made anew")):
            name = f"evaluate/t/{system}{number}/{language}/test"
            missing.append(Missing(step(name), why, 0.25))
    missing += [Missing(step(f"merge/t/{one}"), "train/t/de is made anew", 1.0) for one in range(6)]
    project = open_project(small.root)
    show_plan(replace(project.plan(), missing=tuple(missing)), project)
    table = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [re.split(r"  +", line) for line in table[1:7]] == [
        ["train/t/en", "never done", "1.0 s"],
        ["train/t/comb", "never done", "1.0 s"],
        ["train/t/de", "train rows de changed, +1 rows", "2.0 s"],
        ["evaluate/t/... test, 8 steps", "never done", "2.0 s"],
        ["evaluate/t/... test, 8 steps", "what they read or use changed", "2.0 s"],
        ["merge/t/..., 6 steps", "train/t/de is made anew", "6.0 s"],
    ]
    assert table[7].startswith("25 of ")
    show_plan(replace(project.plan(), missing=tuple(missing[:24]), set_up=None), project)
    assert (
        len(capsys.readouterr().out.splitlines()) == 1 + 24 + 3 + 2
    )  # the last ones: test rows are few, and nobody counted tokens


def test_a_report_for_machines_where_nothing_can_be_written(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koinize.api.reporting.report_results", lambda _: {"project": "small"})
    monkeypatch.setattr("koinize.report.render_html", lambda _: "")
    (small.root / "report.html").mkdir()
    assert call("report", "--json") == (0, '{\n "project": "small"\n}\n', "")
    assert call("report", "--json", "-o", "report.html")[0] == 2


def test_a_program_that_trains_is_shown_by_the_plan_and_not_run(call: Call, small: Small) -> None:
    command = f'[{sys.executable}, -c, "open(1, 2)\\x1b", "{{settings}}"]'
    small.spec(SPEC.replace("epochs: 2", f"trainer: {{command: {command}}}"))
    code, out, _ = call("plan")
    assert code == 0
    words = "".join(out.split())
    assert f"aprogramtrains:{sys.executable}-copen(1,2)\\u001b{{settings}}" in words
    small.spec(SPEC.replace("epochs: 2", "trainer: {command: [no-such-program]}"))
    code, _, err = call("plan")
    assert code == 2
    assert "there is no program 'no-such-program'" in err

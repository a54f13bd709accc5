"""The commands of releases: messages and exit codes as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koinize import release
from koinize.errors import StepError
from koinize.pipeline.work import Job
from koinize.release import Garbage
from tests.cli.conftest import Call
from tests.pipeline.conftest import Small, done_by
from tests.release.releasing import finish, prepared, retrain, texts


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return prepared(tmp_path)


def test_nothing_was_run(call: Call) -> None:
    message = "task 'mood' has nothing to release: 'select/mood' is missing"
    assert call("promote") == (2, "", f"koinize: {message}; run `koinize run` first\n")
    assert call("history") == (0, "nothing was promoted yet\n", "")


@pytest.mark.slow
def test_from_the_first_release_to_a_rollback(call: Call, small: Small) -> None:
    finish(small)
    code, out, _ = call("promote")
    assert code == 0
    first, *beside, last = out.splitlines(keepends=True)
    assert first == "first release of this channel: there is no release to compare it with\n"
    assert [line.split(",")[0] for line in beside] == ["against BASE", "against COMB"]
    assert last == ("mood: production is now v1, .koinize/releases/mood/v1\n")
    retrain(small, "de", 6)
    finish(small)
    code, out, _ = call("promote", "--json")
    told = json.loads(out)
    assert (code, told["release"], told["incumbent"], told["passes"]) == (0, "v2", 1, True)
    assert call("rollback") == (0, "mood: production is v1 again, no longer v2\n", "")
    assert call("rollback")[0] == 2
    code, out, _ = call("history")
    assert code == 0
    switches, attempts = out.split("\n\n")
    lines = [line.split() for line in switches.splitlines()]
    assert lines[0] == ["task", "channel", "when", "what", "release", "before"]
    assert [line[3:] for line in lines[1:]] == [
        ["promote", "v1", "-"],
        ["promote", "v2", "v1"],
        ["rollback", "v1", "v2", "in", "use"],
    ]
    head, one = (line.split() for line in attempts.splitlines())
    assert " ".join(head) == (
        "task channel when candidate against test level p verdict budget left"
    )
    assert [*one[4:7], *one[8:]] == ["v1", "1", "2.5", "0.0024", "passed", "2.5", "%"]
    told = json.loads(call("history", "--json")[1])
    assert [one["version"] for one in told["events"]] == [1, 2, 1]
    assert [one["in_use"] for one in told["events"]] == [False, False, True]
    assert [(one["trial"], one["passed"], one["budget_left"]) for one in told["attempts"]] == [
        (1, True, 0.025)
    ]
    assert told["attempts"][0]["margins"] == {"accuracy": 2.0}
    code, out, _ = call("diff", "v1", "2")
    assert code == 0
    assert "the adapter is another one" in out
    assert "train rows de  4 rows" in out
    assert "settings: no difference" in out
    assert json.loads(call("diff", "v1", "v2", "--json")[1])["same_adapter"] is False


@pytest.mark.slow
def test_a_refusal_is_exit_code_3_and_json_still_has_the_table(call: Call, small: Small) -> None:
    finish(small)
    call("promote")
    retrain(small, "de", 6)
    finish(small, {"de": 40})
    code, out, err = call("promote", "--json")
    assert code == 3
    told = json.loads(out)
    assert (told["release"], told["passes"]) == (None, False)
    assert err.startswith(
        "koinize: mood: not shown to be as good as v1 (production) in every language\n"
    )
    assert call("promote")[:2] == (3, "")


def test_ctrl_c_while_the_release_in_use_is_scored_is_exit_code_130(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: Job) -> dict[str, object]:
        raise KeyboardInterrupt

    done_by(monkeypatch, interrupted)
    finish(small)
    call("promote")
    retrain(small, "de", 6)
    small.rows("de", "test", [*texts("de"), "one more"])
    finish(small)
    code, _, err = call("promote")
    said = "koinize: stopped; finished steps are kept, run again to go on\n"
    assert (code, err) == (130, said)


@pytest.mark.slow
def test_new_test_rows_are_announced_scored_or_left_out(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job) -> dict[str, object]:
        raise StepError("no model here", where=job.step.name)

    done_by(monkeypatch, refuse)
    finish(small)
    call("promote")
    retrain(small, "de", 6)
    small.rows("de", "test", [*texts("de"), "one more"])
    finish(small)
    code, out, err = call("promote")
    assert code == 1
    assert out.startswith("scoring the release in use on new test rows: 1 step, about ")
    assert err == "koinize: evaluate/mood/v1/de/test no model here\n"
    code, out, _ = call("promote", "--no-score")
    assert code == 0
    assert "de: compared on the 400 rows that both answered; left out: 1 new" in out.splitlines()
    assert "Compared with v1, which is in use: test 1 against it, at a level of 2.5 %" in out


def test_an_anchor_is_pinned(call: Call, small: Small) -> None:
    assert call("anchor", "v1")[0] == 2
    finish(small)
    call("promote")
    assert call("anchor", "v1") == (0, "mood: production measures drift from v1\n", "")
    event = json.loads(call("anchor", "v1", "--json")[1])
    del event["utc"]
    named = {"task": "mood", "channel": "production"}
    assert event == {**named, "action": "anchor", "version": 1, "before": 1}
    told = json.loads(call("history", "--json")[1])
    assert [(one["action"], one["in_use"]) for one in told["events"]] == [
        ("promote", True),
        ("anchor", False),
        ("anchor", False),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "--channel", "stagin"], "unknown channel 'stagin'; did you mean 'staging'?"),
        (["promote", "--task", "x"], "unknown task 'x'; choose one of: mood"),
        (["diff", "one", "v2"], "'one' is no release; expected a version such as v3"),
        (
            ["diff", "v1", "v2"],
            ".koinize/releases/mood there is no release v1 of task 'mood'; expected one of these: "
            "none yet",
        ),
    ],
)
def test_bad_inputs(call: Call, arguments: list[str], message: str) -> None:
    assert call(*arguments) == (2, "", f"koinize: {message}\n")


def test_two_tasks_have_to_be_told_apart(call: Call, small: Small) -> None:
    spec = (small.root / "koinize.yaml").read_text()
    block = spec[spec.index("  mood:") : spec.index("training:")]
    small.spec(spec.replace(block, block + block.replace("mood", "more")))
    assert call("promote") == (
        2,
        "",
        "koinize: the project has 2 tasks; expected --task with one of: mood, more\n",
    )


LISTED = "could be removed with --delete; --json names each"


def test_garbage_goes_only_when_told(call: Call, small: Small) -> None:
    finish(small)
    assert call("gc") == (0, f"0 artifacts, 0.000 MB, {LISTED}\n", "")
    retrain(small, "de", 6)
    finish(small)
    found = json.loads(call("gc", "--dry-run", "--json")[1])
    assert not found["deleted"]
    assert found["artifacts"]
    code, out, _ = call("gc", "--delete")
    assert code == 0
    assert out.splitlines()[-1].endswith("MB, removed")
    assert json.loads(call("gc", "--json")[1])["artifacts"] == []


def test_garbage_is_counted_by_kind(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"train/t/de": 9_000_000, "evaluate/t/x/de/dev": 2_000, "train/t/en": 500_000}
    some = [Garbage(64 * "a", name, size) for name, size in sizes.items()]
    some.append(Garbage(64 * "b", "broken", 1_000))
    monkeypatch.setattr(release, "garbage", lambda _: some)
    assert call("gc")[1].splitlines() == [
        "kind        artifacts      size",
        "train               2  9.500 MB",
        "evaluate            1  0.002 MB",
        "broken              1  0.001 MB",
        f"4 artifacts, 9.503 MB, {LISTED}",
    ]


def test_the_doctor(call: Call, small: Small) -> None:
    finish(small)
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    assert "artifacts" in out
    next((small.root / ".koinize" / "artifacts").glob("*/manifest.json")).write_text("{}")
    code, out, err = call("doctor", "--json")
    assert code == 1
    checks = json.loads(out)
    assert [one["state"] for one in checks].count("broken") == 1
    assert err == (
        f"koinize: . 1 of {len(checks)} checks found something broken; mend it as it says above\n"
    )


def test_the_doctor_examines_the_project_that_was_named(call: Call, small: Small) -> None:
    assert call("doctor", "--spec", "typo") == (
        2,
        "",
        "koinize: typo there is no such file; go to a project's folder, or name it as an "
        "argument\n",
    )
    other = small.root / "other.yaml"
    other.write_text((small.root / "koinize.yaml").read_text().replace("[en, de]", "[en]"))
    code, out, _ = call("doctor", "--spec", "other.yaml", "--json")
    assert code == 0
    found = {one["what"]: one["detail"] for one in json.loads(out)}
    assert found["other.yaml"] == "1 languages, tasks: mood"
    assert "koinize.yaml" not in found

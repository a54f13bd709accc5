"""Releases: what passes, what is refused and why, the way back, and what survives a crash."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from koinize.errors import GateError, InputError, KoinizeError
from koinize.gate import compare_mean, rows_needed
from koinize.metrics import metrics
from koinize.pipeline import Project
from koinize.pipeline import project as projects
from koinize.pipeline.run import locked
from koinize.release import (
    Releases,
    changes,
    collect,
    examine,
    garbage,
    promote,
    released,
    rollback,
    task_of,
    version_of,
)
from koinize.store import Store
from tests.pipeline.conftest import Small
from tests.pipeline.test_generation import JOINT
from tests.release.releasing import (
    TEST_ROWS,
    answers,
    artifact_folder,
    finish,
    prepared,
    releases,
    retrain,
    texts,
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    return prepared(tmp_path)


def current(small: Small, channel: str = "production") -> int | None:
    return releases(small).channel(channel).current


def second(small: Small, wrong: dict[str, int] | None = None) -> Project:
    """v1 is in use, and a retrained German adapter waits."""
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    return finish(small, wrong)


def test_the_first_release_passes_and_says_that_nothing_was_compared(small: Small) -> None:
    done = promote(finish(small), "mood", "production")
    assert done.switched
    first, base, comb = done.judgement.notes
    assert first == "first release of this channel: there is no release to compare it with"
    rows = {
        one: [{"key": f"{one}{n}", "gold": "a", "prediction": "a"} for n in range(400)]
        for one in ("de", "en")
    }
    equal = compare_mean(rows, rows, metrics.get("accuracy"), 2.0)
    for name, said in (("BASE", base), ("COMB", comb)):
        assert said == (
            f"against {name}, in the mean of 2 languages: +0.00 points of accuracy "
            f"({equal.low:+.2f} to {equal.high:+.2f}), verdict: not worse (margin 2)"
        )
    assert current(small) == 1
    release = releases(small).open(1)
    names = {path.relative_to(release.folder).as_posix() for path in release.folder.rglob("*.*")}
    assert names == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "evidence/evidence.json",
        "evidence/rows/de.jsonl",
        "evidence/rows/en.jsonl",
        "release.json",
    }
    weights = (release.folder / "adapter_model.safetensors").read_text()
    assert weights == f"de en {release.record['adapter']}"


@pytest.mark.slow
def test_equal_answers_pass_and_the_evidence_says_by_how_much(small: Small) -> None:
    done = promote(second(small), "mood", "production")
    assert done.release is not None
    assert current(small) == 2
    gate = done.release.read_json("evidence/evidence.json")["gate"]
    assert gate["incumbent"] == 1
    assert [(one["language"], one["difference"], one["n"]) for one in gate["verdicts"]] == [
        ("de", 0.0, TEST_ROWS),
        ("en", 0.0, TEST_ROWS),
    ]
    assert gate["joint"]["verdict"] == "not worse"


@pytest.mark.slow
def test_one_language_that_got_worse_refuses_all(small: Small) -> None:
    done = promote(second(small, {"de": 40}), "mood", "production")
    assert done.release is None
    assert current(small) == 1
    assert releases(small).versions() == [1]
    verdicts = {one.language: one.verdict for one in done.judgement.comparisons}
    assert (verdicts["de"].verdict, verdicts["de"].difference) == ("worse", -10.0)
    assert verdicts["en"].verdict == "not worse"
    with pytest.raises(GateError) as refused:
        done.refuse()
    [mean] = done.judgement.means
    verdicts["mean"] = mean.verdict
    assert (mean.verdict.difference, mean.verdict.n) == (-5.0, 800)
    de, en, all_ = (f"{one.low:+.2f} to {one.high:+.2f}" for one in verdicts.values())
    wide = max(len(de), len(en), len(all_))
    p = {one: f"{verdicts[one].p_value:.2g}" for one in verdicts}
    p_mean = p["mean"]
    lost = done.judgement.lost
    assert len(lost) == 3
    other = {"good": "bad", "bad": "good"}
    assert str(refused.value).splitlines() == [
        "mood: not shown to be as good as v1 (production) in every language",
        "Compared with v1, which is in use: test 1 against it, at a level of 2.5 %",
        f"  language  metric    difference  {'interval':>{wide}}  margin  rows       p    verdict",
        f"  de        accuracy      -10.00  {de:>{wide}}       2   400  {p['de']:>6}      worse",
        f"  en        accuracy       +0.00  {en:>{wide}}       2   400  {p['en']:>6}  not worse",
        f"  mean      accuracy       -5.00  {all_:>{wide}}       2   800  {p_mean:>6}    (worse)",
        *(
            line
            for one in lost
            for line in (
                f"  de accuracy: row {one.key} lost 100 points",
                f"    prompt     '{one.prompt.strip()}'",
                f"    truth      '{one.truth}'",
                f"    v1         '{one.truth}'",
                f"    candidate  '{other[one.truth]}'",
            )
        ),
        "v1 stays in use; improve those languages or add test rows, and run again",
    ]
    assert lost[0].prompt.startswith("de test ")
    assert refused.value.exit_code == 3


@pytest.mark.slow
def test_an_undecided_language_says_how_many_rows_would_decide(small: Small) -> None:
    done = promote(second(small, {"en": 5}), "mood", "production")
    verdict = next(one.verdict for one in done.judgement.comparisons if one.language == "en")
    assert verdict.verdict == "inconclusive"
    # 5 of 400 rows lost, none won. Two comparisons have to pass together with a chance of 80 %, at
    # the level of the second test.
    rows = rows_needed(-1.25, verdict.error, 2.0, 400, 0.05 / 6, math.sqrt(0.8))
    assert verdict.rows_needed == rows
    with pytest.raises(GateError) as refused:
        done.refuse()
    lines = str(refused.value).splitlines()
    at = lines.index(f"  en accuracy: about {rows:,} rows would decide")
    assert lines[at + 1 : at + 3] == [
        "  (in the next test, at a level of 0.83 %: then all 2 comparisons would be decided, one",
        "  way or the other, with a chance of 80 %, were the differences seen here the true ones)",
    ]


@pytest.mark.slow
def test_added_test_rows_are_left_out_and_counted(small: Small) -> None:
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    small.rows("de", "test", [*texts("de"), *texts("de", TEST_ROWS)[:10]])
    done = promote(finish(small), "mood", "production")
    assert done.switched
    assert done.judgement.notes == (
        "de: compared on the 400 rows that both answered; left out: 10 new",
    )


@pytest.mark.slow
def test_no_common_row_refuses_and_says_what_is_missing(small: Small) -> None:
    promote(finish(small), "mood", "production")
    retrain(small, "de", 6)
    small.rows("de", "test", texts("de", TEST_ROWS))
    done = promote(finish(small), "mood", "production")
    with pytest.raises(GateError) as refused:
        done.refuse()
    assert (
        "  de: no test row was answered by both; missing are the answers of v1 to the rows of "
        "today, or its own rows among them"
    ) in str(refused.value).splitlines()


def test_a_removed_language_is_said(small: Small) -> None:
    promote(finish(small), "mood", "production")
    spec = (small.root / "koinize.yaml").read_text()
    small.spec(spec.replace("[en, de]", "[en]"))
    done = promote(finish(small), "mood", "production")
    assert done.switched
    assert done.judgement.notes == ("de is no longer part of it: whoever uses v1 for it loses it",)


def test_promoting_what_is_in_use_changes_nothing(small: Small) -> None:
    project = finish(small)
    promote(project, "mood", "production")
    again = promote(project, "mood", "production")
    assert not again.switched
    assert again.judgement.notes == ("v1 is in use already",)
    assert again.to_dict()["passes"]
    assert len(releases(small).channel("production").events) == 1


def test_channels_do_not_touch_each_other(small: Small) -> None:
    promote(finish(small), "mood", "staging")
    assert (current(small, "staging"), current(small)) == (1, None)


@pytest.mark.slow
def test_back_and_forth(small: Small) -> None:
    project = second(small)
    promote(project, "mood", "production")
    assert rollback(project, "mood", "production").current == 1
    assert promote(project, "mood", "production").switched
    assert current(small) == 2, "the same candidate against the same incumbent is the same release"
    events = releases(small).channel("production").events
    assert [(one.action, one.version, one.before) for one in events] == [
        ("promote", 1, None),
        ("promote", 2, 1),
        ("rollback", 1, 2),
        ("promote", 2, 1),
    ]


def test_nothing_to_go_back_to(small: Small) -> None:
    project = finish(small)
    for now in ("it has none", "v1 is its first"):
        with pytest.raises(InputError) as error:
            rollback(project, "mood", "production")
        assert str(error.value) == (
            "channel 'production' of task 'mood' has no release to go back to: "
            f"{now}; `koinize history` shows what was promoted"
        )
        promote(project, "mood", "production")


@pytest.mark.slow
def test_a_flipped_byte_is_found_on_read(small: Small) -> None:
    project = second(small)
    promote(project, "mood", "production")
    path = releases(small).folder / "v1" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    with pytest.raises(KoinizeError) as error:
        rollback(project, "mood", "production")
    assert str(error.value) == (
        f"{path.parent} release v1 is broken: its file adapter_model.safetensors is missing or has "
        "changed; restore that folder from a copy; a release cannot be rebuilt"
    )
    assert current(small) == 2
    assert [one.what for one in examine(small.root) if one.state == "broken"] == ["mood v1"]


def test_a_changed_manifest_and_a_changed_pointer_are_found(small: Small) -> None:
    promote(finish(small), "mood", "production")
    folder = releases(small).folder
    manifest = folder / "v1" / "release.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace('"mood"', '"mode"'))
    with pytest.raises(KoinizeError, match=r"its release\.json is missing or has changed"):
        releases(small).open(1)
    pointer = folder / "production.json"
    pointer.write_text(pointer.read_text().replace("promote", "rollback"))
    with pytest.raises(KoinizeError) as error:
        releases(small).channel("production")
    assert str(error.value) == (
        f"{pointer} the pointer of this channel cannot be read or has changed; restore the file "
        "from a copy, or delete it and promote anew"
    )


def test_a_release_without_a_pointer_is_taken_up_again(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = finish(small)
    with monkeypatch.context() as patch:
        patch.setattr(Releases, "switch", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            promote(project, "mood", "production")
    assert (current(small), releases(small).versions()) == (None, [1])
    promote(project, "mood", "production")
    assert (current(small), releases(small).versions()) == (1, [1])


KILLED = """
import os, signal, sys
from pathlib import Path
from koinize.release import archive
name = sys.argv[2]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
target = archive.Releases if hasattr(archive.Releases, name) else archive
releases = archive.Releases(Path(sys.argv[1]), "mood")
setattr(target, name, die)
releases.add(1, {"a": 1}, lambda folder: (folder / "file").write_text("x"))
"""


RECORD = {
    **dict.fromkeys(("identity", "candidate", "adapter"), "0" * 64),
    **dict.fromkeys(("task", "channel", "created", "koinize", "system"), "x"),
    "languages": ["de"],
    "settings": {"base": {}, "evaluation": {}},
    "artifacts": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["put_in_place", "_commit", "write_record"])
def test_killed_while_writing_leaves_no_release(tmp_path: Path, moment: str) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert ended.returncode == -signal.SIGKILL
    found = Releases(tmp_path, "mood")
    assert found.versions() == []
    assert found.add(1, RECORD, lambda folder: None).version == 1
    Store(tmp_path).sweep()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_lock_is_respected(small: Small) -> None:
    project = finish(small)
    with locked(project.home), pytest.raises(InputError, match="another koinize works here since"):
        promote(project, "mood", "production")
    assert current(small) is None


def test_nothing_was_run(small: Small) -> None:
    from tests.release.releasing import project_of

    with pytest.raises(InputError) as error:
        promote(project_of(small), "mood", "production")
    assert str(error.value) == (
        "task 'mood' has nothing to release: 'select/mood' is missing; run `koinize run` first"
    )


def test_names_that_are_none(small: Small) -> None:
    project = finish(small)
    with pytest.raises(InputError) as error:
        promote(project, "mood", "prodution")
    assert str(error.value) == "unknown channel 'prodution'; did you mean 'production'?"
    with pytest.raises(InputError) as error:
        task_of(project, "mod")
    assert str(error.value) == "unknown task 'mod'; did you mean 'mood'?"
    for text in ("v0", "../v1", "", "vv1"):
        with pytest.raises(InputError) as error:
            version_of(text)
        assert str(error.value) == f"'{text}' is no release; expected a version such as v3"
    assert version_of("3") == version_of("v3") == 3
    with pytest.raises(InputError) as error:
        releases(small).open(7)
    assert str(error.value) == (
        f"{releases(small).folder} there is no release v7 of task 'mood'; "
        "expected one of these: none yet"
    )


@pytest.mark.slow
def test_what_differs_between_two_releases(small: Small) -> None:
    project = second(small)
    promote(project, "mood", "production")
    found = changes(releases(small).open(1), releases(small).open(2))
    assert not found.same_adapter
    assert [(what, old["rows"], new["rows"]) for what, old, new in found.data] == [
        ("train rows de", 4, 6)
    ]
    assert found.settings == ()
    assert [what for what, _, _ in found.scores] == ["de accuracy", "en accuracy"]


def test_garbage_is_what_no_name_and_no_release_needs(small: Small) -> None:
    first = finish(small)
    old = dict(first.store.names())
    assert garbage(first) == []
    retrain(small, "de", 6)
    project = finish(small)
    gone = {identity for name, identity in old.items() if project.store.names()[name] != identity}
    assert {one.id for one in garbage(project)} == gone != set()
    assert gone <= project.store.ids(), "looking removes nothing"
    collect(project)
    assert project.store.ids() == set(project.store.names().values())


def test_what_a_release_stands_on_is_no_garbage(small: Small) -> None:
    project = second(small)
    kept = set(releases(small).open(1).record["artifacts"].values())
    assert kept - set(project.store.names().values())
    collect(project)
    assert kept <= project.store.ids()


def test_lost_names_cost_nothing(small: Small) -> None:
    project = finish(small)
    (project.home / "names.json").unlink()
    assert garbage(project) == []


def test_the_doctor_finds_nothing_in_a_healthy_project_and_names_what_is_broken(
    small: Small,
) -> None:
    finish(small)
    assert [one for one in examine(small.root) if one.state == "broken"] == []
    folder = artifact_folder(small.root, "select/mood")
    (folder / "manifest.json").write_text("{}")
    (small.root / ".koinize" / "ledger.jsonl").write_text('{"event": "start"}\n')
    broken = {one.what: one.detail for one in examine(small.root) if one.state == "broken"}
    assert broken == {
        "ledger": f"{small.root}/.koinize/ledger.jsonl:1 the ledger was changed: this line does "
        "not follow from the one before it; restore the file from a copy; koinize never edits a "
        "line; or `koinize doctor --mend` keeps what is sound",
        folder.name[:12]: f"{folder} artifact {folder.name[:12]} is broken: its manifest.json has "
        "changed; run `koinize doctor --mend`, then `koinize run`: just that is built again",
    }


def test_the_doctor_sees_a_spec_that_cannot_be_read(tmp_path: Path) -> None:
    found = {one.what: one for one in examine(tmp_path)}
    assert found["koinize.yaml"].state == "broken"
    assert found[".koinize"].detail == "nothing was run here yet"


def test_the_rows_of_the_fixture_are_what_they_say(small: Small) -> None:
    project = finish(small)
    rows = [json.loads(line) for line in answers(project, "de", "test", {"de": 3}).splitlines()]
    assert [one["gold"] == one["prediction"] for one in rows].count(False) == 3


@pytest.mark.slow
def test_a_report_names_a_broken_release_and_shows_the_others(small: Small) -> None:
    project = second(small)
    promote(project, "mood", "production")
    found, notes = released(project)
    assert [(one.version, one.channels, sorted(one.rows)) for one in found] == [
        (1, ("production",), ["de", "en"]),
        (2, ("production",), ["de", "en"]),
    ]
    assert notes == []
    rows = releases(small).folder / "v1" / "evidence" / "rows" / "de.jsonl"
    rows.chmod(0o644)
    rows.write_text("")
    found, notes = released(project)
    assert [one.version for one in found] == [2]
    assert notes == [
        f"mood: {rows.parents[2]} release v1 is broken: its file evidence/rows/de.jsonl is "
        "missing or has changed; restore that folder from a copy; a release cannot be rebuilt"
    ]


def test_the_card_of_a_trunk_begins_as_a_hub_reads_it(small: Small) -> None:
    """While nothing left it the trunk is what is released, and no merge wrote a card for it."""
    small.spec(JOINT)
    done = promote(finish(small), "mood", "production")
    assert done.release is not None
    assert done.release.record["system"] == "TRUNK"
    _, front, text = (done.release.folder / "README.md").read_text("utf-8").split("---\n", 2)
    assert YAML(typ="safe", pure=True).load(front) == {
        "base_model": "base",
        "language": ["de", "en"],
        "library_name": "peft",
        "tags": ["lora", "koinize"],
    }
    assert "# One adapter for de, en, trained on all of them" in text
    assert "# Release v1 of mood" in text

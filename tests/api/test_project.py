"""`import koinize`: the job of the commands as typed values, and nothing printed."""

from __future__ import annotations

from pathlib import Path

import pytest

import koinize
from koinize.api.running import Teller
from koinize.pipeline import project as projects
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A project whose base model nobody looks for."""
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    return Small(tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    yield
    assert capfd.readouterr() == ("", "")


def spec(small: Small) -> str:
    return (small.root / "koinize.yaml").read_text()


def swahili(small: Small, folder: str = "data") -> None:
    (small.root / folder).mkdir(exist_ok=True)
    for split in ("train", "dev", "test"):
        small.rows("sw", split, [f"sw {split} {n}" for n in range(4)])
        name = f"sw.{split}.jsonl"
        (small.root / "data" / name).rename(small.root / folder / name)


def test_every_export_is_there_and_is_what_the_rooms_have():
    assert set(koinize._ROOM) == {*koinize.__all__} - {"__version__"}
    for name, room in koinize._ROOM.items():
        found = getattr(koinize, name)
        assert found.__module__.startswith(room) or name == "Estimate"
        assert found.__doc__
    assert set(koinize.__all__) <= set(dir(koinize))
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        _ = koinize.Projekt


def test_a_project_is_opened_by_folder_or_by_file(small: Small) -> None:
    project = koinize.Project.open(small.root)
    assert project == koinize.Project.open(str(small.root / "koinize.yaml"))
    assert project.folder == small.root
    assert (project.languages, project.tasks) == (("de", "en"), ("mood",))


def test_mistakes_are_told_when_it_is_opened(small: Small) -> None:
    small.spec(SPEC.replace("epochs: 2", "epochs: -2"))
    with pytest.raises(koinize.InputError, match=r"training\.epochs"):
        koinize.Project.open(small.root)


def test_an_example_is_written_and_opened(tmp_path: Path) -> None:
    project = koinize.Project.init(tmp_path / "demo")
    assert project.languages == ("de", "en", "fr", "ja", "zh")
    with pytest.raises(koinize.InputError, match="there is something here already"):
        koinize.Project.init(tmp_path / "demo")


def test_a_plan_says_what_the_pipeline_says(small: Small) -> None:
    found = koinize.Project.open(small.root).plan()
    todo = small.real().plan()
    assert [(one.name, one.id, one.why, one.seconds) for one in found.steps] == [
        (one.step.name, one.step.id, one.why, one.seconds) for one in todo.missing
    ]
    assert (found.total, found.wall, found.machine) == (todo.total, todo.wall, todo.machine)
    assert (found.cost, found.currency) == (None, None)
    small.spec(SPEC + 'price: {per_hour: "3.60", source: a list, date: 2026-01-01}\n')
    priced = koinize.Project.open(small.root).plan()
    assert priced.currency == "USD"
    assert priced.cost is not None
    assert priced.cost.value == pytest.approx(priced.wall.value / 1000)  # 3.60 an hour


def test_a_limit_refuses_before_anything_starts(small: Small) -> None:
    plan = koinize.Project.open(small.root).plan()
    with pytest.raises(koinize.LimitError, match=r"above max_seconds 0\.1 s; raise the limit"):
        plan.run(max_seconds=0.1)
    with pytest.raises(koinize.InputError, match="max_cost there is no price to reckon with"):
        plan.run(max_cost=1)
    assert not Store(small.root / ".koinize").ids()


def test_what_was_not_planned_is_not_done(small: Small) -> None:
    plan = koinize.Project.open(small.root).plan()
    small.rows("de", "train", [f"de train {n}" for n in range(5)])
    with pytest.raises(koinize.InputError) as caught:
        plan.run()
    assert str(caught.value).startswith(f"{small.root / 'koinize.yaml'} 'train/mood/")
    assert str(caught.value).endswith(
        " was not planned like that: something changed since; plan again"
    )


def test_a_worker_that_imports_the_script_is_told_why(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = koinize.Project.open(small.root).plan()
    process = type("Process", (), {"_inheriting": True})()
    monkeypatch.setattr("multiprocessing.current_process", lambda: process)
    with pytest.raises(koinize.InputError, match="under `if __name__ == '__main__':`"):
        plan.run()


def test_a_step_that_fails_is_told_and_raised(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[koinize.Progress] = []

    def refuse(job: object) -> None:
        raise koinize.InputError("no such luck")

    monkeypatch.setattr("koinize.pipeline.run.perform", refuse)
    plan = koinize.Project.open(small.root).plan()
    with pytest.raises(koinize.StepError, match="no such luck"):
        plan.run(told.append)
    assert told[0] == koinize.Progress("planned", 0, len(plan.steps))
    failed = [one for one in told if one.what == "failed"]
    assert failed
    assert {one.error for one in failed} == {"no such luck"}
    assert {one.steps_done for one in told} == {0}


def test_progress_counts_steps_and_what_a_search_adds(small: Small) -> None:
    told: list[koinize.Progress] = []
    todo = small.real().plan()
    first, second = (one.step for one in todo.missing[:2])
    teller, count = Teller(told.append), len(todo.missing)
    teller.planned(todo)
    teller.started(first)
    teller.resumed(first, 2, 8)
    teller.moved(first, 3, 8)
    teller.ended(first, 1.5, "")
    teller.ended(second, 0.5, "it broke")
    teller.planned(todo)
    assert told == [
        koinize.Progress("planned", 0, count),
        koinize.Progress("started", 0, count, first.name),
        koinize.Progress("resumed", 0, count, first.name, 2, 8),
        koinize.Progress("moved", 0, count, first.name, 3, 8),
        koinize.Progress("done", 1, count, first.name, seconds=1.5),
        koinize.Progress("failed", 1, count, second.name, seconds=0.5, error="it broke"),
        koinize.Progress("planned", 1, count + 1),
    ]


def test_languages_come_and_go(small: Small) -> None:
    project = koinize.Project.open(small.root)
    swahili(small)
    tried = project.add_language("sw", dry_run=True)
    assert spec(small) == SPEC
    assert tried.plan
    with pytest.raises(koinize.InputError, match="plan again"):
        tried.plan.run()
    added = project.add_language("sw")
    assert (added.changes, added.diff) == (("languages: sw added",), tried.diff)
    assert spec(small) == SPEC.replace("[en, de]", "[en, de, sw]")
    assert added.plan
    assert {"train/mood/sw"} <= {one.name for one in added.plan.steps}
    removed = project.remove_language("sw")
    assert (removed.changes, removed.trunk_rows) == (("languages: sw removed",), {})
    assert spec(small) == SPEC


@pytest.mark.parametrize(
    "given",
    [
        {"data": "other/sw.{split}.jsonl"},
        {"data": "other/sw.{split}.jsonl", "task": "mood"},
        {"tasks": {"mood": "other/sw.{split}.jsonl"}},
        {"data": {split: f"other/sw.{split}.jsonl" for split in ("train", "dev", "test")}},
    ],
    ids=["data", "task", "tasks", "splits"],
)
def test_ways_to_say_where_rows_stand(small: Small, given: dict) -> None:
    swahili(small, "other")
    project = koinize.Project.open(small.root)
    project.add_language("sw", **given)
    assert project.languages == ("de", "en", "sw")
    assert "other/sw." in spec(small)


def test_a_language_is_updated_by_data_or_by_more_rows(small: Small) -> None:
    project = koinize.Project.open(small.root)
    more = small.root / "more.jsonl"
    more.write_text('{"text": "neu", "label": "good"}\n', encoding="utf-8")
    added = project.update_language("de", append=more)
    assert added.changes == ("data/de.train.jsonl: 1 rows added",)
    assert (small.root / "data" / "de.train.jsonl").read_text().endswith(more.read_text())
    swahili(small, "other")
    moved = project.update_language("de", "other/sw.{split}.jsonl")
    assert moved.changes == ("tasks.mood.data.de: other/sw.{split}.jsonl",)


@pytest.mark.parametrize("given", [{}, {"data": "a", "append": "b"}])
def test_an_update_is_one_of_the_two(small: Small, given: dict) -> None:
    with pytest.raises(koinize.InputError, match="expected one of data, tasks and append"):
        koinize.Project.open(small.root).update_language("de", **given)


def test_data_are_given_once(small: Small) -> None:
    with pytest.raises(koinize.InputError, match="the data are given twice"):
        koinize.Project.open(small.root).add_language("sw", "a", tasks={"mood": "a"})


def test_before_the_first_run_there_is_nothing_to_tell(small: Small) -> None:
    project = koinize.Project.open(small.root)
    with pytest.raises(koinize.InputError, match="run `koinize run` first"):
        project.promote()
    with pytest.raises(koinize.InputError, match="has no release to go back to"):
        project.rollback()
    assert project.release() is None
    assert (project.costs().total.intervals, project.costs().runs) == (0, ())
    with pytest.raises(koinize.InputError, match="unknown task 'modd'; did you mean 'mood'"):
        project.promote(task="modd")


def test_a_report_replaces_no_other_file(small: Small) -> None:
    other = small.root / "data" / "de.test.jsonl"
    with pytest.raises(koinize.InputError, match="is no report that koinize wrote"):
        koinize.Project.open(small.root).report(other)

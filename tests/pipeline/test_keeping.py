"""An update trains, merges what was chosen, and tests that."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.arena import Arena
from tests.reliability.conftest import write_project


@pytest.fixture(scope="module")
def arena(fake: Arena) -> Arena:
    return fake


@pytest.fixture(scope="module")
def first(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return set_up(arena, tmp_path_factory.mktemp("first") / "project", "[ties, knots-ties]")


@pytest.fixture(scope="module")
def second(arena: Arena, first: Path) -> Path:
    root = Path(shutil.copytree(first, first.with_name("second")))
    assert arena.koinize("run", cwd=root).code == 0
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    """Set up; then a row of de was added."""
    return Path(shutil.copytree(first, tmp_path / "project"))


@pytest.fixture
def updated(second: Path, tmp_path: Path) -> Path:
    """And then it was run again."""
    return Path(shutil.copytree(second, tmp_path / "project"))


def set_up(arena: Arena, root: Path, candidates: str) -> Path:
    """The scores of all are equal, so the first candidate is chosen."""
    write_project(root)
    file = root / "koinize.yaml"
    text = file.read_text().replace("[ties, knots-ties]", candidates)
    file.write_text(text)
    assert candidates in file.read_text()
    assert arena.koinize("run", cwd=root).code == 0
    add(root, "de.train")
    return root


def add(root: Path, split: str) -> None:
    rows = root / "data" / f"{split}.jsonl"
    line = rows.read_text(encoding="utf-8").splitlines()[0]
    with rows.open("a", encoding="utf-8") as file:
        file.write(line.replace('"text": "', '"text": "more ') + "\n")


def told(arena: Arena, root: Path, *arguments: str) -> Any:
    ended = arena.koinize(*arguments, "--json", cwd=root)
    assert ended.code == 0, ended.output
    return json.loads(ended.output)


def missing(arena: Arena, root: Path, *arguments: str) -> list[str]:
    return sorted(one["step"] for one in told(arena, root, "plan", *arguments)["missing"])


def test_an_update_trains_merges_and_tests_what_was_chosen(arena: Arena, root: Path) -> None:
    chosen = told_chosen(root)
    wanted = [
        "evaluate/mood/INDV/de/test",
        f"evaluate/mood/{chosen}/de/test",
        f"evaluate/mood/{chosen}/en/test",
        f"merge/mood/{chosen}",
        "train/mood/de",
    ]
    assert missing(arena, root) == sorted(wanted)
    scopes = told(arena, root, "plan")["saving"]["scopes"]
    assert [one["scope"] for one in scopes] == ["training", "testing"]
    assert arena.koinize("run", cwd=root).code == 0
    assert missing(arena, root) == []
    assert told_chosen(root) == chosen
    others = "knots-ties density 1, MEAN, de only"  # the adapter of "en only" is the same
    assert notes(arena, root) == [COMB, kept(chosen, others)]


@pytest.mark.slow
def test_of_what_is_also_a_scale_of_mean_todays_merge_is_released(
    arena: Arena, tmp_path: Path
) -> None:
    root = set_up(arena, tmp_path / "project", "[mean, ties]")
    before = names(root)
    assert told_chosen(root) == "mean"
    assert arena.koinize("run", cwd=root).code == 0
    assert missing(arena, root) == []
    assert notes(arena, root) == [COMB, kept("mean", "ties density 1, MEAN, de only")]
    assert arena.koinize("whatif", "--without", "de", cwd=root).code == 2
    assert told(arena, root, "promote")
    release = root / ".koinize" / "releases" / "mood" / "v1" / "release.json"
    artifacts = json.loads(release.read_text())["artifacts"]
    for step in ("train/mood/de", "merge/mood/mean", "evaluate/mood/mean/de/test"):
        assert artifacts[step] == names(root)[step] != before[step]


@pytest.mark.parametrize("candidates", ["[ties, mean]", "[mean, ties]"])
def test_a_mean_that_is_lost_is_made_anew_and_is_no_candidate(
    arena: Arena, tmp_path: Path, candidates: str
) -> None:
    root = set_up(arena, tmp_path / "project", candidates)
    lose(arena, root, "select/mood/mean")
    assert arena.koinize("run", cwd=root).code == 0
    assert missing(arena, root) == []
    chosen, other = ("ties density 1", "mean")[:: 1 if candidates == "[ties, mean]" else -1]
    assert notes(arena, root) == [COMB, kept(chosen, f"{other}, de only")]


def test_what_is_about_to_be_kept_is_planned(arena: Arena, root: Path) -> None:
    assert "is kept from the choice of" in arena.koinize("plan", cwd=root).output


def test_what_came_of_it_is_released_and_not_asked_about(arena: Arena, updated: Path) -> None:
    root = updated
    ended = arena.koinize("whatif", "--without", "de", cwd=root)
    assert (ended.code, "--choose-again" in ended.output) == (2, True)
    assert told(arena, root, "promote")
    again = arena.koinize("promote", cwd=root)
    assert again.code == 0, again.output


def test_it_is_chosen_again_when_asked(arena: Arena, updated: Path) -> None:
    root = updated
    assert "select/mood" in missing(arena, root, "--choose-again")
    assert arena.koinize("run", "--choose-again", cwd=root).code == 0
    assert missing(arena, root) == []
    assert not any("is kept" in one for one in told(arena, root, "report")["notes"])


def test_other_dev_rows_choose_again(arena: Arena, root: Path) -> None:
    add(root, "en.dev")
    assert "select/mood" in missing(arena, root)


def test_other_settings_choose_again(arena: Arena, root: Path) -> None:
    file = root / "koinize.yaml"
    file.write_text(file.read_text().replace("epochs: 2", "epochs: 3"))
    assert "select/mood" in missing(arena, root)


def test_a_second_update_keeps_the_first_choice(arena: Arena, updated: Path) -> None:
    root = updated
    assert arena.koinize("gc", "--delete", cwd=root).code == 0
    assert missing(arena, root) == []
    add(root, "en.train")
    again = missing(arena, root)
    assert "select/mood" not in again
    assert "train/mood/en" in again
    assert arena.koinize("run", cwd=root).code == 0
    assert missing(arena, root) == []


def test_one_candidate_alone_leaves_nothing_out_and_no_note(arena: Arena, tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_project(root)
    file = root / "koinize.yaml"
    file.write_text(
        file.read_text().replace("[ties, knots-ties]", "[ties]") + "baselines: [base, indv, comb]\n"
    )
    assert arena.koinize("run", cwd=root).code == 0
    add(root, "de.train")
    assert missing(arena, root) == [
        "evaluate/mood/INDV/de/test",
        "evaluate/mood/ties density 1/de/test",
        "evaluate/mood/ties density 1/en/test",
        "merge/mood/ties density 1",
        "train/mood/de",
    ]
    assert arena.koinize("run", cwd=root).code == 0
    assert notes(arena, root) == [COMB]


def test_who_wants_it_chooses_after_every_update(arena: Arena, root: Path) -> None:
    file = root / "koinize.yaml"
    file.write_text(file.read_text().replace("merge: {", "merge: {update: choose, "))
    assert "select/mood" in missing(arena, root)


COMB = (
    "mood: COMB is the one trained before train rows de changed; `koinize run --retrain-comb` "
    "trains it again"
)


def kept(chosen: str, others: str) -> str:
    """The note, without the day."""
    return (
        f"mood: the recipe {chosen} is kept from the choice of DAY and merged from the adapters "
        f"of today; not scored again: {others}; `koinize run --choose-again` chooses again"
    )


def notes(arena: Arena, root: Path) -> list[str]:
    found = told(arena, root, "report")["notes"]
    return [re.sub(r"choice of [\d-]+", "choice of DAY", one) for one in found]


def lose(arena: Arena, root: Path, step: str) -> None:
    manifest = root / ".koinize" / "artifacts" / names(root)[step] / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("spoiled")
    assert arena.koinize("doctor", "--mend", cwd=root).code in (0, 1)
    assert not manifest.exists()


def names(root: Path) -> dict[str, str]:
    return json.loads((root / ".koinize" / "names.json").read_text())


def told_chosen(root: Path) -> str:
    manifest = root / ".koinize" / "artifacts" / names(root)["select/mood"] / "manifest.json"
    return str(json.loads(manifest.read_text())["facts"]["chosen"])

"""What a project is told, and what follows, where trainings load the base in 4 bit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rich.console import Console

from koinize.cli.plan_view import show_plan
from koinize.errors import InputError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.model.quantized import in_words
from koinize.pipeline import work
from koinize.pipeline.work import Job
from tests.pipeline.conftest import SPEC, Small

IN_4_BIT = SPEC.replace("{epochs: 2}", "{epochs: 2, load_in_4bit: true}")


def test_another_training_is_asked_for_and_the_same_base(small: Small) -> None:
    before = small.steps()
    small.spec(IN_4_BIT)
    after = small.steps()
    changed = {name for name in before if before[name].inputs != after[name].inputs}
    assert changed == {name for name in before if before[name].kind == "train"}
    ids = {name for name in before if before[name].id == after[name].id}
    assert {"base", "evaluate/mood/BASE/de/test"} <= ids
    assert not {name for name in ids if before[name].kind in ("train", "merge")}
    assert after["train/mood/de"].settings["training"]["load_in_4bit"] is True


def test_who_lacks_bitsandbytes_is_told_before_anything_is_done(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(IN_4_BIT)
    monkeypatch.setattr("koinize.model.quantized.find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        small.project(monkeypatch).plan()
    assert str(caught.value) == (
        "training.load_in_4bit a base in 4 bit needs bitsandbytes, which is not installed; pip "
        "install 'koinize[quantized]', or take load_in_4bit out"
    )


def test_a_trainer_of_one_s_own_loads_the_base_itself(small: Small) -> None:
    small.spec(IN_4_BIT.replace("load_in_4bit", "trainer: {command: [train]}, load_in_4bit"))
    with pytest.raises(InputError, match="a trainer of your own loads the base itself; remove"):
        small.steps()


@pytest.mark.slow
def test_a_worker_trains_on_one_and_scores_on_the_other_and_never_has_both(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_base(small.root / "base")
    small.spec(IN_4_BIT)
    project, held, loads = (
        small.real(),
        dict[tuple[object, ...], object](),
        list[tuple[bool, int]](),
    )
    steps = {one.name: one for one in project.steps}
    monkeypatch.setattr(work, "_held", held)
    monkeypatch.setattr(
        "koinize.model.loaded.load_model",
        lambda *_, in_4bit, **__: loads.append((in_4bit, len(held))) or SimpleNamespace(writes=1),
    )
    for name in ("train/mood/de", "train/mood/en", "evaluate/mood/BASE/de/test", "train/mood/de"):
        work.loaded(Job(steps[name], project.spec, small.root, small.root / ".koinize", threads=1))
        assert len(held) == 1
    assert loads == [(True, 0), (False, 0), (True, 0)]


def test_the_plan_says_what_is_what(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small.spec(IN_4_BIT)
    monkeypatch.setattr("koinize.model.quantized.find_spec", lambda _: "there")
    monkeypatch.setattr("koinize.cli.plan_view.Console", lambda: Console(width=300))
    project = small.project(monkeypatch)
    show_plan(project.plan(), project)
    said = (
        "trainings load the base model in 4 bit (NF4), and their dev losses are measured on that; "
        "what is merged, scored and served stands on the base model in "
    )
    assert f"{said}bfloat16" in capsys.readouterr().out
    assert in_words("auto") == f"{said}the dtype of its files"

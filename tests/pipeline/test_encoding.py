"""How a base model is given texts is part of what is trained and scored on it, no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koinize.errors import InputError
from koinize.model.manner import PLAIN, Manner
from koinize.pipeline import project as projects
from koinize.pipeline.experience import learn
from koinize.pipeline.graph import graph
from koinize.pipeline.inputs import examples_of, survey
from koinize.pipeline.lineage import History
from koinize.pipeline.plan import plan
from koinize.pipeline.project import Project
from koinize.pipeline.run import Outcome
from koinize.pipeline.step import Step
from koinize.spec import load
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small

CHAT, SPACED = Manner(is_chat=True), Manner(prefixes=True)
COMMIT = "c" * 40
HUB = SPEC.replace("{model: base}", f"{{model: org/model, revision: {COMMIT}}}")


def steps(small: Small, manner: Manner) -> dict[str, Step]:
    spec = load(small.root / "koinize.yaml")
    inputs = survey(spec, small.root, small.root / "memory.json", manner)
    history = History(spec, inputs, small.root, Store(small.root / "nothing"))
    return {step.name: step for step in graph(spec, inputs, "b" * 64, {}, history)}


def differing(one: dict[str, Step], other: dict[str, Step]) -> set[str]:
    return {step.kind for name, step in one.items() if step.identity != other[name].identity}


@pytest.mark.parametrize("manner", [CHAT, SPACED])
def test_what_a_chat_template_or_a_first_space_changes(small: Small, manner: Manner) -> None:
    plain, other = steps(small, PLAIN), steps(small, manner)

    assert {one.id for one in plain.values()} == {one.id for one in small.steps().values()}
    assert differing(plain, other) == {"train", "merge", "evaluate", "select"}
    assert "encoding" not in plain["train/mood/de"].inputs
    assert plain["base"].id == other["base"].id


def test_arguments_of_the_template_make_other_trainings(small: Small) -> None:
    before = steps(small, CHAT)
    small.spec(SPEC.replace("{model: base}", "{model: base, template: {enable_thinking: false}}"))
    after = steps(small, CHAT)

    assert differing(before, after) == {"train", "merge", "evaluate", "select"}
    assert after["train/mood/de"].settings["encoding"] == {
        "chat": 2,
        "template": {"enable_thinking": False},
    }


def test_the_plan_says_why_all_is_trained_again(small: Small) -> None:
    store = Store(small.root / "home")
    for step in steps(small, PLAIN).values():
        with store.building(step.id, step.name, step.identity):
            pass
        store.point({step.name: step.id})

    def why(manner: Manner) -> str:
        todo = plan(list(steps(small, manner).values()), store, learn([]), 1, {})
        return {one.step.name: one.why for one in todo.missing}.get("train/mood/de", "")

    assert why(PLAIN) == ""
    assert why(CHAT) == "koinize gives such a base model its texts differently now"


def messages(small: Small, *roles_and_texts: tuple[str, str]) -> None:
    small.spec(SPEC.replace('    prompt: "{text} ="\n', ""))
    for language in ("de", "en"):
        for split in ("train", "dev", "test"):
            said = [*roles_and_texts[:-1], ("user", f"{roles_and_texts[-1][1]} {language} {split}")]
            listed = [{"role": role, "content": text} for role, text in said]
            row = {"messages": [*listed, {"role": "assistant", "content": "good"}]}
            path = small.root / "data" / f"{language}.{split}.jsonl"
            path.write_text(json.dumps(row) + "\n")


def test_who_said_what_counts_where_a_model_sees_it(small: Small) -> None:
    messages(small, ("system", "Be brief."), ("user", "Why?"))
    system = {manner: steps(small, manner) for manner in (PLAIN, CHAT)}
    spec = load(small.root / "koinize.yaml")
    (seen,) = examples_of(spec.tasks["mood"], small.root, "de", "dev", None, is_chat=True)
    assert seen.turns == (("system", "Be brief."), ("user", "Why? de dev"))
    (flat,) = examples_of(spec.tasks["mood"], small.root, "de", "dev", None)
    assert (flat.turns, flat.prompt) == ((), "Be brief.\n\nWhy? de dev")

    messages(small, ("user", "Be brief.\n\nWhy?"))
    user = {manner: steps(small, manner) for manner in (PLAIN, CHAT)}
    assert differing(system[PLAIN], user[PLAIN]) == set()
    assert differing(system[CHAT], user[CHAT]) == {"train", "merge", "evaluate", "select"}


def base_folder(cache: Path, template: str) -> Path:
    folder = cache / "models--org--model" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_base_that_is_not_here_yet_comes_first(
    small: Small, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the rest is identified by what it turned out to be, as it will be from now on."""
    small.spec(HUB)
    asked: list[list[str]] = []

    def run(missing: Any, *_: object) -> Outcome:
        asked.append([one.step.id for one in missing])
        if not hub.exists():
            base_folder(hub, "{{ messages }}")
        return Outcome(done=[one.step.name for one in missing])

    monkeypatch.setattr(projects, "run", run)
    tried: list[object] = []
    monkeypatch.setattr(projects, "refuse_unfit", lambda *arguments: tried.append(arguments[4]))
    monkeypatch.setattr(projects, "fitted", lambda _base, _template, texts: [""] * len(texts))
    _, outcome = Project.at(small.root / "koinize.yaml").run(Quiet(), lambda _: None)

    today = [step.id for step in Project.at(small.root / "koinize.yaml").steps]
    assert asked == [today[:1], today]
    assert tried == [Project.at(small.root / "koinize.yaml")._base_here]  # once it is here
    assert outcome.done[:2] == ["base", "base"]
    assert "encoding" in Project.at(small.root / "koinize.yaml").steps[1].inputs


def test_a_base_that_cannot_be_had_ends_the_run(
    small: Small, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.spec(HUB)
    fails: Callable[..., Outcome] = lambda *_: Outcome(failed={"base": "no network"})  # noqa: E731
    monkeypatch.setattr(projects, "run", fails)
    todo, outcome = Project.at(small.root / "koinize.yaml").run(Quiet(), lambda _: None)

    assert outcome.failed == {"base": "no network"}
    assert len(outcome.skipped) == len(todo.missing) - 1


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("", "the base model has no chat template; remove base.template, or choose a chat model"),
        ("{{ messages }}", "the chat template knows no 'think'; expected variables that it names"),
        ("{{ thinking }}", "the chat template knows no 'think'; expected variables that it names"),
    ],
)
def test_arguments_that_a_template_would_ignore_are_refused_at_plan(
    small: Small, hub: Path, template: str, said: str
) -> None:
    small.spec(HUB.replace("revision", "template: {think: false}, revision"))
    base_folder(hub, template)
    with pytest.raises(InputError) as caught:
        Project.at(small.root / "koinize.yaml").plan()
    assert str(caught.value) == f"base.template {said}"


class Quiet:
    """A watcher that shows nothing."""

    def planned(self, *_: object) -> None: ...
    def started(self, *_: object) -> None: ...
    def resumed(self, *_: object) -> None: ...

    def moved(self, *_: object) -> None: ...
    def ended(self, *_: object) -> None: ...

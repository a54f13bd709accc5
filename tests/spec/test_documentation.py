"""docs/spec.md: its example loads, its tables have the code's keys and defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from koinize.errors import GateError, InputError, KoinizeError
from koinize.merge.recipe import MergeSettings
from koinize.model.base import BaseSpec
from koinize.model.judge import JudgeSpec
from koinize.settings import EvaluationSection, TrainerCommand, TrainingSpec, UpdateSpec
from koinize.spec import LoraSection, MachineSection, MergeSection, Price, Spec
from koinize.store.spec import StoreSpec
from koinize.tasks import Task, tasks

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")
NONE = "–"
BELOW = "below"

SECTIONS = {
    "The top of the file": Spec,
    "base": BaseSpec,
    "Every kind": Task,
    "lora": LoraSection,
    "training": TrainingSpec,
    "trainer": TrainerCommand,
    "update": UpdateSpec,
    "evaluation": EvaluationSection,
    "merge": MergeSection,
    "One candidate": MergeSettings,
    "judges": JudgeSpec,
    "price": Price,
    "machine": MachineSection,
    "store": StoreSpec,
}


def block(kind: str) -> str:
    return PAGE.partition(f"```{kind}\n")[2].partition("```")[0]


def rows(heading: str) -> dict[str, str]:
    """Key -> default, as the table under a heading has them."""
    section = re.split(r"^#+ ", PAGE.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \| `?(.*?)`? \|", section, flags=re.MULTILINE))


def default_of(field) -> object:
    if field.is_required():
        return "required"
    return json.loads(json.dumps(field.get_default(call_default_factory=True), default=str))


def parsed(cell: str) -> object:
    return None if cell == NONE else YAML(typ="safe", pure=True).load(cell)


def check(table: dict[str, str], fields) -> None:
    assert set(table) == set(fields)
    for key, cell in table.items():
        if cell != BELOW:
            assert parsed(cell) == default_of(fields[key]), key


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_table_has_the_sections_keys_and_defaults(heading):
    fields = dict(SECTIONS[heading].model_fields)
    if heading == "Every kind":
        del fields["metrics"]  # its default is each kind's own
    check(rows(heading), fields)


@pytest.mark.parametrize("kind", tasks.names())
def test_a_task_kinds_table_has_what_it_adds(kind):
    heading = next(re.finditer(rf"^### ({kind}: .*)$", PAGE, flags=re.MULTILINE))[1]
    common = set(rows("Every kind"))
    fields = {
        name: field for name, field in tasks.get(kind).model_fields.items() if name not in common
    }
    check(rows(heading), fields)


def test_the_example_loads(loaded):
    spec = loaded(block("yaml spec"))
    assert spec.languages == ("de", "en", "ja")
    assert sorted(spec.tasks) == ["sentiment", "summary"]
    assert len(spec.merge.settings) == 8 + 1 + 4
    assert spec.lora.of("ja").r == 32


def test_the_example_has_every_key_of_the_top(loaded):
    assert loaded(block("yaml spec")).model_fields_set == set(Spec.model_fields)


def test_the_mistakes_are_told_as_the_page_says(refused):
    text = """\
koinize: 1
name: tiny
base: {model: base, dtyp: float32}
languages: [de]
tasks:
  mood:
    kind: classify
    labels: [good, bad]
training: {epochs: three}
merge: {candidates: [{recipe: ties, densty: 0.5}]}
"""
    assert refused(text) == block("text mistakes").splitlines()


def test_the_exit_codes():
    codes = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, flags=re.MULTILINE))
    assert list(codes) == ["0", "1", "2", "3", "130"]
    for kind, begins in (
        (KoinizeError, "a step failed"),
        (InputError, "bad input"),
        (GateError, "the gate said no"),
    ):
        assert codes[str(kind.exit_code)].startswith(begins)

"""Trainings by a program of the user's own, and every way in which it may go wrong."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from koinize.adapter import read_header
from koinize.errors import InputError, ManyErrors, StepError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.ledger import Ledger
from koinize.pipeline import Project
from koinize.pipeline.step import Step
from koinize.pipeline.trainer import require_program, row_of
from koinize.pipeline.work import Job, perform
from koinize.spec import Spec, load
from koinize.store import Store
from koinize.tasks import Example
from tests.pipeline.conftest import SPEC, Small

TRAINER = """
import json, sys
import numpy as np
from safetensors.numpy import load_file, save_file
settings = json.load(open(sys.argv[1], encoding="utf-8"))
lora, out, module = settings["lora"], settings["out"], "model.layers.0.self_attn.q_proj"
rows = [json.loads(line) for line in open(settings["rows"], encoding="utf-8")]
outputs, inputs = load_file(settings["base"] + "/model.safetensors")[module + ".weight"].shape
r, base, value = lora["r"], settings["base"], 0.01 * len(rows)
{change}
name = f"base_model.model.{{module}}.lora_"
A, B = np.full((r, inputs), value, "float32"), np.ones((outputs, r), "float32")
save_file({{name + "A.weight": A, name + "B.weight": B}}, out + "/adapter_model.safetensors")
config = {{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": lora["alpha"]}}
config |= {{"target_modules": ["q_proj"], "base_model_name_or_path": base}}
json.dump(config, open(out + "/adapter_config.json", "w"))
"""
NAME = "train/mood/de"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_tiny_base(folder)
    return folder


class Commanded:
    """The small project, whose trainings a script beside it does."""

    def __init__(self, small: Small, base: Path) -> None:
        self.root, self.small = small.root, small
        shutil.copytree(base, small.root / "base")
        self.script("")
        self.trainer()

    def script(self, change: str) -> None:
        (self.root / "train.py").write_text(TRAINER.format(change=change), encoding="utf-8")

    def trainer(self, more: str = "", arguments: str = '"{settings}"', training: str = "") -> None:
        command = f"[{sys.executable}, train.py, {arguments}]"
        trainer = f"epochs: 2{training}, trainer: {{command: {command}{more}}}"
        self.small.spec(SPEC.replace("epochs: 2", trainer))

    @property
    def step(self) -> Step:
        (found,) = (one for one in self.small.real().steps if one.name == NAME)
        return found

    @property
    def log(self) -> Path:
        return self.root / ".koinize" / "logs" / "train.mood.de.log"

    def train(self) -> Path:
        """The folder of the adapter that is made."""
        step, home = self.step, self.root / ".koinize"
        perform(Job(step, load(self.root / "koinize.yaml"), self.root, home, threads=1))
        return Store(home).open(step.id).folder

    def failure(self) -> str:
        with pytest.raises(StepError) as caught:
            self.train()
        assert Store(self.root / ".koinize").ids() == set()
        assert list((self.root / ".koinize" / "tmp").iterdir()) == []
        return str(caught.value)


@pytest.fixture
def commanded(small: Small, base: Path) -> Commanded:
    return Commanded(small, base)


def test_a_program_trains_and_its_adapter_is_kept(commanded: Commanded) -> None:
    """One module of rank 16, its A full of .04 for four rows; the base under the project's name."""
    commanded.script("print('done'); json.dump(settings, open('seen.json', 'w'))")
    folder = commanded.train()
    header = read_header(folder)
    assert header.base_model == "base"
    assert [(one.rank, one.scale) for one in header.modules.values()] == [(16, 2.0)]
    assert commanded.log.read_text() == "done\n"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["facts"]["examples"] == 4
    assert set(manifest["files"]) >= {"adapter_config.json", "adapter_model.safetensors"}
    seen = json.loads((commanded.root / "seen.json").read_text())
    assert (seen["base_model"], seen["start"], seen["threads"]) == ("base", "", 1)
    assert seen["lora"]["alpha"] == 32.0
    assert seen["training"]["epochs"] == 2
    assert seen["training"]["batch_tokens"] == 1024  # a number, for who adds up
    assert "trainer" not in seen["training"]


@pytest.mark.parametrize("place", [".", ".."])
def test_a_program_beside_koinize_yaml(
    commanded: Commanded, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Started in the folder of the project, and in the one above it."""
    program = commanded.root / "train.sh"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} train.py "$@"\n')
    program.chmod(0o755)
    trainer = "epochs: 2, trainer: {command: [./train.sh, '{settings}']}"
    commanded.small.spec(SPEC.replace("epochs: 2", trainer))
    step, spec = commanded.step, load(commanded.root / "koinize.yaml")
    monkeypatch.chdir(commanded.root / place)
    root = Path("" if place == "." else commanded.root.name)
    require_program(spec, root)
    perform(Job(step, spec, root, root / ".koinize", threads=1))
    assert Store(root / ".koinize").open(step.id).path("adapter_model.safetensors").exists()


def test_what_it_is_given(commanded: Commanded) -> None:
    """By arguments and by the environment, in either form."""
    keep = (
        "import os, shutil; shutil.copy(os.environ['KOINIZE_ROWS'], 'rows'); "
        "shutil.copy(sys.argv[2], 'dev'); assert sys.argv[3] == 'x=' + os.environ['KOINIZE_OUT']"
    )
    commanded.script(keep)
    commanded.trainer(arguments='"{settings}", "{dev}", "x={out}"')
    commanded.train()
    rows = [json.loads(line) for line in (commanded.root / "rows").read_text().splitlines()]
    assert {"prompt": "de train 0 =", "completion": " good"} in rows
    assert len(rows) == 4
    assert len((commanded.root / "dev").read_text().splitlines()) == 2


def test_rows_as_messages() -> None:
    one = Example("k", "de", "Wie?", " So.")
    asked = {"role": "user", "content": "Wie?"}
    said = {"role": "assistant", "content": "So."}
    assert row_of(one, "messages") == {"messages": [asked, said]}
    turns = (("system", "Kurz."), ("user", "Wie?"))
    several = Example("k", "de", "Kurz.\nWie?", "So.", turns=turns)
    system = {"role": "system", "content": "Kurz."}
    assert row_of(several, "messages") == {"messages": [system, asked, said]}


CODE = "print('a\\x1b[2J'); sys.exit('no GPU')"
PIPE = "import os; os.mkfifo(out + '/adapter_config.json'); sys.exit(0)"
BROKEN = (
    "open(out + '/adapter_config.json', 'w').write('{'); "
    "open(out + '/adapter_model.safetensors', 'w'); sys.exit(0)"
)
UNUSABLE = "left no adapter that can be used: "


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (CODE, "ended with code 1; its last lines:\na\\u001b[2J\nno GPU\n"),
        ("sys.exit(0)", UNUSABLE + "there is no adapter_config.json in its output folder"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9; it printed nothing; "),
        ("base = 'other/model'", UNUSABLE + "it is one of 'other/model'; expected one of 'base'"),
        ("r = 8", "has rank 8 and scale 4; expected rank 16 and scale 2, as lora in koinize.yaml"),
        ("value = float('nan')", "lora_A"),
        ("value = 0.0", UNUSABLE + "it changes nothing: every update is zero"),
        (PIPE, UNUSABLE + "adapter_config.json cannot be read: it is no regular file but a pipe"),
        (BROKEN, UNUSABLE + "adapter_config.json"),
    ],
    ids=["code", "nothing", "signal", "base", "rank", "nan", "zero", "pipe", "broken"],
)
def test_what_it_may_do_wrong(commanded: Commanded, change: str, said: str) -> None:
    commanded.script(change)
    message = commanded.failure()
    assert message.startswith(f"{NAME} the trainer ")
    assert said in message
    assert message.endswith(f"all of its output is in {commanded.log}")
    assert str(commanded.root / ".koinize" / "tmp") not in message
    assert commanded.log.exists()


def test_one_that_never_ends_is_stopped(commanded: Commanded) -> None:
    commanded.script("print('begun', flush=True); import time; time.sleep(600)")
    commanded.trainer(more=", hours: 0.0003")
    assert "did not end within 0.0003 hours, and was stopped" in commanded.failure()


def test_one_that_is_not_there_is_told_by_the_plan(commanded: Commanded) -> None:
    for name in ("no-such-program", "./train.py"):  # which nobody may execute
        commanded.small.spec(
            SPEC.replace("epochs: 2", f"epochs: 2, trainer: {{command: [{name}, x]}}")
        )
        with pytest.raises(InputError) as refused:
            require_program(load(commanded.root / "koinize.yaml"), commanded.root)
        assert str(refused.value) == (
            f"training.trainer.command there is no program '{name}'; expected a program on PATH, "
            "or its path from the folder of koinize.yaml"
        )


def test_the_command_is_part_of_what_a_training_is(commanded: Commanded) -> None:
    ids = [commanded.step.id]
    commanded.trainer(more=", hours: 1")
    assert commanded.step.id == ids[0]
    for more in (", version: 'trl 1'", ", version: 'trl 2'", ", rows: messages"):
        commanded.trainer(more=more)
        ids.append(commanded.step.id)
    commanded.trainer(arguments='"{settings}", "--fast"')
    ids.append(commanded.step.id)
    commanded.small.spec(SPEC)
    ids.append(commanded.step.id)
    assert len(set(ids)) == len(ids)


def refusal(commanded: Commanded) -> str:
    with pytest.raises((InputError, ManyErrors)) as refused:
        load(commanded.root / "koinize.yaml")
    return str(refused.value)


def test_what_has_to_go_on_from_an_adapter_is_given_one(commanded: Commanded) -> None:
    for training in (", trunk: joint", ", update: {mode: continue}"):
        commanded.trainer(training=training)
        assert "takes no adapter to train on from; name {start} in it" in refusal(commanded)
        commanded.trainer(training=training, arguments='"{settings}", "{start}"')
        assert isinstance(load(commanded.root / "koinize.yaml"), Spec)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ("trl", "'trl' is no trainer; write koinize, or {command: [PROGRAM, ...]}"),
        ("{command: []}", "command"),
        ('{command: [a, "{output}"]}', "nothing stands for {output}; there are {rows}, {dev}"),
        ('{command: [""]}', "write a list of a program and its arguments"),
        ("{command: [a], hours: 0}", "hours"),
        ("{command: [a], rows: alpaca}", "rows"),
    ],
)
def test_what_koinize_yaml_may_say_wrong(commanded: Commanded, trainer: str, said: str) -> None:
    commanded.small.spec(SPEC.replace("epochs: 2", f"epochs: 2, trainer: {trainer}"))
    assert said in refusal(commanded)


@pytest.mark.slow
def test_a_continued_adapter_starts_where_the_last_one_ended(
    commanded: Commanded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a plan knows only what changed."""
    monkeypatch.setattr("koinize.pipeline.project.refuse_unfit", lambda *_: None)
    arguments = '"{settings}", "{start}"'
    training = ", update: {mode: continue, replay: 0}"
    commanded.trainer(training=training, arguments=arguments)
    commanded.script(
        "import os; there = os.listdir(sys.argv[2] or '.'); "
        "open('starts', 'a').write(f'{len(rows)} {there}\\n')"
    )
    commanded.train()
    home = commanded.root / ".koinize"
    first = commanded.step
    Store(home).point({NAME: first.id})
    commanded.small.rows("de", "train", [f"de train {n}" for n in range(4)] + ["new", "newer"])
    assert commanded.step.uses.parent == first.id
    commanded.train()
    starts = (commanded.root / "starts").read_text().splitlines()
    assert starts[0].startswith("4 ")
    assert starts[1].startswith("2 ")
    assert "adapter_model.safetensors" in starts[1]


class Quiet:
    """A watcher that shows nothing."""

    def planned(self, todo: object) -> None: ...
    def started(self, step: object) -> None: ...
    def moved(self, step: object, done: int, total: int) -> None: ...
    def ended(self, step: object, seconds: float, error: str) -> None: ...


@pytest.mark.slow
def test_a_whole_project_works_around_it(commanded: Commanded) -> None:
    """Merges, evaluations and the ledger; a failure keeps the rest, and a second run goes on."""
    commanded.trainer(training=", trunk: joint", arguments='"{settings}", "{start}"')
    commanded.script("sys.exit('no room')")
    project = Project.at(commanded.root / "koinize.yaml")
    _, outcome = project.run(Quiet(), lambda _: None)
    assert "ended with code 1" in "".join(outcome.failed.values())
    commanded.script("")
    _, outcome = Project.at(project.file).run(Quiet(), lambda _: None)
    assert outcome.failed == {}
    assert Project.at(project.file).plan().missing == ()
    commanded.small.rows("de", "train", [f"de train {n}" for n in range(4)] + ["new", "newer"])
    todo, outcome = Project.at(project.file).run(Quiet(), lambda _: None)
    assert outcome.failed == {}
    trained = [one.step.name for one in todo.missing if one.step.kind == "train"]
    assert len(trained) == 1
    done = [
        one
        for one in Ledger(commanded.root / ".koinize/ledger.jsonl").intervals()
        if one.kind == "train"
    ]
    assert {one.status for one in done} == {"failed", "done"}

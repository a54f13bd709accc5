"""What the plan says of memory, and what `training.batch_tokens: auto` is by it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from koinize import machine
from koinize.cli.plan_view import plan_json, show_plan
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.model.memory import TrainingMemory, decoder_in, training_memory
from koinize.pipeline.kinds import train
from koinize.pipeline.memory import Need, Passes, workers_of_a_gpu
from koinize.pipeline.project import Project
from koinize.pipeline.work import Job
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small

ONE = TrainingMemory(500_000_000, 10**8, 10**9, 3 * 10**8, 4 * 10**8, 1024, base_is_shared=True)


def test_it_warns_where_the_workers_need_more_than_there_is() -> None:
    """Two of 2.3 GB that share .5 need 4.1."""
    need = Need(ONE, 2, 4_000_000_000)
    assert str(need) == (
        "a training needs roughly 2.3 GB for each worker if its passes are full (1,024 tokens; "
        "less if not), of which 0.5 GB are the base model"
    )
    assert need.warning == (
        "2 workers that train may need 4.1 GB and this machine has 4.0 GB: lower "
        "training.batch_tokens or lower machine.workers or set machine.gradient_checkpointing"
    )
    assert Need(ONE, 1, 2_000_000_000, recomputed=True).warning == (
        "a worker that trains may need 2.3 GB and this machine has 2.0 GB: lower "
        "training.batch_tokens"
    )
    assert not Need(ONE, 2, 4_100_000_000).warning
    assert not Need(ONE, 2, None).warning


CARD = 10**12  # more than a tiny model fills


class Gpus:
    """Pretend that this machine has GPUs, of which the driver says so much."""

    def __init__(self, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
        write_tiny_base(small.root / "base")
        monkeypatch.setattr("koinize.pipeline.project.refuse_unfit", lambda *_: None)
        self.small, self.patch = small, monkeypatch

    def project(self, count: int, memory: int | None, old: str = "", new: str = "") -> Project:
        self.patch.setattr(machine, "gpus", lambda: ("Some GPU",) * count)
        self.patch.setattr(machine, "gpu_memory", lambda: memory)
        text = SPEC.replace("epochs: 2", "epochs: 2, batch_size: 1000")
        assert old in text
        self.small.spec(text.replace(old, new))
        return self.small.real()

    def used(self, project: Project, count: int, memory: int) -> int | str:
        """What a worker with such a GPU trains with."""
        store, home = Store(self.small.root / ".koinize"), self.small.root / ".koinize"
        steps = [one for one in project.steps if one.kind == "train"][:count]
        jobs = [Job(one, project.spec, self.small.root, home, 1) for one in steps]
        wanted = [train._asked(job, store).training(job, store, home) for job in jobs]
        self.patch.setattr("koinize.model.loaded.gpu_bytes", lambda _: memory)
        device = SimpleNamespace(device=torch.device("cpu"))
        sized = train._sized(wanted, jobs[0], device)  # type: ignore[arg-type]
        assert [one.name for one in sized] == [one.name for one in steps]
        (tokens,) = {one.settings.batch_tokens for one in sized}
        return tokens


@pytest.fixture
def gpus(small: Small, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    return Gpus(small, monkeypatch)


def estimate(project: Project, tokens: int, adapters: int) -> int:
    decoder, spec = decoder_in(project.root / "base"), project.spec
    assert decoder is not None
    found = training_memory(
        decoder,
        spec.lora.of("en"),
        spec.training,
        dtype=spec.base.dtype,
        pass_tokens=tokens * adapters,
        target_tokens=tokens * adapters,
        adapters=adapters,
        on_cpu=False,
    )
    assert found is not None
    return found.total


@pytest.mark.parametrize(("adapters", "tokens"), [(1, 8192), (1, 2048), (2, 4096)])
def test_auto_is_planned_and_used_alike(
    gpus: Gpus, capsys: pytest.CaptureFixture[str], adapters: int, tokens: int
) -> None:
    together = ("machine: {", f"machine: {{together: {adapters}, ")
    memory = 1 + estimate(gpus.project(1, CARD, *together), tokens, adapters) * 10 // 9
    project = gpus.project(1, memory, *together)
    todo = project.plan()
    assert todo.passes == Passes(tokens, adapters, memory)
    assert todo.memory is not None
    assert todo.memory.memory.pass_tokens == tokens * adapters
    assert todo.memory.memory.total == estimate(project, tokens, adapters)
    show_plan(todo, project)
    assert str(todo.passes) in " ".join(capsys.readouterr().out.split())
    told = json.loads(json.dumps(plan_json(todo, project)))["passes"]
    assert told == {"tokens": tokens, "adapters": adapters, "gpu_bytes": memory}
    assert gpus.used(project, adapters, memory) == tokens


def test_nothing_is_chosen_for_a_cpu(gpus: Gpus) -> None:
    project = gpus.project(0, None)
    gpus.patch.setattr(machine, "gpu_memory", lambda: 1 / 0)  # nobody asks
    todo = project.plan()
    assert todo.passes is None
    assert todo.memory is not None
    assert todo.memory.memory.pass_tokens == 1024


def test_a_number_stays_one(gpus: Gpus) -> None:
    project = gpus.project(1, CARD, "epochs: 2", "epochs: 2, batch_tokens: 3000")
    todo = project.plan()
    assert todo.passes is None
    assert todo.memory is not None
    assert todo.memory.memory.pass_tokens == 3000
    assert gpus.used(project, 1, CARD) == 3000


def test_a_gpu_of_unknown_memory_leaves_nothing_to_say(gpus: Gpus) -> None:
    todo = gpus.project(1, None).plan()
    assert (todo.passes, todo.memory) == (None, None)


def test_what_nobody_reckoned_gets_no_more_than_on_a_cpu(gpus: Gpus) -> None:
    project = gpus.project(1, CARD, "training:", "lora: {dropout: 0.1}\ntraining:")
    todo = project.plan()
    assert (todo.passes, todo.memory) == (Passes(None, 1, CARD), None)
    assert gpus.used(project, 1, CARD) == 1024


def test_the_largest_adapter_of_a_project_decides_for_all(gpus: Gpus) -> None:
    lora = ("training:", "lora: {overrides: {de: {r: 4096}}}\ntraining:")
    memory = 1 + estimate(gpus.project(1, CARD, *lora), 8192, 1) * 10 // 9  # of the smaller one
    project = gpus.project(1, memory, *lora)
    todo = project.plan()
    assert todo.passes == Passes(1024, 1, memory)
    assert gpus.used(project, 1, memory) == 1024


def test_workers_share_a_gpu(gpus: Gpus) -> None:
    project = gpus.project(2, CARD)
    assert [workers_of_a_gpu(project.spec, count) for count in (1, 2, 3, 5)] == [1, 1, 2, 3]
    machine_of = project.spec.machine
    for share, expected in (("auto", 1), (0.0, 1), (2.0, 1), (0.5, 2), (0.3, 3)):
        own = machine_of.model_copy(update={"executor": "ray", "gpus": share})
        assert workers_of_a_gpu(project.spec.model_copy(update={"machine": own}), 8) == expected


def test_what_is_said_of_auto() -> None:
    assert str(Passes(8192, 1, 150_000_000_000)) == (
        "training.batch_tokens: auto is 8,192 here, which is reckoned to fit into 90 % of a "
        "worker's 150.0 GB of GPU memory"
    )
    assert str(Passes(1024, 5, 24_000_000_000)) == (
        "training.batch_tokens: auto is 1,024 here for each of 5 adapters that share a pass, since "
        "more is not reckoned to fit into 90 % of a worker's 24.0 GB of GPU memory"
    )
    assert str(Passes(None, 5, 1)) == (
        "training.batch_tokens: auto is 1,024 here, since how much memory such trainings take is "
        "not known"
    )

"""A training that is stopped or killed at any step goes on to the bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.digest import digest, file_digest
from koinize.settings import LoraSpec, TrainingSpec
from koinize.store import Store
from koinize.tasks import Example
from koinize.train import Saving, Training, TrainingReport, train, train_together
from koinize.train.learner import Learner
from tests.train.test_together import apart, loaded, several
from tests.train.test_together import rows as examples

NEVER, ALWAYS = 1e9, 0.0
STEP = "e" * 64
EARLY = TrainingSpec(epochs=6, batch_size=3, learning_rate=5e-2, patience=2)
"""Stops after a few epochs, as its dev rows say the opposite."""


def rows() -> list[Example]:
    return examples("ja", 7)


def dev() -> list[Example]:
    return [replace(row, target=" quiz") for row in examples("ja", 2)]


def saving(home: Path, every: float = NEVER, step: str = STEP) -> Saving:
    return Saving(Store(home).checkpoint(step, "train/mood/ja"), every)


@pytest.fixture(autouse=True)
def one_thread():
    """Of which sums have one order, and which survives a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Stop:
    """Sends this process a signal in the middle of a run: after so many steps."""

    def __init__(self, after: int, number: int = signal.SIGTERM) -> None:
        self.after, self.number = after, number
        self.seen: list[int] = []

    def __call__(self, done: int, _planned: int, _loss: float) -> None:
        self.seen.append(done)
        if len(self.seen) == self.after:
            os.kill(os.getpid(), self.number)


def fit(base, out: Path, lora: LoraSpec, training: TrainingSpec, **also) -> TrainingReport:
    return train(base, rows(), dev(), lora, training, out, **also)


def told(report: TrainingReport) -> TrainingReport:
    """What does not depend on how often it was stopped."""
    return replace(report, seconds=0, peak_bytes=0, steps_before=0, tokens_before=0)


@pytest.mark.parametrize(
    ("lora", "training"),
    [
        pytest.param(LoraSpec(r=2, alpha=4), EARLY, marks=pytest.mark.slow),
        (LoraSpec(r=2, alpha=4, dropout=0.3), EARLY),
        (
            LoraSpec(r=2, alpha=4, rslora=True),
            TrainingSpec(epochs=3, batch_size=3, schedule="cosine", weight_decay=0.1, average=0.6),
        ),
    ],
)
def test_stopped_after_any_step_it_goes_on_to_the_same_bytes(tmp_path, lora, training):
    base = loaded()
    whole = fit(base, tmp_path / "whole", lora, training)
    expected = file_digest(tmp_path / "whole" / "adapter_model.safetensors")
    for step in range(1, whole.steps, 2):
        home = tmp_path / f"home-{step}"
        with pytest.raises(KeyboardInterrupt):
            fit(base, tmp_path / "out", lora, training, progress=Stop(step), saving=saving(home))
        assert not (tmp_path / "out").exists()
        seen = Stop(0)
        out = tmp_path / f"out-{step}"
        report = fit(base, out, lora, training, progress=seen, saving=saving(home))
        assert seen.seen[0] == step + 1
        assert told(report) == told(whole)
        assert report.steps_before == step
        assert file_digest(out / "adapter_model.safetensors") == expected, step


@pytest.mark.slow
def test_stopped_again_and_again_and_within_a_pass_or_the_dev_loss(tmp_path, monkeypatch):
    """A signal at the n-th product with the output layer, of a step or of the dev loss."""
    base, lora = loaded(), LoraSpec(r=2, dropout=0.2)
    whole = fit(base, tmp_path / "whole", lora, EARLY)
    head, calls = type(base.head).__call__, [0]

    def counted(self, hidden):
        calls[0] += 1
        if calls[0] % 3 == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return head(self, hidden)

    monkeypatch.setattr(type(base.head), "__call__", counted)
    attempts = 0
    while True:
        attempts += 1
        try:
            report = fit(base, tmp_path / "out", lora, EARLY, saving=saving(tmp_path / "home"))
        except KeyboardInterrupt:
            continue
        break
    assert attempts > 3
    assert told(report) == told(whole)
    name = "adapter_model.safetensors"
    assert file_digest(tmp_path / "out" / name) == file_digest(tmp_path / "whole" / name)


def test_a_second_signal_does_not_disturb_the_saving(tmp_path, monkeypatch):
    """A group of processes is signalled, and its parent signals the worker again."""
    base, lora = loaded(), LoraSpec(r=2)
    fresh = torch.zeros_like

    def signalled(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return fresh(*arguments, **named)

    def stop(done: int, _planned: int, _loss: float) -> None:
        if done == 3:
            monkeypatch.setattr(torch, "zeros_like", signalled)  # called to say where it is
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fit(base, tmp_path / "out", lora, EARLY, progress=stop, saving=saving(tmp_path / "home"))
    reached = Store(tmp_path / "home").checkpoint(STEP).read()
    assert reached is not None
    assert reached["steps"] == 3


def killed_after(steps: int, base, out: Path, home: Path, every: float) -> None:
    """Train in a process that is killed, with no warning, after so many steps."""
    child = os.fork()
    if child == 0:
        try:
            stop = Stop(steps, signal.SIGKILL)
            fit(base, out, LoraSpec(r=2), EARLY, progress=stop, saving=saving(home, every))
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.slow
def test_killed_it_goes_on_from_what_was_saved_by_time(tmp_path):
    base, home = loaded(), tmp_path / "home"
    whole = fit(base, tmp_path / "whole", LoraSpec(r=2), EARLY)
    for steps in (1, 4, 3):  # of each attempt; the last of them was not saved yet
        killed_after(steps, base, tmp_path / "out", home, ALWAYS)
    reached = Store(home).checkpoint(STEP).recorded()
    assert reached is not None
    assert (reached["steps"], reached["planned"]) == (0 + 3 + 2, whole.losses and 18)
    assert reached["attempt"]["steps"] == 3
    report = fit(base, tmp_path / "out", LoraSpec(r=2), EARLY, saving=saving(home))
    assert told(report) == told(whole)
    name = "adapter_model.safetensors"
    assert file_digest(tmp_path / "out" / name) == file_digest(tmp_path / "whole" / name)


def test_what_is_not_due_is_not_saved(tmp_path):
    killed_after(4, loaded(), tmp_path / "out", tmp_path / "home", NEVER)
    assert Store(tmp_path / "home").checkpoints() == set()


def test_it_is_due_when_the_next_step_would_end_too_late(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("koinize.train.saving.time.monotonic", lambda: now[0])
    place = Store(tmp_path).checkpoint(STEP)
    asked = Saving(place, every=10.0, began=100.0)
    due = []
    for moment in (103.0, 106.0, 108.0, 109.0):  # steps of 3, 3, 2 and 1 seconds
        now[0] = moment
        due.append(asked.is_due())
    assert due == [False, False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["record", "tensors", "foreign", "other rows", "pickle"])
def test_a_checkpoint_that_is_broken_or_of_another_is_ignored_with_a_word(tmp_path, caplog, how):
    base, home, lora = loaded(), tmp_path / "home", LoraSpec(r=2)
    fit(base, tmp_path / "whole", lora, EARLY)
    with pytest.raises(KeyboardInterrupt):
        fit(base, tmp_path / "out", lora, EARLY, progress=Stop(4), saving=saving(home))
    folder = Store(home).checkpoint(STEP).folder
    [tensors] = folder.glob("*.safetensors")
    training, why = EARLY, "it is of another training"
    if how == "record":
        (folder / "state.json").write_text("{}")
        why = "its record cannot be read"
    elif how == "tensors":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
        why = "its tensors are missing or have changed"
    elif how == "foreign":  # with right digests: nothing but the shapes tells
        values = {name: one.repeat(2, 1) for name, one in load_file(tensors).items()}
        put(folder, lambda path: save_file(values, path))
    elif how == "pickle":
        put(folder, lambda path: path.write_bytes(b"\x80\x04K\x01."))
        why = "its tensors cannot be read"
    else:
        training = EARLY.model_copy(update={"epochs": 5})
        fit(base, tmp_path / "shorter", lora, training)
    seen = Stop(0)
    out = tmp_path / "again"
    fit(base, out, lora, training, progress=seen, saving=saving(home))
    assert seen.seen[0] == 1
    said = f"the checkpoint of train/mood/ja is ignored: {why}; it begins anew"
    assert [one.getMessage() for one in caplog.records] == [said]
    expected = tmp_path / ("shorter" if how == "other rows" else "whole")
    name = "adapter_model.safetensors"
    assert file_digest(out / name) == file_digest(expected / name)


def put(folder: Path, fill) -> None:
    """Put other tensors into a checkpoint, and their digest into its record."""
    record = json.loads((folder / "state.json").read_text())
    fill(folder / "new")
    identity = file_digest(folder / "new")
    size = (folder / "new").stat().st_size
    (folder / "new").rename(folder / f"{identity}.safetensors")
    record |= {"tensors": identity, "bytes": size}
    del record["digest"]
    (folder / "state.json").write_text(json.dumps({**record, "digest": digest(record)}))


def test_a_full_disk_costs_a_word_and_not_the_training(tmp_path, caplog, monkeypatch):
    base = loaded()
    full = OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise full

    monkeypatch.setattr("koinize.train.saving.save_file", refuse)
    keep = saving(tmp_path / "home", ALWAYS)
    report = fit(base, tmp_path / "out", LoraSpec(r=2), EARLY, saving=keep)
    assert report.steps > 0
    said = f"the checkpoint of train/mood/ja cannot be written: {full}"
    assert {one.getMessage() for one in caplog.records} == {said}


def mixed(folder: Path) -> list[Training]:
    """Adapters that differ in all that may differ, one of which is averaged."""

    def averaged(one: Training) -> Training:
        return replace(one, settings=one.settings.model_copy(update={"average": 0.6}))

    return [averaged(one) if one.name == "de" else one for one in several(folder)]


def group(folder: Path, home: Path, every: float = NEVER) -> list[Training]:
    return [replace(one, saving=saving(home, every, digest(one.name))) for one in mixed(folder)]


def all_steps(base, folder: Path) -> int:
    return sum(report.steps for report in train_together(base, mixed(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("accelerated", [False, True])
def test_adapters_that_are_stopped_together_go_on_together(tmp_path, monkeypatch, accelerated):
    """Each from where it was, also those whose steps had ended."""
    monkeypatch.setattr("koinize.train.together.on_accelerator", lambda _: accelerated)
    base = loaded()
    reports = train_together(base, mixed(tmp_path / "whole"))
    ends = len({one.steps for one in reports})
    assert ends > 2
    for moment in range(1, 12, 3):  # looks at the losses, each of one step or of many
        home = tmp_path / f"home-{moment}"
        with pytest.raises(KeyboardInterrupt):
            train_together(base, group(tmp_path / "stopped", home), Stop(moment))
        again = train_together(base, group(tmp_path / f"out-{moment}", home))
        for one, expected, report in zip(mixed(tmp_path / "whole"), reports, again, strict=True):
            assert told(report) == told(expected), (moment, one.name)
            assert report.steps_before > 0
            assert apart(one.out, tmp_path / f"out-{moment}" / one.name) == 0.0


@pytest.mark.slow
def test_what_was_stopped_together_goes_on_alone_and_the_other_way_round(tmp_path):
    base, home = loaded(), tmp_path / "home"
    with pytest.raises(KeyboardInterrupt):
        train_together(base, group(tmp_path / "stopped", home), Stop(5))
    for one in group(tmp_path / "alone", home):
        examples_ = one.train_examples, one.dev_examples
        report = train(base, *examples_, one.lora, one.settings, one.out, saving=one.saving)
        assert report.steps_before == min(5, report.steps)
        train(base, *examples_, one.lora, one.settings, tmp_path / "whole" / one.name)
        # Sums in another order for some of the steps: as in test_together.
        assert apart(one.out, tmp_path / "whole" / one.name) < 50 * 2**-23


@pytest.mark.slow
def test_a_finished_one_of_a_group_that_was_killed_is_not_trained_again(tmp_path, monkeypatch):
    base, home = loaded(), tmp_path / "home"
    with pytest.raises(KeyboardInterrupt):
        train_together(base, group(tmp_path / "stopped", home), Stop(9))
    begun: list[str] = []
    following = Learner.next_batch

    def counted(self: Learner):
        if not self.losses or self.steps >= len(self.losses):
            begun.append(self.training.name)
        return following(self)

    monkeypatch.setattr(Learner, "next_batch", counted)
    ended = [one for one in mixed(tmp_path) if (tmp_path / "stopped" / one.name).exists()]
    assert ended
    reached = {one.name: Store(home).checkpoint(digest(one.name)).recorded() for one in ended}
    reports = train_together(base, group(tmp_path / "out", home))
    for one, report in zip(mixed(tmp_path / "out"), reports, strict=True):
        if one.name in reached:
            assert reached[one.name]["steps"] == report.steps == report.steps_before
            assert apart(one.out, tmp_path / "stopped" / one.name) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("accelerated", [False, True])
def test_one_that_is_found_to_diverge_as_it_is_saved_ends_alone(tmp_path, monkeypatch, accelerated):
    """Its losses lie unread on an accelerator until somebody asks where it is."""
    monkeypatch.setattr("koinize.train.together.on_accelerator", lambda _: accelerated)
    base, trainings = loaded(), group(tmp_path / "out", tmp_path / "home", ALWAYS)
    for place, one in enumerate(trainings):  # in single rows, so that few steps end an epoch
        lora = LoraSpec(r=2, alpha=1e38) if one.name == "en" else one.lora
        single = one.settings.model_copy(update={"batch_size": 1})
        trainings[place] = replace(one, lora=lora, settings=single)
    reports = train_together(base, trainings)
    ended = {one.name: report for one, report in zip(trainings, reports, strict=True)}
    assert "gradient's norm" in str(ended.pop("en"))
    assert all(isinstance(report, TrainingReport) for report in ended.values())

"""A training by a program of the user's own: what it is given, and what it has to leave.

The program gets files and a folder, by their paths in its arguments and in its environment, and
leaves a PEFT folder. What it left is read as any adapter from elsewhere is, and has to be one of
this base and of the shape that koinize.yaml asks for.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koinize.adapter import ADAPTER_FILES, open_adapter, read_header
from koinize.adapter.config import CONFIG_FILE
from koinize.errors import InputError, KoinizeError, StepError
from koinize.files import LARGEST_TEXT, NotRegularError, open_regular, parse_json, read_bytes
from koinize.pipeline.process import NOT_STARTED, Ended, ended
from koinize.settings import LoraSpec, TrainerCommand, TrainingSpec
from koinize.spec import Spec
from koinize.store import Home, temporary_folder
from koinize.tasks import Example

SHOWN_LINES = 5
NOT_FOR_A_TRAINER = frozenset(
    {"trainer", "update", "trunk", "branch", "retries", "seeds", "load_in_4bit"}
)


@dataclass(frozen=True)
class Order:
    """One training for a program: `base` is the folder of the base model, `start` an adapter to
    train on from, None for a fresh one.
    """

    step: str
    base: Path
    rows: Iterable[Example]
    dev: Iterable[Example]
    lora: LoraSpec
    training: TrainingSpec
    start: Path | None
    threads: int


def require_program(spec: Spec, root: Path) -> None:
    """Raise InputError where the program that trains is not to be found."""
    trainer = spec.training.trainer
    if isinstance(trainer, TrainerCommand) and _program(trainer, root) is None:
        raise InputError(
            f"there is no program '{trainer.command[0]}'",
            where="training.trainer.command",
            expected="a program on PATH, or its path from the folder of koinize.yaml",
        )


def _program(trainer: TrainerCommand, root: Path) -> str | None:
    program = trainer.command[0]
    # Whole, since it is started in `root`, and a name without a slash is looked for on PATH alone.
    return shutil.which(str(root.absolute() / program) if os.sep in program else program)


def trained(order: Order, spec: Spec, root: Path, home: Path, out: Path) -> dict[str, Any]:
    """Have the program train, and take its adapter into the folder `out`; what is recorded of it.

    Raises StepError that says what the program did wrong, and where its output is.
    """
    trainer = order.training.trainer
    assert isinstance(trainer, TrainerCommand)  # noqa: S101
    log = Home(home).log(order.step)
    with temporary_folder(Home(home.absolute()).temporary) as scratch:
        places = _give(order, spec, trainer, scratch)
        arguments = [_filled(one, places) for one in trainer.command]
        arguments[0] = _program(trainer, root) or arguments[0]
        extra = {f"KOINIZE_{name.upper()}": place for name, place in places.items()}
        how = ended(arguments, root, extra, log, trainer.hours * 3600)
        _refuse_ending(how, order, trainer, log)
        try:
            _take(Path(places["out"]), out)
            _check(out, order, spec)
        except KoinizeError as error:
            said = str(error).replace(f"{out}/", "").replace(f"{out} ", "")
            what = f"the trainer left no adapter that can be used: {said}"
            raise _failed(order, log, what, how) from error
        _sign(out, spec)
    return {"tokens": 0, "trainer": trainer.version}


def _give(order: Order, spec: Spec, trainer: TrainerCommand, scratch: Path) -> dict[str, str]:
    """Write what the program reads; the place of each file and folder, empty for none."""
    out = scratch / "out"
    out.mkdir()
    places = {name: str(scratch / f"{name}.jsonl") for name in ("rows", "dev")}
    places |= {"settings": str(scratch / "settings.json"), "out": str(out)}
    places |= {"base": str(order.base), "start": str(order.start.absolute() if order.start else "")}
    for name, examples in (("rows", order.rows), ("dev", order.dev)):
        lines = (json.dumps(row_of(one, trainer.rows), ensure_ascii=False) for one in examples)
        Path(places[name]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = {
        **places,
        "base_model": spec.base.model,
        "dtype": spec.base.dtype,
        "lora": order.lora.model_dump(mode="json"),
        "training": {
            **order.training.model_dump(mode="json", exclude=set(NOT_FOR_A_TRAINER)),
            "batch_tokens": order.training.pass_tokens,
        },
        "threads": order.threads,
    }
    text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    Path(places["settings"]).write_text(text, encoding="utf-8")
    return places


def row_of(example: Example, form: str) -> Mapping[str, object]:
    """An example as trainers read it: messages, or a prompt and what follows it as it stands."""
    if form == "prompt-completion":
        return {"prompt": example.prompt, "completion": example.target}
    turns = example.turns or (("user", example.prompt),)
    said = [*turns, ("assistant", example.target.lstrip(" "))]
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def _filled(argument: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        argument = argument.replace(f"{{{name}}}", place)
    return argument


def _refuse_ending(how: Ended, order: Order, trainer: TrainerCommand, log: Path) -> None:
    if how.code is None:
        what = f"the trainer did not end within {trainer.hours:g} hours, and was stopped"
        raise _failed(order, log, what, how)
    if how.code == NOT_STARTED:
        raise _failed(order, log, "the trainer could not be started", how)
    if how.code > 128:
        raise _failed(order, log, f"the trainer was killed by signal {how.code - 128}", how)
    if how.code:
        raise _failed(order, log, f"the trainer ended with code {how.code}", how)


def _failed(order: Order, log: Path, what: str, how: Ended) -> StepError:
    lines = how.last_lines(SHOWN_LINES)
    said = f"; its last lines:\n{lines}\n" if lines else "; it printed nothing; "
    return StepError(f"{what}{said}all of its output is in {log}", where=order.step)


def _take(left: Path, out: Path) -> None:
    """Copy the two files of a PEFT folder, whatever else the program wrote."""
    for name in ADAPTER_FILES:
        try:
            source = open_regular(left / name)
        except FileNotFoundError:
            what = f"there is no {name} in its output folder"
            raise InputError(what, remedy="have it save the adapter with PEFT there") from None
        except NotRegularError as error:
            raise InputError(f"{name} cannot be read: {error.strerror}") from None
        with source, (out / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _check(out: Path, order: Order, spec: Spec) -> None:
    """Raise InputError for an adapter that is not as it was asked for."""
    header = read_header(out)
    known = {spec.base.model, str(order.base), str(order.base.resolve())}
    if header.base_model not in known:
        raise InputError(
            f"it is one of '{header.base_model}'", expected=f"one of '{spec.base.model}'"
        )
    lora = order.lora
    scale = lora.alpha / (lora.r**0.5 if lora.rslora else lora.r)
    for name, module in header.modules.items():
        if module.rank != lora.r or abs(module.scale - scale) > 1e-6 * scale:
            raise InputError(
                f"module '{name}' has rank {module.rank} and scale {module.scale:g}",
                expected=f"rank {lora.r} and scale {scale:g}, as lora in koinize.yaml says",
            )
    if order.start and read_header(order.start).modules.keys() != header.modules.keys():
        raise InputError("it has other modules than the adapter that it was to go on from")
    with open_adapter(header) as adapter:  # which refuses what is no number
        bounds = [adapter.factors(module).bound for module in header.modules]
        if not any(bounds):
            raise InputError("it changes nothing: every update is zero")


def _sign(out: Path, spec: Spec) -> None:
    """Name the base as the project does: the folder that the program was given means nothing."""
    path = out / CONFIG_FILE
    settings = parse_json(read_bytes(path, LARGEST_TEXT))
    settings |= {"base_model_name_or_path": spec.base.model, "revision": spec.base.revision}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

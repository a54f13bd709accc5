"""Whether a base model goes the whole way, found out before the first training of a plan.

What training puts in, merging reads and evaluating needs, the libraries are asked themselves, on a
model of the base's shapes without weights. `koinize.pipeline.chain` does it, a program of its own,
since it imports torch; what it found in order is not asked again.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from koinize import __version__
from koinize.adapter import files_digest
from koinize.digest import digest
from koinize.errors import InputError, KoinizeError, ManyErrors
from koinize.files import parse_json
from koinize.pipeline.generation import folder_of
from koinize.pipeline.step import Step
from koinize.spec import Spec
from koinize.store.record import read_record, write_record
from koinize.store.typed import typed

logger = logging.getLogger(__name__)

CHAIN = 1
"""Raised by whoever changes what is asked, or how training, merging and scoring read a base."""

LIBRARIES = ("torch", "transformers", "peft")
SECONDS = 300.0  # it takes some six, most of them to import PEFT
FOLDER = "dry-runs"


@dataclass(frozen=True)
class Merge:
    """One merge: its settings, and by language the keys of the adapters in it, and of the trunk."""

    title: str
    settings: dict[str, Any]
    adapters: dict[str, str]
    trunk: str = ""


@dataclass(frozen=True)
class Question:
    """What a project asks of its base model, `folder`.

    `trained` has the LoRA settings of adapters that koinize trains, `given` the folders of those
    from elsewhere, by the digests of their files; merges name both by their keys. `texts`: whether
    texts are written; `recomputed`: whether layers are run again while they are trained, `in_4bit`
    whether the base is in 4 bit then.
    """

    folder: str
    name: str
    dtype: str
    adapter_dtype: str
    texts: bool
    recomputed: bool = False
    in_4bit: bool = False
    trained: dict[str, dict[str, Any]] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)


class Fault(TypedDict):
    """What the program says of a mistake, the parts of an InputError."""

    what: str
    where: str
    expected: str
    remedy: str


def refuse_unfit(
    spec: Spec, steps: Sequence[Step], root: Path, home: Path, base: Path, cache: Path
) -> None:
    """Raise InputError or ManyErrors for what these steps could not do with the base in a folder.

    What was found in order is remembered in `cache`, under the digest of all that it depends on.
    """
    question = _question(spec, steps, root, home, base)
    asked = asdict(question) | {"folder": None, "given": sorted(question.given)}
    versions = {one: _version(one) for one in LIBRARIES}
    known = digest([CHAIN, __version__, versions, steps[0].inputs["base"], asked])
    memory = cache / FOLDER / f"{known}.json"
    if read_record(memory) is not None:
        return
    faults = _asked(question)
    if faults:
        errors = [InputError(**one) for one in faults]
        raise errors[0] if len(errors) == 1 else ManyErrors(errors)
    if faults is not None:
        with suppress(OSError):  # a full disk, or a folder that may only be read
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_record(memory, {"base": question.name, "versions": versions})


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _asked(question: Question) -> list[Fault] | None:
    """The mistakes that the program finds; None, and a word to the user, where it finds no end."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "koinize.pipeline.chain"],
            input=json.dumps(asdict(question)),
            capture_output=True,
            check=True,
            text=True,
            timeout=SECONDS,
        )
        return typed(list[Fault], parse_json(child.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, KoinizeError) as error:
        logger.warning(
            "whether training, merging and scoring go with this base could not be tried "
            "beforehand (%s): the first step that needs it will tell",
            type(error).__name__,
        )
        return None


def _question(spec: Spec, steps: Sequence[Step], root: Path, home: Path, base: Path) -> Question:
    trained: dict[str, dict[str, Any]] = {}
    given: dict[str, str] = {}
    keys = {"": ""}  # of the adapters that steps make, by the steps' ids
    for step in steps:
        if step.kind == "train":
            lora = spec.lora.of("" if step.address.role else step.language)
            settings = lora.model_copy(update={"seed": 0}).model_dump(mode="json")
            keys[step.id] = key = digest(settings)
            trained[key] = settings
        elif step.kind == "import":
            folder = folder_of(step, spec, root, home)
            keys[step.id] = key = files_digest(folder)
            given[key] = str(folder)
    merges = [
        Merge(
            title=step.merge.describe(),
            settings=step.merge.given(),
            adapters={language: keys[one] for language, one in step.uses.adapters.items()},
            trunk=keys[step.uses.trunk],
        )
        for step in steps
        if step.merge is not None and not step.stale  # what is kept is there
    ]
    merges += _explored(spec, steps, keys)
    return Question(
        folder=str(base),
        name=spec.base.model,
        dtype=spec.base.dtype,
        adapter_dtype=spec.training.adapter_dtype,
        texts=any(task.writes for task in spec.tasks.values()),
        recomputed=spec.machine.gradient_checkpointing and bool(trained),
        in_4bit=spec.training.load_in_4bit and bool(trained),
        trained=trained,
        given=given,
        merges=merges,
    )


def _explored(spec: Spec, steps: Sequence[Step], keys: Mapping[str, str]) -> Iterator[Merge]:
    """One merge by each recipe that a search may propose, of what the candidates are made of."""
    space = spec.merge.explore
    if space is None:
        return
    stated = {one.task: one for one in steps if one.merge and not (one.address.role or one.stale)}
    for step in stated.values():
        for recipe in space.recipe:
            yield Merge(
                title=f"{recipe} of merge.explore",
                settings=space.lowest(recipe, tuple(step.uses.adapters)).given(),
                adapters={language: keys[one] for language, one in step.uses.adapters.items()},
                trunk=keys[step.uses.trunk],
            )

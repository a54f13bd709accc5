"""A generation: a trunk that every language starts from, and the branches that left it.

The trunk is one training on all languages (or on a share of their rows, or an adapter from
elsewhere), and is frozen once it is made: what stands in its place is decided by what the store's
names say was made last. A language whose rows are no longer those of the trunk is a branch: trained
on from the trunk, on its own rows and on frozen rows of the others, the anchors (decision 011).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from typing_extensions import TypedDict

from koinize.adapter import files_digest, read_header
from koinize.digest import digest
from koinize.errors import InputError, KoinizeError
from koinize.files import parse_json, read_bytes
from koinize.ledger.address import TRUNK
from koinize.model.manner import ENCODING
from koinize.pipeline.lineage import History
from koinize.pipeline.step import Step
from koinize.pipeline.wording import all_reworded, is_reworded
from koinize.settings import LoraSpec, TrunkFrom
from koinize.spec import Spec
from koinize.store import Artifact, Home
from koinize.store.typed import Count, Identity, typed, typed_lines
from koinize.tasks import Example

ROWS = "train rows "
ANCHORS = "anchors.jsonl"
EVIDENCE = "evidence/evidence.json"
BASIS = ("base", ENCODING, "lora", "training", "share", "adapter files")
"""What a trunk is made of besides rows; where one of these changed, it is another trunk."""


@dataclass(frozen=True)
class Elsewhere:
    """A trunk that nobody trains here: the digest of its files, and of the rows that it is known to
    have seen, by label, with their number.
    """

    files: str
    rows: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """The steps of one task's generation. `trunk` and `anchors` are as they were made, or are to be
    made now; `branches` are today's, by language.
    """

    trunk: Step
    anchors: Step | None
    branches: Mapping[str, Step] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        """In an order in which each comes after its needs."""
        yield self.trunk
        if self.anchors:
            yield self.anchors
        yield from self.branches.values()


def require_own_trunk(spec: Spec, what: str) -> None:
    """Raise InputError where nothing is trained here that every language starts from."""
    trunk = spec.training.trunk
    if isinstance(trunk, TrunkFrom) or not spec.training.has_trunk:
        raise InputError(
            f"{what} begins with a trunk that is trained here, and training.trunk names "
            + ("one from elsewhere" if spec.training.has_trunk else "none"),
            expected="joint, or a share of the rows such as 0.2",
        )


def trunk_folder(trunk: object, task: str, root: Path, home: Path) -> Path:
    """Where a trunk from elsewhere lies. Raises InputError where there is none."""
    if not isinstance(trunk, TrunkFrom):
        raise TypeError(f"the trunk {trunk!r} is trained here")
    if trunk.adapter is not None:
        return root / trunk.adapter
    folder = Home(home).releases / task / str(trunk.release)
    if not folder.is_dir():
        raise InputError(
            f"task '{task}' has no release {trunk.release}",
            where="training.trunk.release",
            remedy="`koinize history` shows which there are",
        )
    return folder


def folder_of(step: Step, spec: Spec, root: Path, home: Path) -> Path:
    """Where the adapter that a step takes over lies: named in koinize.yaml, or a release here."""
    if step.address.role == TRUNK:
        return trunk_folder(spec.training.trunk, step.task, root, home)
    return root / spec.adapters[step.task][step.language]


def elsewhere(folder: Path, lora: LoraSpec) -> Elsewhere:
    """What is known of a trunk in this folder. Raises InputError for one of another shape than the
    project's branches would have.
    """
    header = read_header(folder)
    scale = lora.alpha / (math.sqrt(lora.r) if lora.rslora else lora.r)
    for name, module in header.modules.items():
        if module.rank != lora.r or not math.isclose(module.scale, scale, rel_tol=1e-6):
            raise InputError(
                f"module '{name}' of the trunk has rank {module.rank} and scale {module.scale:g}",
                where=str(folder),
                expected=f"rank {lora.r} and scale {scale:g} as in lora: branches have its shape",
                remedy=f"set lora to {{r: {module.rank}, alpha: {module.scale * module.rank:g}, "
                "rslora: false}, or choose another trunk",
            )
    evidence = folder / EVIDENCE
    data = _data(evidence) if evidence.is_file() else {}
    seen = {label: one for label, one in data.items() if label[: len(ROWS)] == ROWS}
    return Elsewhere(
        files_digest(folder),
        {label: one["digest"] for label, one in seen.items()},
        {label: one["rows"] for label, one in seen.items()},
    )


class _Rows(TypedDict):
    digest: Identity
    rows: Count


class _Evidence(TypedDict):
    data: dict[str, _Rows]


def _data(evidence: Path) -> dict[str, _Rows]:
    """What a release says of the data behind it. Raises InputError."""
    try:
        return typed(_Evidence, parse_json(read_bytes(evidence)))["data"]
    except (OSError, ValueError, KoinizeError) as error:
        what = "is not the evidence of a release"
        raise InputError(what, where=str(evidence), remedy="give another trunk") from error


def frozen_trunk(history: History, fresh: Step, *, anew: bool) -> Step:
    """The trunk that was made first and stays, or else the one that today's rows would make.

    `anew` asks for another one. So does whatever decides its shape: another base, another LoRA,
    other settings of training.
    """
    last = history.last(fresh)
    if last is None or anew:
        return replace(fresh, why="a new generation" if last else "")
    kept = history.made(fresh, last)
    if changed := [one for one in BASIS if kept.inputs.get(one) != fresh.inputs.get(one)]:
        return replace(fresh, why=f"a new generation: {' and '.join(changed)} changed")
    if kept.id != last.id:
        return replace(fresh, why="a new generation: koinize trains differently now")
    if is_reworded(fresh, last):
        return replace(fresh, why=f"a new generation: {all_reworded(fresh, last)} changed")
    if not history.there(kept) and kept.inputs != fresh.inputs:
        return replace(fresh, why="a new generation: the trunk is lost, and its rows changed since")
    languages = tuple(sorted(rows_of(kept.inputs)))
    return replace(kept, languages=languages or fresh.languages)


def frozen_anchors(history: History, fresh: Step) -> Step:
    """The anchors that were drawn for this trunk, or those that today's rows give."""
    last = history.last(fresh)
    if last is None or last.inputs.get("trunk") != fresh.uses.trunk:
        return fresh
    if last.inputs.get("anchors") != fresh.inputs["anchors"]:
        return replace(fresh, why="other anchors are asked for: drawn from the rows of today")
    labels = rows_of_labels(last.inputs)
    counts = last.facts.get("rows", {})
    kept = replace(
        fresh,
        inputs={**_without_rows(fresh.inputs), **labels},
        rows={label: counts[label] for label in labels if label in counts},
        languages=tuple(sorted(rows_of(last.inputs))),
    )
    if kept.id != last.id or not history.there(kept):
        return fresh
    return kept


def branched(trunk: Step, rows: Mapping[str, str]) -> tuple[str, ...]:
    """The languages whose rows are not those that the trunk was trained on; `rows` has digests.

    Of a trunk that saw a share, or was trained elsewhere, all of them.
    """
    known = {} if "share" in trunk.inputs else rows_of(trunk.inputs)
    return tuple(one for one in sorted(rows) if known.get(one) != rows[one])


def rows_of(inputs: Mapping[str, str]) -> dict[str, str]:
    """The digests of the training rows among a step's inputs, by language."""
    return {one[len(ROWS) :]: inputs[one] for one in inputs if one[: len(ROWS)] == ROWS}


def rows_of_labels(inputs: Mapping[str, str]) -> dict[str, str]:
    """The same under their labels."""
    return {f"{ROWS}{language}": one for language, one in rows_of(inputs).items()}


def _without_rows(inputs: Mapping[str, str]) -> dict[str, str]:
    return {label: one for label, one in inputs.items() if label not in rows_of_labels(inputs)}


def draw(examples: Iterable[Example], share: float, seed: int) -> list[Example]:
    """A share of a language's examples, at least one: by (seed, language, what they say) alone, so
    that an added row moves few of the others.
    """
    order = sorted(examples, key=lambda one: digest([seed, one.language, one.digest]))
    return order[: drawn_of(len(order), share)] if share else []


def drawn_of(count: int, share: float) -> int:
    """How many of so many rows a share is."""
    return max(1, round(share * count))


def write_anchors(folder: Path, anchors: Iterable[Example]) -> None:
    """The rows in full, since the files that they were drawn from will change."""
    lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in anchors)
    (folder / ANCHORS).write_text("".join(lines), encoding="utf-8")


def read_anchors(artifact: Artifact, without: str) -> list[Example]:
    """The anchors of all languages but one."""
    remedy = "remove the artifact, so that it is made again"
    rows = typed_lines(Example, artifact.path(ANCHORS), remedy=remedy)
    return [row for row in rows if row.language != without]

"""What lies in a finished project's `.koinize`, read with no line of koinize: names, manifests,
result rows, the lines of the ledger, releases. docs/ledger.md and docs/releases.md have the forms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

AROUND = {"provision": "start the workers", "load": "load the model", "gate": "judge releases"}
"""What is no step, and what its bar is called."""

COMBS = ("comb", "comb-continued")
SEARCH, REFERENCES = "search", "references"

Row = Mapping[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Step:
    """What one artifact is: the parts of its name, its manifest, and its rows. `role` is that of a
    choice, of a merge or a score that a search looked at, of what a judge read of dev, or `comb`;
    `metric` the one that asked for a judge; `tried` the number of a try, `seed` that of a further
    seed.
    """

    kind: str
    task: str
    system: str
    language: str
    split: str
    role: str
    metric: str
    tried: int
    seed: int
    id: str
    manifest: Mapping[str, Any]
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "rows.jsonl")

    @property
    def facts(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.manifest["facts"]
        return facts


def read_steps(home: Path) -> list[Step]:
    """What the names stand for, also those that nothing of today uses."""
    found = []
    for name, one in read_json(home / "names.json").items():
        folder = home / "artifacts" / one
        if (folder / "manifest.json").exists():
            manifest = read_json(folder / "manifest.json")
            found.append(Step(*parts_of(name), one, manifest, folder))
    return found


def parts_of(name: str) -> tuple[str, str, str, str, str, str, str, int, int]:
    """Kind, task, system, language, split, role, metric, number of the try and of the seed."""
    kind, task, *rest = [*name.split("/"), ""]
    rest = [one for one in rest if one]
    seed = tried = 0
    if rest and rest[0].startswith("seed "):
        seed = int(rest.pop(0).removeprefix("seed "))
    if kind in ("train", "trunk", "branch") and rest and rest[0].startswith("try "):
        tried = int(rest.pop(0).removeprefix("try "))
    match kind:
        case "train" | "branch" if rest and rest[0] in COMBS:
            return kind, task, "", "", "", rest[0], "", tried, seed
        case "train" | "branch":
            return kind, task, "", "".join(rest), "", "", "", tried, seed
        case "evaluate":
            return kind, task, rest[0], rest[1], rest[2], "".join(rest[3:]), "", 0, seed
        case "judge" if rest[-1] == REFERENCES:
            return kind, task, "", rest[0], rest[1], rest[3], rest[2], 0, seed
        case "judge":
            return kind, task, rest[0], rest[1], rest[2], "".join(rest[4:]), rest[3], 0, seed
        case "merge" | "search":
            return kind, task, rest[0], "", "", "".join(rest[1:]), "", 0, seed
    return kind, task, "", "", "", "/".join(rest), "", tried, seed


@dataclass(frozen=True)
class Piece:
    """One interval of the ledger; `begin` is in seconds since its run began, as is `at`, when its
    first line was written, which was at `utc` on the wall. `lost` is None but for an interrupted
    training that was saved.
    """

    name: str
    run: str
    step: str
    kind: str
    artifact: str
    status: str
    utc: datetime
    at: Fraction
    begin: Fraction
    seconds: Fraction
    share: Fraction
    price: Mapping[str, str]
    device: str
    energy: Mapping[str, str]
    tokens: int
    units: int
    error: str
    lost: Fraction | None
    group: str
    like: str

    @property
    def machine(self) -> Fraction:
        return self.seconds * self.share

    @property
    def end(self) -> Fraction:
        return self.begin + self.seconds

    @property
    def task(self) -> str:
        """Empty of what belongs to none."""
        return [*self.step.removeprefix("whatif/").split("/"), ""][1]

    @property
    def role(self) -> str:
        """Of a merge or a choice."""
        return parts_of(self.step)[5]

    @property
    def sort(self) -> tuple[str, str, str]:
        """Device, kind, and what it is like: the task or, of a merge, the recipe and where it
        merges; older lines do not say it.
        """
        like = self.like or self.task
        if self.kind == "merge" and not self.like:
            words = self.step.removeprefix("whatif/").split("/")[2].replace(",", "").split()
            where = [b for a, b in pairwise(words) if a in ("space", "dialect")]
            like = " ".join([words[0], *where])
        return self.device, self.kind, like


def read_pieces(home: Path) -> list[Piece]:
    """Every interval, in the order in which they were begun."""
    lines = read_lines(home / "ledger.jsonl")
    ends = {line["interval"]: line for line in lines if line["event"] == "end"}
    return [_piece(one, ends[one["interval"]]) for one in lines if one["event"] == "start"]


def _piece(start: Mapping[str, Any], end: Mapping[str, Any]) -> Piece:
    seconds = Fraction(end["seconds"])
    ended = end["at"]  # what nobody knows the end of has its seconds from its start on
    return Piece(
        name=start["interval"],
        run=start["run"],
        step=start["step"],
        kind=start["kind"],
        artifact=start["artifact"],
        status=end["status"],
        utc=datetime.fromisoformat(start["utc"]),
        at=Fraction(start["at"]),
        begin=Fraction(start["at"]) if ended is None else Fraction(ended) - seconds,
        seconds=seconds,
        share=Fraction(start["share"]),
        price=start["price"],
        device=start["device"],
        energy=end["energy"],
        tokens=end["tokens"],
        units=end["units"],
        error=end["error"],
        lost=Fraction(end["lost"]) if "lost" in end else None,
        group=start.get("group", ""),
        like=start.get("sort", ""),
    )


@dataclass(frozen=True)
class Release:
    """One release: its version, the channels that it was ever put on, and its rows on test."""

    version: int
    channels: list[str]
    created: str
    rows: Mapping[str, list[dict[str, Any]]]


def read_releases(home: Path, task: str) -> Iterator[Release]:
    """All releases of a task, by version."""
    folder = home / "releases" / task
    said = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    channels = {name: json.loads(text) for name, text in said.items() if name != "attempts"}
    for path in sorted(folder.glob("v*"), key=lambda one: int(one.name[1:])):
        record = read_json(path / "release.json")
        version = record["version"]
        yield Release(
            version,
            [
                name
                for name, one in sorted(channels.items())
                if any(event["version"] == version for event in one["events"])
            ],
            record["created"],
            {one.stem: read_lines(one) for one in (path / "evidence" / "rows").glob("*.jsonl")},
        )

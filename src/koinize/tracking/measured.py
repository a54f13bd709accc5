"""What a tracking server is sent: runs, scored systems and releases, as plain values with names.

A record is known by its `key`, and by the digest of what it says: who has both has it already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from koinize.digest import digest
from koinize.ledger import Interval, by_run, elapsed, idle
from koinize.ledger.interval import unix
from koinize.ledger.summary import Sum, kinds, sum_of
from koinize.pipeline import Project
from koinize.pipeline.report_input import gather
from koinize.pipeline.results import Results
from koinize.release import Release
from koinize.release.promotion import EVIDENCE
from koinize.report import results

OPEN = "open"
LONGEST = 6000  # characters of a parameter in MLflow


@dataclass(frozen=True)
class Record:
    """One thing with metrics. `began`, `ended`: seconds since 1970. folder: files that go with it.

    `params` say what it is and never change; `metrics` may, of a run that goes on.
    """

    key: str
    name: str
    began: Decimal
    ended: Decimal
    metrics: Mapping[str, float]
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def content(self) -> str:
        """The digest of what it says."""
        return digest([dict(self.metrics), dict(self.params), dict(self.tags)])


def runs(project: Project) -> Iterator[Record]:
    """Every run of the ledger: both clocks, money and energy, in all and by kind of work."""
    for name, work in by_run(project.intervals()).items():
        ended = [one for one in work if one.status != OPEN]
        if not ended:
            continue
        metrics = _spent(sum_of(ended, elapsed(ended)))
        metrics["idle_machine_seconds"] = float(idle(ended))
        for kind, one in kinds(ended).items():
            name_of_kind = kind.replace(",", "")  # MLflow takes no comma
            metrics |= {f"{key}/{name_of_kind}": value for key, value in _spent(one).items()}
        yield Record(
            key=f"run/{name}",
            name=f"run of {min(one.started for one in work):%Y-%m-%d %H:%M}",
            began=min(one.begin for one in ended),
            ended=max(one.end for one in ended),
            metrics=metrics,
            tags={"koinize.kind": "run"},
        )


def _spent(one: Sum) -> dict[str, float]:
    found = {
        "intervals": float(one.intervals),
        "wall_seconds": float(one.wall_seconds),
        "machine_seconds": float(one.machine_seconds),
        **{f"cost_{currency}": float(amount) for currency, amount in one.cost.items()},
    }
    return found if one.joules is None else {**found, "energy_joules": float(one.joules)}


def systems(project: Project) -> list[Record]:
    """Every system that was scored, with the scores of the report.

    The same system after an update is another record: its answers are others. Raises InputError
    while steps are missing.
    """
    found = results(gather(project))
    intervals = project.intervals()
    return [
        _system(project, task["name"], system, task["scores"], intervals)
        for task in found["tasks"]
        for system in task["systems"]
        if any(one["system"] == system["name"] for one in task["scores"])
    ]


def _system(
    project: Project,
    task: str,
    system: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    intervals: Sequence[Interval],
) -> Record:
    title = system["name"]
    own = [one for one in scores if one["system"] == title]
    steps = Results(project, task).evaluations
    ids = {step.id for (whose, _, _), step in steps.items() if whose.title == title}
    work = [one for one in intervals if one.artifact in ids]
    settings = {"kind": system["kind"], **system["settings"], "rank": system["rank"]}
    return Record(
        key=f"system/{digest([task, title, sorted(ids), sorted(_signatures(own))])}",
        name=f"{task}: {title}",
        began=min((one.begin for one in work), default=Decimal(0)),
        ended=max((one.end for one in work), default=Decimal(0)),
        metrics=_scores(own),
        params=_plain({key: one for key, one in settings.items() if one is not None}),
        tags={
            "koinize.kind": "system",
            "koinize.task": task,
            "koinize.system": title,
            "koinize.chosen": str(system["chosen"]).lower(),
        },
    )


def _signatures(scores: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(one["signature"]) for one in scores}


def _scores(scores: Iterable[Mapping[str, Any]], split: str = "test") -> dict[str, float]:
    """`test/accuracy/de` with its interval and its rows; `mean` is that over all languages."""
    found: dict[str, float] = {}
    for one in scores:
        name = f"{one.get('split', split)}/{one['metric']}/{one['language'] or 'mean'}"
        found |= {
            name: float(one["value"]),
            f"{name}_low": float(one["low"]),
            f"{name}_high": float(one["high"]),
            f"{name}_n": float(one["n"]),
        }
    return found


def release_record(release: Release) -> Record:
    """A release: its scores, what it cost, how it was made, and its files."""
    said, evidence = release.record, release.read_json(EVIDENCE)
    cost = evidence["cost"]
    when = unix(datetime.fromisoformat(said["created"]))
    return Record(
        key=f"release/{said['task']}/{said['identity']}",
        name=f"{said['task']}: release {release.name}",
        began=when,
        ended=when,
        metrics={
            **_scores(evidence["scores"]),
            "wall_seconds": float(cost.get("wall_seconds", 0)),
            "machine_seconds": float(cost.get("machine_seconds", 0)),
            **{f"cost_{name}": float(one) for name, one in cost.get("money", {}).items()},
        },
        params=_plain(
            {
                "base": said["settings"]["base"].get("model"),
                "system": said["system"],
                "languages": said["languages"],
                **{f"merge.{key}": one for key, one in said["settings"].get("merge", {}).items()},
            }
        ),
        tags={
            "koinize.kind": "release",
            "koinize.task": said["task"],
            "koinize.release": release.name,
            "koinize.version": said["koinize"],
        },
        folder=release.folder,
    )


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    """As text, lists and mappings as JSON, what is empty left out, what is too long cut."""
    return {
        key: (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False))[:LONGEST]
        for key, one in values.items()
        if one not in (None, {}, [])
    }

"""The account and the releases as a textfile for Prometheus' node exporter.

The format is Prometheus' text exposition format 0.0.4, which has no time stamps here: the node
exporter refuses a file that has some.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

from koinize.errors import InputError, KoinizeError
from koinize.ledger import Interval, joules, money, total
from koinize.ledger.summary import everything, plain
from koinize.pipeline import Project
from koinize.release import CHANNELS, Attempts, Releases
from koinize.release.promotion import EVIDENCE
from koinize.store import replaceable, write_atomically

SUFFIX, OPEN = ".prom", "open"
logger = logging.getLogger(__name__)
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric: its samples, by their labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: list[tuple[Labels, str]] = field(default_factory=list)

    def add(self, value: Decimal | float, **labels: str) -> None:
        """One more sample."""
        text = plain(value) if isinstance(value, Decimal) else repr(value)
        self.samples.append((labels, text))

    def lines(self) -> Iterator[str]:
        """What a file says of it: nothing where there is no sample."""
        if self.samples:
            yield f"# HELP {self.name} {self.help}"
            yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{{{pairs}}} {value}"


def write_textfile(project: Project, path: Path) -> int:
    """Write all metrics, whole or not at all, and return the number of samples.

    Raises InputError for a name that the node exporter would not read, and for a file that koinize
    did not write; KoinizeError for a broken ledger. A broken release is a sample, and a warning.
    """
    if path.suffix != SUFFIX:
        raise InputError(
            f"'{path}' is no name that the node exporter reads",
            expected=f"one that ends in {SUFFIX}",
        )
    name = project.spec.name
    metrics = [*_account(name, project.intervals()), *_releases(name, project)]
    first = metrics[0]
    replaceable(path, f"# HELP {first.name}", "textfile")
    write_atomically(path, "".join(f"{line}\n" for one in metrics for line in one.lines()))
    return sum(len(one.samples) for one in metrics)


def _account(project: str, intervals: Iterable[Interval]) -> list[Metric]:
    """What was spent. Work that is going on counts when it has ended: a counter never falls."""
    ended = [one for one in intervals if one.status != OPEN]
    wall = Metric("koinize_wall_seconds_total", "counter", "Time from each run's start to its end.")
    count = Metric("koinize_intervals_total", "counter", "Pieces of work that ended.")
    machine = Metric("koinize_machine_seconds_total", "counter", "Time of the machine in use.")
    cost = Metric("koinize_cost_total", "counter", "Machine time at its recorded price.")
    energy = Metric("koinize_energy_joules_total", "counter", "Energy, where a meter was read.")
    last = Metric("koinize_last_end_timestamp_seconds", "gauge", "When the last work ended.")
    wall.add(everything(ended).wall_seconds, project=project)
    groups: dict[tuple[str, str], list[Interval]] = {}
    for one in ended:
        groups.setdefault((one.kind, one.status), []).append(one)
    for (kind, status), work in sorted(groups.items()):
        labels = {"project": project, "kind": kind, "status": status}
        count.add(len(work), **labels)
        machine.add(total(work)[0], **labels)
        for currency, amount in money(work).items():
            cost.add(amount, **labels, currency=currency)
        if (read := joules(work)) is not None:
            energy.add(read, **labels)
    if ended:
        last.add(max(one.end for one in ended), project=project)
    return [wall, count, machine, cost, energy, last]


def _releases(name: str, project: Project) -> list[Metric]:
    """What each channel has in use, since when, how it scored, and how many attempts there were."""
    version = Metric("koinize_release_version", "gauge", "The release that a channel has in use.")
    whole = Metric("koinize_release_whole", "gauge", "1 if it is as released, 0 if it is broken.")
    since = Metric("koinize_release_timestamp_seconds", "gauge", "Since when it is in use.")
    value = Metric("koinize_release_score", "gauge", "Points on test, 0 to 100, when released.")
    low = Metric("koinize_release_score_low", "gauge", "Where the 95 % interval begins.")
    high = Metric("koinize_release_score_high", "gauge", "Where the 95 % interval ends.")
    rows = Metric("koinize_release_rows", "gauge", "Test rows behind the score.")
    tries = Metric("koinize_gate_attempts_total", "counter", "Candidates against a release in use.")
    for task in sorted(project.spec.tasks):
        releases = Releases(project.home, task)
        for channel in CHANNELS:
            labels = {"project": name, "task": task, "channel": channel}
            pointer = releases.channel(channel)
            if pointer.current is None or pointer.latest is None:
                continue
            version.add(pointer.current, **labels)
            since.add(
                Decimal(int(datetime.fromisoformat(pointer.latest.utc).timestamp())), **labels
            )
            try:
                scores = releases.open(pointer.current).read_json(EVIDENCE)["scores"]
            except KoinizeError as error:  # now above all a monitor has to hear of all the rest
                logger.warning("%s", error)
                scores = []
                whole.add(0, **labels)
            else:
                whole.add(1, **labels)
            for one in scores:
                found = {**labels, "language": one["language"], "metric": one["metric"]}
                for metric, key in ((value, "value"), (low, "low"), (high, "high"), (rows, "n")):
                    metric.add(one[key], **found)
        verdicts: dict[tuple[str, bool], int] = {}
        for attempt in Attempts(project.home, task).all():
            ended = attempt.channel, attempt.passed
            verdicts[ended] = verdicts.get(ended, 0) + 1
        for (channel, passed), count in sorted(verdicts.items()):
            verdict = "passed" if passed else "refused"
            tries.add(count, project=name, task=task, channel=channel, verdict=verdict)
    return [version, whole, since, value, low, high, rows, tries]


def _escaped(text: str) -> str:
    """A label's value as the format wants it."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

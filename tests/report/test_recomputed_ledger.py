"""The sums of a ledger against an oracle that reads its lines: shared seconds, energy, and a clock
on the wall that stands still.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from koinize.cli import application
from koinize.ledger.energy import Counter, Meter
from tests.oracle.ledger import as_numbers, contradictions, shown
from tests.oracle.project import read_pieces
from tests.oracle.report import differences, disagreements
from tests.report.test_recomputed import edit

RISE, PERIOD = 1_234_567, 10_000_019  # microjoules with every reading, and before the counter wraps


class Still(datetime):
    """A clock that is set back all the time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Still:
        return cls(2026, 1, 1, tzinfo=tz)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What the meter of every run counted up to each reading, in microjoules."""
    every = list[list[int]]()

    @contextmanager
    def metering() -> Iterator[Meter]:
        counted = [0]
        every.append(counted)

        def read() -> int:
            counted.append(counted[-1] + RISE)
            return counted[-1] % PERIOD

        yield Meter([Counter(read, 1_000_000, PERIOD)], "a meter of a test")

    monkeypatch.setattr("koinize.pipeline.run.metering", metering)
    return every


def koinize(*arguments: str) -> str:
    """What the command prints, in this process."""
    done = CliRunner().invoke(application(), arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def said_by(*arguments: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(koinize(*arguments, "--json"))
    return said


@pytest.mark.slow
def test_shared_seconds_and_energy_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readings: list[list[int]]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("koinize.ledger.chain.datetime", Still)
    koinize("init", "--example", "tiny", "project")
    root = tmp_path / "project"
    monkeypatch.chdir(root)
    spec = (root / "koinize.yaml").read_text().replace("epochs: 4", "epochs: 2")
    together = "baselines: [indv, comb]\nmachine: {executor: inline, together: 5}\n"
    (root / "koinize.yaml").write_text(spec + together)
    koinize("run")
    edit(root, "ja")
    edit(root, "de")
    koinize("run")
    home = root / ".koinize"
    pieces = read_pieces(home)
    assert {one.utc for one in pieces} == {datetime(2026, 1, 1, tzinfo=UTC)}
    assert {"train", "evaluate"} <= {one.kind for one in pieces if one.group}
    assert contradictions(home) == []
    said = said_by("report")
    assert disagreements(home, said) == []
    spent = said_by("ledger", "show")
    assert differences(as_numbers(spent), shown(home)) == []
    # A run's intervals add up to what its meter counted from its beginning, each to a millijoule.
    counted = [one[-1] - one[1] for one in readings]
    assert len(counted) == len(spent["runs"]) == 2
    for microjoules, run in zip(counted, spent["runs"], strict=True):
        rounded = run["intervals"] * 0.0005
        assert float(run["joules"]) == pytest.approx(microjoules / 1e6, abs=rounded)
    assert min(float(one.energy["joules"]) for one in pieces) >= 0
    energy = said["costs"]["energy"]
    assert energy["joules"] == pytest.approx(float(spent["total"]["joules"]))
    assert (energy["sources"], energy["machine_time_percent"]) == (["a meter of a test"], 100)

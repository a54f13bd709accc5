"""How scores moved from release to release: docs/report.md, once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from tests.oracle.project import Release, Row, read_releases
from tests.oracle.verdicts import JUDGED, SEED, Measure, ends, sample, scored

Judges = AbstractSet[tuple[str, str]]


def releases(
    home: Path, task: str, measure: Measure, writes: bool, judges: Judges
) -> dict[str, Any] | None:
    """A task's releases on its first metric, as far as its judges of today read their answers."""
    made = [one for one in read_releases(home, task) if _is_judged(one, measure, judges)]
    if not made:
        return None
    languages = sorted({language for one in made for language in one.rows})
    truth = "reference" if writes else "gold"
    return {
        "task": task,
        "metric": measure.name,
        "releases": [
            {"version": one.version, "channels": one.channels, "created": one.created}
            for one in made
        ],
        "scores": [row for one in languages for row in _scores(measure, one, made, truth)],
    }


def _is_judged(release: Release, measure: Measure, judges: Judges) -> bool:
    rows = [(language, row) for language, some in release.rows.items() for row in some]
    said = [(language, row.get(measure.name, {}).get("judge")) for language, row in rows]
    return measure.name not in JUDGED or judges.issuperset(said)


def _scores(
    measure: Measure, language: str, made: Sequence[Release], truth: str
) -> Iterator[dict[str, Any]]:
    serving = [one for one in made if language in one.rows]
    for place, one in enumerate(serving):
        rows = one.rows[language]
        yield {
            "language": language,
            "version": one.version,
            **scored(measure, rows),
            "drift": _since(measure, rows, serving[0].rows[language], truth) if place else None,
        }


def _since(
    measure: Measure, now: Sequence[Row], then: Sequence[Row], truth: str
) -> dict[str, Any] | None:
    """Row by row, of those that both answered with the same truth; with the guard of verdicts."""
    first = {one["key"]: one for one in then}
    ours = [one for one in now if first.get(one["key"], {}).get(truth) == one[truth]]
    if not ours:
        return None
    found = sample(measure, [(ours, [first[one["key"]] for one in ours])], SEED, 2_000)
    low, high = ends(found.resampled)
    return {"difference": found.observed, "low": low, "high": high, "n": found.n}

"""`koinize export prometheus`: the file is what the format allows, and says what was spent."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest

from koinize.ledger import Ledger
from koinize.release import promote, rollback
from koinize.release.promotion import EVIDENCE
from tests.cli.conftest import Call
from tests.pipeline.conftest import Small
from tests.release.releasing import finish, releases, retrain

PRICE = {"per_hour": "3.6", "currency": "EUR", "source": "a bill", "date": "2026-01-31"}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (-?[0-9.]+(?:e[+-]?[0-9]+)?)")
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], Decimal]:
    """The samples of the text format 0.0.4, each metric's lines together after HELP and TYPE."""
    assert text.endswith("\n")
    found, seen, current = {}, [], ""
    for line in text.splitlines():
        if comment := re.fullmatch(rf"# (HELP|TYPE) ({NAME}) (.+)", line):
            if comment[1] == "HELP":
                assert comment[2] not in seen
                seen.append(current := comment[2])
            else:
                assert (comment[2], comment[3] in ("counter", "gauge")) == (current, True)
                assert current.endswith("_total") == (comment[3] == "counter")
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == current, line
        labels = frozenset(
            (name, re.sub(r"\\.", lambda one: UNESCAPED[one[0]], value))
            for name, value in re.findall(LABEL, sample[2])
        )
        assert (current, labels) not in found, line
        found[current, labels] = Decimal(sample[7])
    if find_spec("prometheus_client"):
        assert by_prometheus(text) == {key: float(value) for key, value in found.items()}
    return found


def by_prometheus(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The same, as Prometheus' own client reads it."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(path: str = "k.prom") -> dict[tuple[str, frozenset[tuple[str, str]]], Decimal]:
    return parsed(Path(path).read_text(encoding="utf-8"))


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"koinize_{name}", frozenset({"project": "small", **labels}.items())


@pytest.fixture
def spent(small: Small) -> Small:
    """10 s: 4 of a training on half of the machine, 3 of one that failed, 1 that goes on."""
    ledger = Ledger(small.root / ".koinize" / "ledger.jsonl")
    what = {"run": "r", "device": "d", "price": PRICE, "kind": "train", "share": "0.5"}
    energy = {"joules": "7200.000", "source": "a meter"}
    step = "train/mood/de"
    for name, at, end in (
        ("a", 100, {"seconds": Decimal(4), "status": "done", "energy": energy}),
        ("b", 107, {"seconds": Decimal(3), "status": "failed", "error": "no"}),
        ("c", 111, {}),
    ):
        ledger.start(name, **what, step=step, artifact=name, at=Decimal(at))
        if end:
            ledger.end(name, **end, at=Decimal(at) + end["seconds"])
    return small


def test_what_was_spent(koinize: Call, spent: Small) -> None:
    code, out, err = koinize("export", "prometheus", "k.prom", "small")
    found = read()
    assert (code, out, err) == (0, f"wrote {len(found)} samples to k.prom\n", "")
    begun = Ledger(spent.root / ".koinize" / "ledger.jsonl").intervals()[0].begin
    done, failed = ({"kind": "train", "status": one} for one in ("done", "failed"))
    assert found == {
        of("wall_seconds_total"): 10,
        of("intervals_total", **done): 1,
        of("intervals_total", **failed): 1,
        of("machine_seconds_total", **done): 2,
        of("machine_seconds_total", **failed): Decimal("1.5"),
        of("cost_total", **done, currency="EUR"): Decimal("0.002"),
        of("cost_total", **failed, currency="EUR"): Decimal("0.0015"),
        of("energy_joules_total", **done): 7200,
        of("last_end_timestamp_seconds"): begun + 10,
    }


@pytest.mark.slow
def test_releases_follow_their_channels(
    koinize: Call, small: Small, caplog: pytest.LogCaptureFixture
) -> None:
    project = finish(small, {"de": 4})
    promote(project, "mood", "production")
    retrain(small, "de", 6)
    promote(finish(small), "mood", "production")
    assert koinize("export", "prometheus", "k.prom", "small")[0] == 0
    found, where = read(), {"task": "mood", "channel": "production"}
    german = {**where, "language": "de", "metric": "accuracy"}
    assert found[of("release_version", **where)] == 2
    assert found[of("release_score", **german)] == found[of("release_score_low", **german)] == 100
    assert found[of("release_rows", **german)] == 400
    assert found[of("gate_attempts_total", **where, verdict="passed")] == 1
    rollback(project, "mood", "production")
    assert koinize("export", "prometheus", "k.prom", "small")[0] == 0
    found = read()
    assert found[of("release_version", **where)] == 1
    assert found[of("release_score", **german)] == 99  # 396 of 400
    low, high = (found[of(f"release_score_{end}", **german)] for end in ("low", "high"))
    assert low < 99 < high
    event = releases(small).channel("production").events[-1]
    since = int(found[of("release_timestamp_seconds", **where)])
    assert datetime.fromtimestamp(since, UTC).isoformat() == event.utc
    assert not [labels for name, labels in found if ("channel", "staging") in labels]
    # Of a release that broke all is told but its scores.
    assert found[of("release_whole", **where)] == 1
    (releases(small).open(1).folder / EVIDENCE).write_text("{}")
    assert koinize("export", "prometheus", "k.prom", "small")[0] == 0
    assert f"its file {EVIDENCE} is missing or has changed" in caplog.text
    broken = read()
    assert broken[of("release_whole", **where)] == 0
    assert broken[of("release_version", **where)] == 1
    assert not [name for name, _ in broken if name.startswith("koinize_release_score")]


def test_what_a_ledger_may_hold_is_escaped(koinize: Call, small: Small) -> None:
    ledger, odd = Ledger(small.root / ".koinize" / "ledger.jsonl"), 'a "b" \\c\nd'
    what = {"run": "r", "device": "d", "price": {}, "share": "1", "artifact": "a"}
    ledger.start("a", **what, kind=odd, step="x", at=Decimal(0))
    ledger.end("a", seconds=Decimal(1), status="done", at=Decimal(1))
    assert koinize("export", "prometheus", "k.prom", "small")[0] == 0
    assert read()[of("machine_seconds_total", kind=odd, status="done")] == 1


def test_its_own_file_is_replaced_and_no_other(koinize: Call, spent: Small) -> None:
    for _ in range(2):
        assert koinize("export", "prometheus", "k.prom", "small")[0] == 0
    Path("mine.prom").write_text("up 1\n")
    assert koinize("export", "prometheus", "mine.prom", "small") == (
        2,
        "",
        "koinize: mine.prom is there already, and is no textfile that koinize wrote; remove it or "
        "choose another name\n",
    )
    assert koinize("export", "prometheus", "k.txt", "small") == (
        2,
        "",
        "koinize: 'k.txt' is no name that the node exporter reads; expected one that ends in "
        ".prom\n",
    )


def test_of_a_project_that_never_ran(koinize: Call, small: Small) -> None:
    assert koinize("export", "prometheus", "k.prom", "small")[0] == 0
    assert read() == {of("wall_seconds_total"): 0}

"""What `koinize promote --no-score` decides, once more, from result rows, releases and the ledger:
docs/releases.md and docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.oracle.account import Account, busy, machine
from tests.oracle.project import (
    Row,
    Step,
    read_json,
    read_lines,
    read_pieces,
    read_releases,
    read_steps,
)
from tests.oracle.quality import Quality
from tests.oracle.task_costs import TaskCosts
from tests.oracle.verdicts import TAIL, Measure, all_languages, holm, judged

Figures = dict[str, Any]
Sides = Mapping[str, Sequence[Row]]
POWER = 0.8


@dataclass
class Promotion:
    """One look of the gate at a candidate: `ours` are its answers by language, and the release
    `incumbent` was in use. `margins` are of all metrics, `gated` those that decide.
    """

    home: Path
    task: str
    measures: Sequence[Measure]
    margins: Mapping[str, float]
    gated: Sequence[str]
    ours: Sides
    incumbent: int
    writes: bool
    steps: Sequence[Step]
    choice: Step

    def results(self) -> Figures:
        """As `--json` has them, without words, and what does not depend on answers."""
        verdicts = list(self._verdicts())
        decide = {f"{v['language']} {v['metric']}": v for v in verdicts if v["gated"]}
        joint = all_languages(decide)
        del joint["better"]
        drift = self._drift()
        unmatched = [one for one, pairs in self._pairs.items() if not pairs]
        shown = all(one["verdict"] in ("better", "not worse") for one in decide.values())
        return {
            "passes": bool(decide) and shown and not unmatched and not (drift and drift["lost"]),
            "incumbent": self.incumbent,
            "trial": {
                "number": self.number,
                "level": self.level,
                "next_level": level_of(self.number + 1),
            },
            "joint": joint,
            "verdicts": verdicts,
            "means": list(self._means()),
            "drift": drift,
            "rows": {one: self._counts(one) for one in self._pairs},
            "lost": [lost for one in verdicts for lost in self._worst(one)],
        }

    def cost(self) -> Figures:
        """What the candidate took: all work on what it stands on, with choosing."""
        return cost(self.home, self.steps, self.choice)

    # the test

    @cached_property
    def number(self) -> int:
        """Which attempt to replace this adapter it is, the last one that the ledger tells of."""
        reference = read_json(self._folder(self.incumbent) / "release.json")["adapter"]
        told = [one.get("attempt", {}) for one in read_lines(self.home / "ledger.jsonl")]
        tried = [one["attempt"] for one in told if one and one["task"] == self.task]
        against = [one["identity"] for one in tried if one["reference"] == reference]
        return len(dict.fromkeys(against))

    @property
    def level(self) -> float:
        return level_of(self.number)

    def _folder(self, version: int) -> Path:
        return self.home / "releases" / self.task / f"v{version}"

    def _answers(self, version: int) -> Sides:
        found = {one.version: one.rows for one in read_releases(self.home, self.task)}
        return found[version]

    # pairs

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[Row, Row]]]:
        return self._paired(self._answers(self.incumbent))

    def _paired(self, theirs: Sides) -> dict[str, list[tuple[Row, Row]]]:
        """Of the languages of both, the rows that both answered with one truth."""
        truth = "reference" if self.writes else "gold"
        found = {}
        for one in (one for one in self.ours if one in theirs):
            old = {row["key"]: row for row in theirs[one]}
            rows = [(row, old[row["key"]]) for row in self.ours[one] if row["key"] in old]
            found[one] = [(new, before) for new, before in rows if new[truth] == before[truth]]
        return found

    def _counts(self, language: str) -> dict[str, int]:
        new, old = (
            {row["key"] for row in rows}
            for rows in (self.ours[language], self._answers(self.incumbent)[language])
        )
        common = len(self._pairs[language])
        both = len(new & old)
        gone = len(old - new)
        return {"common": common, "new": len(new - old), "gone": gone, "changed": both - common}

    # verdicts

    def _verdict(
        self, measure: Measure, pairs: Mapping[str, list[tuple[Row, Row]]], level: float, **how: Any
    ) -> Figures:
        sides = {one: [tuple(zip(*rows, strict=True))] for one, rows in pairs.items()}
        found = judged(measure, sides, self.margins[measure.name], level=level, **how)
        del found["by_seed"]
        return found

    def _verdicts(self) -> Iterator[Figures]:
        """Of every language and metric; rows are planned for the next attempt, so that all that
        decide do so together.
        """
        known = {one: pairs for one, pairs in self._pairs.items() if pairs}
        power = POWER ** (1 / (len(known) * len(self.gated)))
        next_one = level_of(self.number + 1)
        for language, pairs in known.items():
            for one in self.measures:
                where = {"language": language, "metric": one.name, "gated": one.name in self.gated}
                how = {"planned": (next_one, power)}
                yield {**where, **self._verdict(one, {language: pairs}, self.level, **how)}

    def _means(self) -> Iterator[Figures]:
        known = {one: pairs for one, pairs in self._pairs.items() if pairs}
        for one in (one for one in self.measures if one.name in self.gated and len(known) > 1):
            where = {"language": "mean", "metric": one.name, "gated": False}
            yield {**where, **self._verdict(one, known, self.level)}

    def _drift(self) -> Figures | None:
        """From the first release of the channel, where another one is in use."""
        events = read_json(self.home / "releases" / self.task / "production.json")["events"]
        anchor = next(one["version"] for one in events if one["action"] == "promote")
        if anchor == self.incumbent:
            return None
        pairs = self._paired(self._answers(anchor))
        rows, back = [], dict[str, float]()
        for language, some in pairs.items():
            for one in (one for one in self.measures if one.name in self.gated):
                where = {"language": language, "metric": one.name, "gated": True}
                rows.append({**where, **self._verdict(one, {language: some}, TAIL)})
                turned = [(old, new) for new, old in some]
                behind = self._verdict(one, {language: turned}, TAIL)
                back[f"{language} {one.name}"] = behind["p_better"]
        certain = {name for name, p in holm(back).items() if p < TAIL}
        lost = [
            row["language"]
            for row in rows
            if row["verdict"] in ("worse", "inconclusive")
            and f"{row['language']} {row['metric']}" in certain
        ]
        return {"anchor": anchor, "verdicts": rows, "lost": list(dict.fromkeys(lost))}

    def _worst(self, verdict: Mapping[str, Any]) -> list[Figures]:
        """The three rows, in the order of their keys, that cost the most; of what passes none."""
        if not verdict["gated"] or verdict["verdict"] in ("better", "not worse"):
            return []
        (measure,) = (one for one in self.measures if one.name == verdict["metric"])
        language = verdict["language"]
        found = []
        for new, old in sorted(self._pairs[language], key=lambda pair: pair[0]["key"]):
            ours, theirs = (measure.points(measure.vectors([row])[0]) for row in (new, old))
            if ours < theirs:
                lost = {"language": language, "metric": measure.name, "key": new["key"]}
                found.append({**lost, "loss": float(theirs - ours)})
        return sorted(found, key=lambda one: -one["loss"])[:3]


def promotion(home: Path, report: Mapping[str, Any], task: str, incumbent: int) -> Promotion:
    """Of what the report would release, in whose JSON what was asked for is read."""
    account = Account(home, report)
    said = next(one for one in report["tasks"] if one["name"] == task)
    quality, spec = Quality(TaskCosts(account, said), said), report["spec"]
    stated = {**spec["margins"], **spec["tasks"][task]["margins"]}
    return Promotion(
        home=home,
        task=task,
        measures=quality.measures,
        margins=said["margins"],
        gated=[one for one in said["metrics"] if one in stated] or said["metrics"][:1],
        ours=quality.side(quality.chosen, "test"),
        incumbent=incumbent,
        writes=not said["labels"],
        steps=list(quality.steps[quality.chosen, "test"].values()),
        choice=quality.costs.of("select", role="")[0],
    )


def cost(home: Path, tests: Iterable[Step], choice: Step) -> Figures:
    """What a release with these answers on test took: all work on what it stands on, with choosing
    among what is still called something.
    """
    steps = read_steps(home)
    named = {one.id for one in steps}
    base = next((one for one in steps if one.kind == "base"), None)
    left = [one.id for one in (*tests, choice, base) if one]
    behind = set[str]()
    while left:
        one = left.pop()
        inputs = read_json(home / "artifacts" / one / "manifest.json")["inputs"]
        new = {of for name, of in inputs.items() if of in named or name == "parent"} - behind
        behind.add(one)
        left += new
    pieces = read_pieces(home)
    if pieces[-1].kind == "gate":  # this look itself, which goes on while the evidence is written
        pieces.pop()
    spent = [one for one in pieces if one.artifact in behind]
    money = sum(
        (one.machine * Fraction(one.price["per_hour"]) / 3600 for one in spent), Fraction(0)
    )
    return {
        "wall_seconds": busy(spent),
        "machine_seconds": machine(spent),
        "money": money,
        "intervals": len(spent),
    }


def level_of(attempt: int) -> float:
    """5 % are divided among all attempts, however many: 1/2, 1/6, 1/12 of it, and so on."""
    return 0.05 / (attempt * (attempt + 1))

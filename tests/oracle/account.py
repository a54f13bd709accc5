"""Sums over the lines of a ledger: both clocks, and money, in fractions. A sum of which a part is
not known is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.oracle.project import (
    AROUND,
    REFERENCES,
    Piece,
    Step,
    parts_of,
    read_json,
    read_lines,
    read_pieces,
    read_steps,
)

Work = Sequence[Piece | None]
Figures = dict[str, Any]
SCORED = ("merge", "evaluate", "judge")
CLOCKS = {"elapsed": "elapsed_seconds", "machine": "machine_seconds", "cost": "cost"}


def busy(pieces: Iterable[Piece]) -> Fraction:
    """Seconds during which at least one of them ran; runs do not overlap."""
    seconds, until = Fraction(0), dict[str, Fraction]()
    for one in sorted((p for p in pieces if p.kind != "idle"), key=lambda one: one.begin):
        reached = until.get(one.run, one.begin)
        seconds += max(Fraction(0), one.end - max(one.begin, reached))
        until[one.run] = max(one.end, reached)
    return seconds


def machine(pieces: Iterable[Piece]) -> Fraction:
    return sum((one.machine for one in pieces), Fraction(0))


def span(run: Sequence[Piece]) -> Fraction:
    """From the first start to the last end."""
    return max(one.end for one in run) - min(one.begin for one in run)


def less(new: Fraction | None, old: Fraction | None) -> Fraction | None:
    """In percent; of nothing nothing can be saved."""
    return 100 * (1 - new / old) if new is not None and old else None


def less_in_all(new: Figures | None, old: Figures | None) -> Figures:
    """On both clocks and in money."""
    return {one: less(new and new[key], old and old[key]) for one, key in CLOCKS.items()}


@dataclass
class Account:
    """A project's ledger. `said` is the report: only what was asked for is read in it."""

    home: Path
    said: Mapping[str, Any]

    @cached_property
    def steps(self) -> list[Step]:
        """Those of the seed that is released."""
        return [one for one in self._steps if not one.seed]

    @cached_property
    def further(self) -> list[Step]:
        """Those of further seeds, without merges of adapters that no longer stand: what is kept
        from a choice is not repeated.
        """
        ids = {one.id for one in self._steps}
        return [one for one in self._steps if one.seed and self._merged(one.manifest) <= ids]

    def _merged(self, made: Mapping[str, Any]) -> set[str]:
        """The adapters that are merged in this, in what it scores, or what it decides between."""
        inputs = made["inputs"]
        looked = [inputs[name] for name in inputs if name == "adapter" or "|" in name]
        paths = [self.home / "artifacts" / one / "manifest.json" for one in looked]
        within = [self._merged(read_json(one)) for one in paths if one.exists()]
        own = {inputs[one] for one in ("trunk", *self.parts) if one in inputs}
        return own.union(*within)

    @cached_property
    def parts(self) -> list[str]:
        """What adapters are called where they are merged: a language, or a task's language."""
        languages = self.said["spec"]["languages"]
        across = self.said["spec"]["merge"]["across"]
        return [*languages, *(f"{task}.{one}" for task in across for one in languages)]

    def sharing(self, task: str) -> list[str]:
        """This task, then those that its adapter serves as well."""
        across = self.said["spec"]["merge"]["across"]
        return [task, *(one for one in across if task in across and one != task)]

    @cached_property
    def _steps(self) -> list[Step]:
        """Those of the tasks, languages and systems of today: names are never taken away."""
        every = [one for one in read_steps(self.home) if self._is_asked(one)]
        found = [one for one in every if one.kind not in SCORED or self._is_system(one, every)]
        merge, ids = self.said["spec"]["merge"], {one.id for one in every}
        if merge["scale"] == "search" or merge["choose"] == "halving":  # anew after every change
            return [one for one in found if self._merged(one.manifest) <= ids]
        return found

    def _is_asked(self, one: Step) -> bool:
        task = next((task for task in self.said["tasks"] if task["name"] == one.task), None)
        if task is None:
            return not one.task
        there = not one.language or one.language in task["languages"]
        return there and (not one.metric or one.metric in task["metrics"])

    def _is_system(self, one: Step, every: Sequence[Step]) -> bool:
        """A row of the report, or what a choice looked at."""
        rows = next(task["systems"] for task in self.said["tasks"] if task["name"] == one.task)
        names = {name for row in rows for name in (row["name"], row["same_as"])}
        if not one.role:
            choices = [s for s in every if (s.kind, s.task) == ("select", one.task)]
            names |= {key.partition("|")[0] for s in choices for key in s.manifest["inputs"]}
        return bool(one.role) or one.system in names

    @cached_property
    def _judged(self) -> dict[str, list[Step]]:
        """The artifact of answers -> what judged them, by all names that it has."""
        found = dict[str, list[Step]]()
        for one in self._steps:
            if one.kind == "judge" and one.role != REFERENCES:
                found.setdefault(one.manifest["inputs"]["answers"], []).append(one)
        return found

    def rows(self, one: Step) -> list[dict[str, Any]]:
        """Of an evaluation, with what its judges said of each."""
        rows = one.rows
        for judge in self._judged.get(one.id, ()):
            said = {line["key"]: line for line in judge.rows}
            assert said.keys() == {row["key"] for row in rows}
            for row in rows:
                row[judge.metric] = said[row["key"]]
        return rows

    def answers(self, artifact: str) -> list[dict[str, Any]]:
        """The rows of an evaluation, or of what judged one."""
        folder = self.home / "artifacts" / artifact
        made, rows = read_json(folder / "manifest.json"), read_lines(folder / "rows.jsonl")
        if not made["name"].startswith("judge/"):
            return rows
        metric, said = parts_of(made["name"])[6], {line["key"]: line for line in rows}
        answered = self.answers(made["inputs"]["answers"])
        return [{**row, metric: said[row["key"]]} for row in answered]

    def judges(self, task: str, metric: str) -> set[tuple[str, str]]:
        """Each language with who judges it today."""
        steps = [s for s in self.steps if (s.kind, s.task, s.metric) == ("judge", task, metric)]
        lines = [(s.language, line["judge"]) for s in steps for line in s.rows if "judge" in line]
        return set(lines)

    @cached_property
    def pieces(self) -> list[Piece]:
        return read_pieces(self.home)

    @cached_property
    def last(self) -> dict[str, Piece]:
        """Artifact -> the work that finished it."""
        done = [one for one in self.pieces if one.status == "done"]
        return {one.artifact: one for one in done if one.kind not in (*AROUND, "idle")}

    @cached_property
    def _before(self) -> dict[int, list[Piece]]:
        """Finished work -> the attempts at it that were saved, whose work it went on with."""
        found, begun = dict[int, list[Piece]](), dict[str, list[Piece]]()
        for one in self.pieces:
            if one.lost is not None:
                begun.setdefault(one.artifact, []).append(one)
            elif one.status == "done" and one.kind not in (*AROUND, "idle"):
                found[id(one)] = begun.pop(one.artifact, [])
        return found

    @cached_property
    def _tries(self) -> dict[str, list[str]]:
        """The artifact of a training that stands -> those of the other tries at it."""
        tried, stands = dict[tuple[str, ...], set[str]](), dict[tuple[str, ...], str]()
        for one in self._steps:
            if one.kind in ("train", "trunk", "branch"):
                key = (one.kind, one.task, one.language, one.role, str(one.seed))
                tried.setdefault(key, set()).add(one.id)
                if not one.tried:
                    stands[key] = one.id
        return {stands[key]: sorted(ids - {stands[key]}) for key, ids in tried.items()}

    def whole(self, one: Piece) -> list[Piece]:
        """All attempts and tries at what this one finished."""
        others = self._tries.get(one.artifact, []) if one.kind == "train" else []
        tries = [*(self.last[other] for other in others if other in self.last), one]
        return [part for each in tries for part in (*self._before.get(id(each), ()), each)]

    def wholly(self, pieces: Iterable[Piece]) -> list[Piece]:
        return [part for one in pieces for part in self.whole(one)]

    def seconds(self, one: Piece) -> Fraction:
        return sum((part.seconds for part in self.whole(one)), Fraction(0))

    def work(self, steps: Iterable[Step | None]) -> list[Piece | None]:
        """What finished these; each artifact once."""
        ids = dict.fromkeys(one and one.id for one in steps)
        return [self.last.get(one) if one else None for one in ids]

    @cached_property
    def currency(self) -> str | None:
        """The one of all prices; None without a price or with several."""
        names = {one.get("currency", "USD") for one in map(self.price, self.pieces) if one}
        return names.pop() if len(names) == 1 else None

    def price(self, one: Piece) -> Mapping[str, str]:
        """As it was recorded; of work before there was one, today's."""
        return one.price or self.said["spec"]["price"] or {}

    def hourly(self, one: Piece) -> Fraction | None:
        price = self.price(one)
        return Fraction(price["per_hour"]) if price and self.currency is not None else None

    def cost(self, pieces: Iterable[Piece]) -> Fraction | None:
        paid = [(one.machine, self.hourly(one)) for one in pieces]
        known = [used * hourly / 3600 for used, hourly in paid if hourly is not None]
        return sum(known, Fraction(0)) if len(known) == len(paid) else None

    def amount(self, work: Work, elapsed: Fraction | None = None) -> Figures | None:
        """Of at least one piece of work, if all of it is known."""
        known = [one for one in work if one]
        if not work or len(known) < len(work):
            return None
        whole = self.wholly(known)
        return {
            "elapsed_seconds": busy(whole) if elapsed is None else elapsed,
            "machine_seconds": machine(whole),
            "cost": self.cost(whole),
            "steps": sum(one.status == "done" for one in whole),
        }

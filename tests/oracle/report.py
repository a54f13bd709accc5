"""A report, once more, from what lies in a finished project's `.koinize`: the result rows, the
lines of the ledger, the manifests and names. No line of koinize is used; `verdicts` has the
statistics. It knows projects without a trunk whose languages were all trained here, with the
default baselines, tasks of options, and one machine of any number of workers at one price.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from tests.oracle.verdicts import (
    all_languages,
    best_in,
    fewest_rows,
    judged,
    mean_of,
    measures,
    scored,
    smallest_margin,
)

NAMING = (
    "task",
    "split",
    "metric",
    "system",
    "reference",
    "language",
    "name",
    "label",
    "run",
    "scope",
)
"""What tells the rows of a list apart."""

AROUND = {"provision": "start the workers", "load": "load the model", "gate": "judge releases"}


Place = tuple[str, ...]


def leaves(value: object, at: Place = ()) -> Iterator[tuple[Place, object]]:
    """Every number, word and nothing of a report, by where it stands."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from leaves(one, (*at, str(key)))
    elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        for number, one in enumerate(value):
            names = [one["step"]] if "start_seconds" in one else [one.get(key) for key in NAMING]
            names = [str(name) for name in names if name is not None]
            yield from leaves(one, (*at, "|".join(names) or str(number)))
    else:
        yield at, value


@dataclass(frozen=True)
class Step:
    """What one artifact is: the parts of its name, its manifest, and its rows."""

    kind: str
    task: str
    system: str
    language: str
    split: str
    id: str
    manifest: Mapping[str, Any]
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        text = (self.folder / "rows.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def read_steps(home: Path) -> list[Step]:
    """What the names of the last run stand for."""
    found = []
    for name, one in json.loads((home / "names.json").read_text(encoding="utf-8")).items():
        folder = home / "artifacts" / one
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        kind, task, *rest = [*name.split("/"), "", "", ""]
        system = "" if kind == "train" else rest[0]
        language = rest[1] if kind == "evaluate" else rest[0] if kind == "train" else ""
        split = rest[2] if kind == "evaluate" else ""
        found.append(Step(kind, task, system, language, split, one, manifest, folder))
    return found


@dataclass(frozen=True)
class Piece:
    """One interval of the ledger; `begin` is in seconds since its run began."""

    run: str
    step: str
    kind: str
    artifact: str
    status: str
    begin: Fraction
    seconds: Fraction
    share: Fraction
    hourly: Fraction
    tokens: int
    error: str

    @property
    def machine(self) -> Fraction:
        return self.seconds * self.share

    @property
    def end(self) -> Fraction:
        return self.begin + self.seconds


def read_pieces(home: Path) -> list[Piece]:
    """Every interval, in the order in which they were begun."""
    lines = [json.loads(one) for one in (home / "ledger.jsonl").read_text().splitlines()]
    ends = {line["interval"]: line for line in lines if line["event"] == "end"}
    found = []
    for line in (one for one in lines if one["event"] == "start"):
        end = ends[line["interval"]]
        seconds = Fraction(end["seconds"])
        one = Piece(
            run=line["run"],
            step=line["step"],
            kind=line["kind"],
            artifact=line["artifact"],
            status=end["status"],
            begin=Fraction(end["at"]) - seconds,
            seconds=seconds,
            share=Fraction(line["share"]),
            hourly=Fraction(line["price"].get("per_hour", 0)),
            tokens=end["tokens"],
            error=end["error"],
        )
        found.append(one)
    return found


def busy(pieces: Iterable[Piece]) -> Fraction:
    """Seconds during which at least one of them ran; runs do not overlap."""
    seconds, until = Fraction(0), {}
    for one in sorted((p for p in pieces if p.kind != "idle"), key=lambda one: one.begin):
        reached = until.get(one.run, one.begin)
        seconds += max(Fraction(0), one.end - max(one.begin, reached))
        until[one.run] = max(one.end, reached)
    return seconds


def machine(pieces: Iterable[Piece]) -> Fraction:
    return sum((one.machine for one in pieces), Fraction(0))


def price(pieces: Iterable[Piece]) -> Fraction:
    return sum((one.machine * one.hourly / 3600 for one in pieces), Fraction(0))


def amount(pieces: Sequence[Piece], elapsed: Fraction | None = None) -> dict[str, Any]:
    return {
        "elapsed_seconds": busy(pieces) if elapsed is None else elapsed,
        "machine_seconds": machine(pieces),
        "cost": price(pieces),
        "steps": len(pieces),
    }


def less(new: Fraction, old: Fraction) -> Fraction | None:
    """In percent; of nothing nothing can be saved."""
    return 100 * (1 - new / old) if old else None


@dataclass
class Recomputed:
    """All of it. `said` gives what a project was asked for: its tasks' languages, labels, metrics
    and margins, and who is a candidate; no figure.
    """

    home: Path
    said: Mapping[str, Any]
    counted: list[Piece] = field(default_factory=list)

    @cached_property
    def steps(self) -> list[Step]:
        return read_steps(self.home)

    @cached_property
    def pieces(self) -> list[Piece]:
        return read_pieces(self.home)

    @cached_property
    def last(self) -> dict[str, Piece]:
        """Artifact -> the work that finished it."""
        done = [one for one in self.pieces if one.status == "done" and one.kind not in AROUND]
        return {one.artifact: one for one in done if one.kind != "idle"}

    def results(self) -> dict[str, Any]:
        """The part of a report's JSON that is recomputed."""
        tasks = [self._task(one) for one in self.said["tasks"]]
        return {"tasks": tasks, "costs": self._costs()}

    def _task(self, said: Mapping[str, Any]) -> dict[str, Any]:
        task = _Quality(said, [one for one in self.steps if one.task == said["name"]])
        named = {key: said[key] for key in ("name", "reference", "languages")}
        return {**named, **task.results(), "costs": self._task_costs(task)}

    def work(self, steps: Iterable[Step]) -> list[Piece]:
        return [self.last[one] for one in dict.fromkeys(step.id for step in steps)]

    def _task_costs(self, task: _Quality) -> dict[str, Any]:
        of, chosen_among = task.of, task.candidates
        train = self.work(of("train", language=one)[0] for one in task.languages)
        comb = self.work(of("train", language="comb"))
        merges = self.work(of("merge", system=one)[0] for one in chosen_among)
        looked = [one for one in of("evaluate", split="dev") if one.system in chosen_among]
        choice = self.work([*looked, *(one for one in of("select") if not one.system)])
        tests = self.work(of("evaluate", split="test"))
        means = [one for one in of("merge") if one.system not in chosen_among]
        means += [one for one in of("select") if one.system]
        self._count(task.name, train, comb, merges, choice, self.work(means), tests)
        made, whole = [*train, *merges], busy(comb)
        count = round(1 / min(one.share for one in [*comb, *train]))
        side_by_side = max(one.seconds for one in train) + sum(one.seconds for one in merges)
        self.loads = [one for one in self.pieces if one.kind == "load"]
        sides = self._sides(task, dict(zip(chosen_among, merges, strict=True)), choice, comb)
        older = bool(task.said["changed_since"])
        scoped = {
            language: {
                scope: self._scoped(one, *two, comb, count, older=older) for scope, *two in sides
            }
            for language, one in zip(task.languages, train, strict=True)
        }
        everything = [*made, *choice, *sides[-1][1][-1]]
        return {
            "combined": amount(comb),
            "combined_is": "measured",
            "combined_by_all_workers": {
                "workers": count,
                "elapsed_seconds": whole / count,
                "saved": less(busy(made), whole / count),
            },
            "combined_on_as_many_machines": {
                "workers": len(train),
                "elapsed_seconds": whole / len(train),
                "saved": less(side_by_side, whole / len(train)),
            },
            "trainings": amount(train),
            "merges": amount(merges),
            "merge_seconds": self._merge_seconds(task),
            "merged": amount(made),
            "choosing": amount(choice),
            "with_choosing": amount([*made, *choice]),
            "testing": amount(tests),
            "parallel_seconds": side_by_side,
            "savings": {**self._less(made, comb), "parallel": less(side_by_side, whole)},
            "savings_with_choosing": self._less([*made, *choice], comb),
            "updates": [
                {"language": one, "scopes": [{"scope": key, **row} for key, row in rows.items()]}
                for one, rows in scoped.items()
            ],
            "break_even": {
                scope: self._paid_back(set_up, count, [rows[scope] for rows in scoped.values()])
                for scope, set_up in (("training", made), ("choosing", everything))
            },
        }

    def _sides(
        self, task: _Quality, merges: Mapping[str, Piece], choice: list[Piece], comb: list[Piece]
    ) -> list[tuple[str, list[list[Piece]], list[list[Piece]]]]:
        """What each side pays for besides its training, in stages: scope, update, COMB."""
        chosen = task.choice.manifest["facts"]["chosen"]
        tested = self.work(task.of("evaluate", chosen, "test"))
        comb_tested = self.work(task.of("evaluate", "COMB", "test"))
        merge = [merges[chosen]]
        return [
            ("training", [merge], [comb]),
            ("testing", [merge, tested], [comb, comb_tested]),
            ("choosing", [list(merges.values()), choice, tested], [comb, comb_tested]),
        ]

    def _loaded(self, stages: Sequence[Sequence[Piece]], workers: int) -> dict[str, Any]:
        """One stage after the other, after so many workers loaded the model at once."""
        pieces, count = [one for stage in stages for one in stage], len(self.loads)
        loads = (sum(one.seconds for one in self.loads), machine(self.loads), price(self.loads))
        seconds, used, cost = (one / count if count else Fraction(0) for one in loads)
        return {
            "elapsed_seconds": sum(map(busy, stages)) + seconds,
            "machine_seconds": machine(pieces) + used * workers,
            "cost": price(pieces) + cost * workers,
            "steps": len(pieces),
        }

    def _scoped(
        self,
        trained: Piece,
        ours: Sequence[Sequence[Piece]],
        theirs: Sequence[Sequence[Piece]],
        comb: Sequence[Piece],
        workers: int,
        *,
        older: bool,
    ) -> dict[str, Any]:
        count = 1 if len(ours) == 1 else workers
        ours = [[trained], *ours]
        update, combined = self._loaded(ours, count), self._loaded(theirs, count)
        best = combined["elapsed_seconds"] - busy(comb) + busy(comb) / workers
        clocks = {"elapsed": "elapsed_seconds", "machine": "machine_seconds", "cost": "cost"}
        return {
            "update": update,
            "update_is": self._origin(ours, [trained]),
            "combined": combined,
            "combined_is": "estimated" if older else self._origin(theirs, comb),
            "savings": {one: less(update[key], combined[key]) for one, key in clocks.items()},
            "saved_at_best": less(update["elapsed_seconds"], best),
        }

    def _origin(self, stages: Sequence[Sequence[Piece]], trained: Sequence[Piece]) -> str:
        """Whether one run did this and trained nothing else."""
        runs = {one.run for stage in stages for one in stage}
        here = [one.step for one in self.pieces if one.run in runs and one.kind == "train"]
        others = {*here} != {one.step for one in trained}
        return "derived" if len(runs) > 1 or others else "measured"

    def _merge_seconds(self, task: _Quality) -> dict[str, Any]:
        """Of every merge that is a row of the report: MEAN is the one at its best scale."""
        found = {one: self.work(task.of("merge", system=one))[0] for one in task.candidates}
        for said in (one for one in task.said["systems"] if one["kind"] == "mean"):
            (choice,) = task.of("select", system=said["name"].lower())
            found[said["name"]] = self.last[choice.manifest["facts"]["adapter"]]
        return {name: one.seconds for name, one in found.items()}

    def _less(self, new: Sequence[Piece], old: Sequence[Piece]) -> dict[str, Fraction]:
        return {
            "elapsed": less(busy(new), busy(old)),
            "machine": less(machine(new), machine(old)),
            "cost": less(price(new), price(old)),
        }

    def _paid_back(
        self, made: Sequence[Piece], workers: int, updates: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        set_up, found = self._loaded([made], workers), {}
        for clock, key in (
            ("elapsed", "elapsed_seconds"),
            ("machine", "machine_seconds"),
            ("cost", "cost"),
        ):
            combined = updates[0]["combined"][key]
            update = sum(one["update"][key] for one in updates) / len(updates)
            extra, saved = set_up[key] - combined, combined - update
            after = 0 if extra <= 0 else None if saved <= 0 else -(-extra // saved)
            until = int(extra / saved) + 1 if extra <= 0 and saved < 0 else None
            found[clock] = {"extra": extra, "saved": saved, "updates": after, "until": until}
        return found

    def _count(self, task: str, train: Sequence[Piece], *phases: Sequence[Piece]) -> None:
        """Remember which bar every interval of a task is in."""
        names = (
            "train COMB", "merge the candidates", "choose on dev", "MEAN: merge and choose",
            "evaluate on test",
        )  # fmt: skip
        bars = [(f"train {one.step.rpartition('/')[2]}", [one]) for one in train]
        self.bars = [(task, *one) for one in [*bars, *zip(names, phases, strict=True)]]
        self.counted += [one for _, _, pieces in self.bars for one in pieces]

    def _costs(self) -> dict[str, Any]:
        idle = self._idle()
        around = [
            (label, [one for one in self.pieces if (one.kind, one.status) == (kind, "done")])
            for kind, label in AROUND.items()
        ]
        seen = {id(one) for one in [*self.counted, *(p for _, some in around for p in some)]}
        rest = [one for one in self.pieces if id(one) not in seen and one.kind != "idle"]
        assert all(one.status == "done" for one in rest)
        here = {one.id for one in self.steps}
        bars = [
            *self.bars,
            ("", "base model and other", [one for one in rest if one.artifact in here]),
            *(("", *one) for one in around),
            ("", "superseded", [one for one in rest if one.artifact not in here]),
        ]
        rows = [{"task": t, "label": name, **amount(some)} for t, name, some in bars if some]
        for row in rows:
            del row["elapsed_seconds"]
        unused = {key: idle[key] for key in ("machine_seconds", "cost", "steps")}
        rows.append({"task": "", "label": "idle", **unused})
        said = [{"label": name, **amount(some)} for name, some in around if some]
        return {
            "breakdown": rows,
            "around": [*said, {"label": "idle", **idle}],
            "runs": [self._run(one) for one in self._runs()],
            "timeline": self._timeline(),
        }

    def _runs(self) -> list[list[Piece]]:
        runs: dict[str, list[Piece]] = {}
        for one in self.pieces:
            runs.setdefault(one.run, []).append(one)
        return list(runs.values())

    def _idle(self) -> dict[str, Any]:
        unused = [one for one in self.pieces if one.kind == "idle"]
        walls = sum(span(one) - busy(one) for one in self._runs())
        return {**amount(unused, walls), "steps": 0}

    def _run(self, every: Sequence[Piece]) -> dict[str, Any]:
        work = [one for one in every if one.kind != "idle"]
        unused = [one for one in every if one.kind == "idle"]
        hourly = every[0].hourly / 3600
        steps = [one for one in work if one.kind not in AROUND]
        ended = Counter(one.status for one in steps)
        return {
            "run": every[0].run,
            "elapsed_seconds": span(every),
            "machine_seconds": machine(work),
            "idle_seconds": machine(unused),
            "idle_cost": price(unused),
            "cost": max(span(every), machine(work)) * hourly,
            "steps": {one: ended[one] for one in ("done", "failed", "interrupted", "open")},
            "failed_seconds": 0,
            "interrupted_seconds": 0,
        }

    def _timeline(self) -> dict[str, Any]:
        """The last run that trained something: as long as the run is."""
        run = [one for one in self.pieces if one.kind == "train"][-1].run
        every = [one for one in self.pieces if one.run == run]
        work = sorted((one for one in every if one.kind != "idle"), key=lambda one: one.begin)
        first = min(one.begin for one in every)
        return {
            "run": run,
            "elapsed_seconds": span(every),
            "bars": [
                {
                    "step": one.step,
                    "status": one.status,
                    "start_seconds": one.begin - first,
                    "seconds": one.seconds,
                    "share": one.share,
                    "tokens": one.tokens,
                    "error": one.error,
                }
                for one in work
            ],
        }


def span(run: Sequence[Piece]) -> Fraction:
    """From the first start to the last end."""
    return max(one.end for one in run) - min(one.begin for one in run)


class _Quality:
    """Scores and verdicts of a task."""

    def __init__(self, said: Mapping[str, Any], steps: Sequence[Step]) -> None:
        self.said, self.steps = said, steps
        self.name, self.languages = said["name"], said["languages"]
        self.measures = measures(said["metrics"], said["labels"])
        self.margins = {one: said["margins"][one] for one in said["metrics"]}
        self.sides = {
            (one.system, one.split): {
                language: step.rows
                for language in self.languages
                for step in self.of("evaluate", one.system, one.split, language)
            }
            for one in self.of("evaluate")
        }
        for one in self.languages:  # an adapter that serves all languages serves its own as INDV
            if own := self.sides.get((f"{one} only", "test")):
                own[one] = self.sides["INDV", "test"][one]

    def of(self, kind: str, system: str = "", split: str = "", language: str = "") -> list[Step]:
        """The steps of a kind; what is left empty may be anything."""
        asked = {"kind": kind, "system": system, "split": split, "language": language}
        asked = {key: value for key, value in asked.items() if value}
        return [s for s in self.steps if all(getattr(s, k) == v for k, v in asked.items())]

    @property
    def candidates(self) -> list[str]:
        """The distinct ones, in the order of koinize.yaml."""
        rows = self.said["systems"]
        return [s["name"] for s in rows if s["kind"] == "candidate" and not s["same_as"]]

    @property
    def choice(self) -> Step:
        return next(one for one in self.of("select") if not one.system)

    def whole(self, system: str, split: str) -> bool:
        return len(self.sides.get((system, split), {})) == len(self.languages)

    def results(self) -> dict[str, Any]:
        chosen = self.choice.manifest["facts"]["chosen"]
        scores = list(self._scores())
        verdicts = list(self._verdicts(chosen))
        first, margin = self.measures[0], self.margins[self.measures[0].name]
        mean, own = self.sides["MEAN", "test"], self.sides[chosen, "test"]
        systems = list(self._systems(chosen))
        return {
            "chosen": chosen,
            "systems": systems,
            "scores": scores,
            "selection": list(self._selection(scores, systems)),
            "verdicts": verdicts,
            "pooled": list(self._pooled(chosen)),
            "joint": list(self._joint(verdicts)),
            "answers": [self._answers(*one) for one in product((chosen, "COMB"), self.languages)],
            "against_mean": {
                "system": chosen,
                "reference": "MEAN",
                "metric": first.name,
                **judged(first, own, mean, margin),
            },
            "power": {
                "metric": first.name,
                "margin": margin,
                "fewest_rows": fewest_rows(margin),
                "languages": [
                    {"language": one, "n": len(own[one]), "smallest_margin": smallest_margin(n)}
                    for one in self.languages
                    if (n := len(own[one]))
                ],
            },
        }

    def _answers(self, system: str, language: str) -> dict[str, Any]:
        """How many rows of each label were answered with each."""
        rows, labels = self.sides[system, "test"][language], self.said["labels"]
        pairs = Counter((row["gold"], row["prediction"]) for row in rows)
        counts = [[pairs[gold, said] for said in labels] for gold in labels]
        return {"system": system, "language": language, "counts": counts}

    def _systems(self, chosen: str) -> Iterator[dict[str, Any]]:
        """Rank and truncation error, as the manifests have them."""
        for one in self.said["systems"]:
            facts: Mapping[str, Any] = {}
            if one["kind"] in ("candidate", "mean"):
                (choice,) = [
                    step
                    for step in self.of("select")
                    if step.system == (one["name"].lower() if one["kind"] == "mean" else "")
                ]
                made = choice.manifest["facts"]["adapter"]
                merges = self.of("merge", system=one["same_as"] or one["name"])
                step = merges[0] if one["kind"] == "candidate" else None
                step = step or next(one for one in self.of("merge") if one.id == made)
                facts = step.manifest["facts"]
            yield {
                "name": one["name"],
                "chosen": one["name"] == chosen,
                "rank": facts.get("rank"),
                "truncation_error": facts.get("truncation_error"),
            }

    def _scores(self) -> Iterator[dict[str, Any]]:
        twins = {one["name"]: one["same_as"] or one["name"] for one in self.said["systems"]}
        for split in ("dev", "test"):
            for measure in self.measures:
                for name, system in twins.items():
                    sides = self.sides.get((system, split), {})
                    found = {one: scored(measure, rows) for one, rows in sides.items()}
                    if len(found) == len(self.languages) > 1:
                        found[None] = mean_of(list(found.values()))
                    for language, one in found.items():
                        where = {"split": split, "metric": measure.name, "system": name}
                        yield {**where, "language": language, **one}

    def _selection(
        self, scores: Sequence[Mapping[str, Any]], systems: Sequence[Mapping[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Every candidate on dev; one that is another's twin has that one's scores."""
        first = self.measures[0]
        dev = {
            (row["system"], row["language"]): {k: row[k] for k in ("value", "low", "high", "n")}
            for row in scores
            if row["split"] == "dev" and row["metric"] == first.name
        }
        luck = best_in(first, {one: self.sides[one, "dev"] for one in self.candidates})
        kinds = {one["name"]: one["kind"] for one in self.said["systems"]}
        for one in (one for one in systems if kinds[one["name"]] == "candidate"):
            name, languages = one["name"], self.languages
            yield {
                **one,
                "best_in": luck.get(name),
                "mean": dev[name, None],
                "languages": {language: dev[name, language] for language in languages},
            }

    def _comparisons(self, chosen: str) -> Iterator[tuple[str, str, int]]:
        """Who is compared with whom, on how many of the metrics."""
        for reference in ("COMB", "INDV"):
            yield chosen, reference, len(self.measures)
        for one in self.said["systems"]:
            if not one["same_as"] and one["name"] not in (chosen, "COMB"):
                yield one["name"], "COMB", 1

    def _rows(self, chosen: str, languages: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
        for system, reference, count in self._comparisons(chosen):
            ours, theirs = self.sides[system, "test"], self.sides[reference, "test"]
            for measure in self.measures[:count]:
                margin = self.margins[measure.name]
                where = {"system": system, "reference": reference, "metric": measure.name}
                for some in languages:
                    if all(one in ours and one in theirs for one in some):
                        pair = ({one: side[one] for one in some} for side in (ours, theirs))
                        named = {"language": some[0]} if len(some) == 1 else {}
                        yield {**where, **named, **judged(measure, *pair, margin)}

    def _verdicts(self, chosen: str) -> Iterator[dict[str, Any]]:
        yield from self._rows(chosen, [[one] for one in self.languages])

    def _pooled(self, chosen: str) -> Iterator[dict[str, Any]]:
        if len(self.languages) > 1:
            yield from self._rows(chosen, [self.languages])

    def _joint(self, verdicts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        groups: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
        for row in verdicts:
            where = tuple(row[key] for key in ("system", "reference", "metric"))
            groups.setdefault(where, {})[row["language"]] = row
        for (system, reference, metric), rows in groups.items():
            if len(rows) == len(self.languages):
                where = {"system": system, "reference": reference, "metric": metric}
                yield {**where, **all_languages(rows)}

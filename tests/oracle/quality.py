"""Scores, verdicts and the choice of one task, from result rows: docs/report.md, once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.oracle.calibration import calibration
from tests.oracle.interference import interference
from tests.oracle.project import Row, Step, read_json, read_lines
from tests.oracle.task_costs import NONE, TaskCosts
from tests.oracle.verdicts import (
    FREE,
    TAIL,
    Measure,
    Pair,
    all_languages,
    best_in,
    fewest_rows,
    judged,
    mean_of,
    measure_of,
    scored,
    smallest_margin,
)

Figures = dict[str, Any]
Sides = Mapping[str, Sequence[Row]]


@dataclass
class Quality:
    """`said` is the task's part of the report: what was asked for is read in it, no figure."""

    costs: TaskCosts
    said: Mapping[str, Any]

    def results(self) -> Figures:
        chosen = self._best_on_dev()
        systems = list(self._systems())
        scores = list(self._scores())
        verdicts = list(self._rows([[one] for one in self.languages]))
        several = len(self.languages) > 1
        return {
            "chosen": chosen,
            "changed_since": self._changed_since(),
            "systems": systems,
            "scores": scores,
            "selection": list(self._selection(scores, systems)),
            "verdicts": verdicts,
            "pooled": list(self._rows([self.languages])) if several else [],
            "joint": list(self._joint(verdicts)),
            "answers": list(self._answers()),
            "collapsed": list(self._collapsed()),
            "calibration": list(self._calibration()),
            "against_mean": self._against_mean(),
            "power": self._power(),
            "stated": self._stated(),
            "inference": list(self._inference()),
            "signatures": list(self._signatures()),
            "interference": self._interference(),
        }

    # what there is

    @property
    def languages(self) -> list[str]:
        return self.costs.languages

    @property
    def labels(self) -> list[str]:
        labels: list[str] = self.said["labels"]
        return labels

    @cached_property
    def chosen(self) -> str:
        return self.costs.chosen

    def _best_on_dev(self, role: str = "") -> str:
        """Of what this choice is among the one with the highest mean over languages, by the rows
        that it read; where several have it, the one that it took. Of tasks that share an adapter
        the means, each in margins, are added.
        """
        account, own = self.costs.account, self.said["name"]
        among = [own] if role else account.sharing(own)
        (choice,) = self.costs.of("select", role=role)
        inputs = [one.rpartition("|") for one in choice.manifest["inputs"] if "|" in one]
        candidates = [title for title, _, part in inputs if part == "adapter"]
        tasks = {one["name"]: one for one in account.said["tasks"]}
        means = dict.fromkeys(candidates, 0.0)
        for name in among:
            metric = tasks[name]["metrics"][0]
            measure = measure_of(metric, tasks[name], account.said["spec"]["tasks"][name])
            margin = tasks[name]["margins"][metric] if len(among) > 1 else 1
            for title in candidates:
                scored = [part for one, _, part in inputs if one == title and part != "adapter"]
                rows = [
                    account.answers(choice.manifest["inputs"][f"{title}|{one}"])
                    for one in scored
                    if one.rpartition(".")[0] in ("", name)
                ]
                scores = [float(measure.points(measure.vectors(s).sum(axis=0))) for s in rows]
                means[title] += fmean(scores) / margin if scores else 0
        equal = [one for one in candidates if means[one] > max(means.values()) - 1e-9]
        return choice.facts["chosen"] if choice.facts["chosen"] in equal else equal[0]

    @cached_property
    def measures(self) -> list[Measure]:
        """The first one chooses."""
        asked = self.costs.account.said["spec"]["tasks"][self.said["name"]]
        return [measure_of(one, self.said, asked) for one in self.said["metrics"]]

    @property
    def margins(self) -> Mapping[str, float]:
        margins: Mapping[str, float] = self.said["margins"]
        return margins

    @cached_property
    def names(self) -> dict[str, str]:
        """Every system of the report -> the one whose weights it has."""
        return {one["name"]: one["same_as"] or one["name"] for one in self.said["systems"]}

    @cached_property
    def steps(self) -> dict[tuple[str, str], dict[str, Step]]:
        """System, split -> language -> the step that scored it."""
        found: dict[tuple[str, str], dict[str, Step]] = {}
        rows = {*self.names, *self.names.values()}
        for one in self.costs.account.steps:
            mine = (one.kind, one.task) == ("evaluate", self.said["name"])
            if mine and one.system in rows and not one.role:  # one of a baseline's is its own
                found.setdefault((one.system, one.split), {})[one.language] = one
        own = found.get(("INDV", "test"), {})
        for one in self.languages:  # one's own adapter is what serves its language
            if (only := f"{one} only") in self.names and one in own:
                found.setdefault((only, "test"), {})[one] = own[one]
        return {
            key: {one: some[one] for one in self.languages if one in some}
            for key, some in found.items()
        }

    @cached_property
    def sides(self) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
        return {
            key: {one: self.costs.account.rows(step) for one, step in some.items()}
            for key, some in self.steps.items()
        }

    def side(self, system: str, split: str) -> Sides:
        return self.sides.get((self.names.get(system, system), split), {})

    def whole(self, system: str, split: str = "test") -> Sides | None:
        """The rows of all languages."""
        rows = self.side(system, split)
        return rows if len(rows) == len(self.languages) else None

    # systems

    def _systems(self) -> Iterator[Figures]:
        """Rank and truncation error, as the manifests have them."""
        for one in self.said["systems"]:
            facts: Mapping[str, Any] = {}
            if step := self._made(one):
                facts = step.facts
            elif one["name"] == "TRUNK":
                facts = {"rank": self._learnt()["r"]}
            elif one["name"] != "BASE":
                facts = {"rank": self._own_rank(one)}
            yield {
                "name": one["name"],
                "chosen": one["name"] == self.chosen,
                "same_as": self._same_as(one),
                "rank": facts.get("rank"),
                "truncation_error": facts.get("truncation_error"),
            }

    def _learnt(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.costs.account.said["spec"]["lora"]
        return found

    def _own_rank(self, system: Mapping[str, Any]) -> int:
        """Of adapters that koinize trained: as lora has it for the languages that they serve."""
        best = self._best_on_dev("single") if system["kind"] == "single" else system["name"]
        owner = best.removesuffix(" only")
        owners = self.languages if owner == "INDV" else [owner]
        lora = self._learnt()
        return max(lora["overrides"].get(one, {}).get("r", lora["r"]) for one in owners)

    def _made(self, system: Mapping[str, Any]) -> Step | None:
        """The merge that a system is."""
        if system["kind"] == "candidate" and system["name"] != "TRUNK":
            name = self.names[system["name"]]
            return self.costs.one("merge", system=name, role="")
        if system["kind"] == "mean":
            role = system["name"].lower()
            (choice,) = self.costs.of("select", role=role)
            adapter = choice.manifest["inputs"][f"{self._best_on_dev(role)}|adapter"]
            merges = [one for one in self.costs.account.steps if one.kind == "merge"]
            return next(one for one in merges if one.id == adapter)
        return None

    def _same_as(self, system: Mapping[str, Any]) -> str | None:
        """The trunk is COMB where one training made both; of merges settings say it."""
        if system["name"] != "TRUNK":
            same: str | None = system["same_as"]
            return same
        trunk = self.costs.one("trunk")
        comb_ids = {one.manifest["inputs"].get("adapter") for one in self._tested("COMB")}
        return "COMB" if trunk and comb_ids == {trunk.id} else None

    def _tested(self, system: str) -> list[Step]:
        return list(self.steps.get((system, "test"), {}).values())

    def _changed_since(self) -> list[str]:
        """Whose training rows are others than COMB was trained on."""
        comb = self.costs.one("train", role="comb")
        if not comb:
            return []
        branched = self.costs.trunk != NONE
        found = []
        for language in self.languages:
            label = f"train rows {language}"
            step = self.costs.one("branch" if branched else "train", language=language, role="")
            today = step.manifest["inputs"].get(label) if step else None
            if today and today != comb.manifest["inputs"].get(label):
                found.append(label)
        return found

    # scores

    def _scores(self) -> Iterator[Figures]:
        scorings = product(("dev", "test"), self.measures)
        for split, measure in (
            one for one in scorings if one[0] == "test" or one[1].name not in FREE
        ):
            for name in self.names:
                found: dict[str | None, Figures] = {
                    one: scored(measure, rows) for one, rows in self.side(name, split).items()
                }
                if len(found) == len(self.languages) > 1:
                    found[None] = mean_of(list(found.values()))
                for language, one in found.items():
                    where = {"split": split, "metric": measure.name, "system": name}
                    yield {**where, "language": language, **one}

    def _selection(
        self, scores: Sequence[Mapping[str, Any]], systems: Sequence[Mapping[str, Any]]
    ) -> Iterator[Figures]:
        """Every candidate on dev; one that is another's twin has that one's scores."""
        dev = {
            (row["system"], row["language"]): {k: row[k] for k in ("value", "low", "high", "n")}
            for row in scores
            if row["split"] == "dev" and row["metric"] == self.measures[0].name
        }
        sides = {one: self.whole(one, "dev") for one in self.costs.candidates}
        scored_all = len(sides) > 1 and all(sides.values())
        luck = best_in(self.measures[0], sides) if scored_all else {}
        kinds = {one["name"]: one["kind"] for one in self.said["systems"]}
        overall = None if len(self.languages) > 1 else self.languages[0]
        for one in (one for one in systems if kinds[one["name"]] == "candidate"):
            yield {
                **one,
                "best_in": luck.get(one["name"]),
                "mean": dev.get((one["name"], overall)),
                "languages": {each: dev.get((one["name"], each)) for each in self.languages},
            }

    # verdicts

    @cached_property
    def _further(self) -> dict[tuple[str, str], list[list[Row]]]:
        """System, language -> its rows on test with each further seed."""
        found: dict[tuple[str, str], list[list[Row]]] = {}
        for one in sorted(self.costs.account.further, key=lambda one: one.seed):
            if (one.kind, one.task, one.split) == ("evaluate", self.said["name"], "test"):
                found.setdefault((one.system, one.language), []).append(
                    self.costs.account.rows(one)
                )
        return found

    def _pairs(
        self, system: str, reference: str, languages: Sequence[str]
    ) -> dict[str, list[Pair]]:
        """The rows of both, with one seed after the other; what nobody trained has one seed."""
        found = {}
        for language in languages:
            ours, theirs = (self._by_seed(one, language) for one in (system, reference))
            most = max(len(ours), len(theirs))
            ours, theirs = (
                some * most if name == "BASE" else some
                for name, some in ((system, ours), (reference, theirs))
            )
            seeds = most if len(ours) == len(theirs) else 1
            found[language] = [*zip(ours, theirs, strict=False)][:seeds]
        return found

    def _by_seed(self, system: str, language: str) -> list[Sequence[Row]]:
        weights = self.names.get(system, system)
        again = self._further.get((system, language)) or self._further.get((weights, language), [])
        return [self.side(system, "test")[language], *again]

    def _comparisons(self) -> Iterator[tuple[str, str, Measure]]:
        """Who is compared with whom, on which metric."""
        alone = [s["name"] for s in self.said["systems"] if s["kind"] in ("individual", "single")]
        for reference in (self.said["reference"], *alone):
            if reference not in (self.names[self.chosen], self.chosen):
                yield from ((self.chosen, reference, one) for one in self.measures)
        for one in self.said["systems"]:
            if not one["same_as"] and one["name"] not in (self.chosen, self.said["reference"]):
                yield one["name"], self.said["reference"], self.measures[0]

    def _rows(self, languages: Sequence[Sequence[str]]) -> Iterator[Figures]:
        for system, reference, measure in self._comparisons():
            ours, theirs = self.side(system, "test"), self.side(reference, "test")
            margin = self.margins.get(measure.name, 0)
            where = {"system": system, "reference": reference, "metric": measure.name}
            for some in languages:
                if margin > 0 and all(one in ours and one in theirs for one in some):
                    pairs = self._pairs(system, reference, some)
                    named = {"language": some[0]} if len(languages) > 1 or len(some) == 1 else {}
                    yield {**where, **named, **judged(measure, pairs, margin)}

    def _joint(self, verdicts: Sequence[Mapping[str, Any]]) -> Iterator[Figures]:
        groups: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
        for row in verdicts:
            where = tuple(row[key] for key in ("system", "reference", "metric"))
            groups.setdefault(where, {})[row["language"]] = row
        for (system, reference, metric), rows in groups.items():
            if len(rows) == len(self.languages):
                where = {"system": system, "reference": reference, "metric": metric}
                yield {**where, **all_languages(rows)}

    def _against_mean(self) -> Figures | None:
        ours, theirs = self.whole(self.chosen), self.whole("MEAN")
        margin = self.margins.get(self.said["metrics"][0], 0)
        if "MEAN" not in self.names or not (ours and theirs and margin > 0):
            return None
        metric = self.measures[0]
        named = {"system": self.chosen, "reference": "MEAN", "metric": metric.name}
        pairs = self._pairs(self.chosen, "MEAN", self.languages)
        return {**named, **judged(metric, pairs, margin)}

    def _power(self) -> Figures | None:
        rows, metric = self.whole(self.chosen), self.said["metrics"][0]
        margin = self.margins.get(metric, 0)
        if not rows or not margin > 0:
            return None
        return {
            "metric": metric,
            "margin": margin,
            "fewest_rows": fewest_rows(margin),
            "languages": [
                {"language": one, "n": len(some), "smallest_margin": smallest_margin(len(some))}
                for one, some in rows.items()
            ],
        }

    def _stated(self) -> Figures | None:
        """The first line that says the task's margins, and whether test was looked at before."""
        lines = read_lines(self.costs.account.home / "ledger.jsonl")
        name = self.said["name"]
        places = [
            at
            for at, one in enumerate(lines)
            if (one["event"], one.get("task")) == ("margins", name)
        ]
        if not places:
            return None
        first, before = lines[places[0]], lines[: places[0]]
        looked = [
            one["step"] for one in before if one["event"] == "start" and one["kind"] == "evaluate"
        ]
        seen = any(step.split("/")[1] == name and step.split("/")[-1] == "test" for step in looked)
        changed = {
            metric: margin
            for metric, margin in first["margins"].items()
            if metric in self.said["metrics"] and margin != self.margins.get(metric, 0)
        }
        return {
            "utc": first["utc"],
            "beforehand": not seen,
            "changed": [self._by_former(*one) for one in changed.items()],
            "later": [one for one in self.said["metrics"] if one not in first["margins"]],
        }

    def _by_former(self, metric: str, margin: float) -> Figures:
        (measure,) = [one for one in self.measures if one.name == metric]
        ours, theirs = self.whole(self.chosen), self.whole(self.said["reference"])
        mean = joint = None
        if ours and theirs and margin > 0:
            pairs = self._pairs(self.chosen, self.said["reference"], self.languages)
            each = {one: judged(measure, {one: pairs[one]}, margin) for one in ours}
            joint = all_languages(each)["verdict"]
            if len(ours) > 1:
                mean = judged(measure, pairs, margin)["verdict"]
        now = self.margins.get(metric, 0)
        return {"metric": metric, "margin": margin, "now": now, "mean": mean, "joint": joint}

    # answers

    @property
    def _shown(self) -> list[str]:
        """The chosen merge and the reference, whose answers are looked at."""
        return list(dict.fromkeys([self.chosen, self.said["reference"]])) if self.labels else []

    def _answers(self) -> Iterator[Figures]:
        """How many rows of each label were answered with each."""
        for system, language in product(self._shown, self.languages):
            if rows := self.side(system, "test").get(language):
                pairs = Counter((row["gold"], row["prediction"]) for row in rows)
                counts = [[pairs[gold, one] for one in self.labels] for gold in self.labels]
                yield {"system": system, "language": language, "counts": counts}

    def _collapsed(self) -> Iterator[Figures]:
        """Trained systems that answer one label to nearly everything, which chance does not do."""
        trained = [
            one["name"]
            for one in self.said["systems"]
            if one["kind"] in ("individual", "single", "combined", "mean")
            or one["name"] == self.chosen
        ]
        looked = [
            (name, language, rows)
            for name in trained
            if name in (self.names[name], "TRUNK")
            for language, rows in self.sides.get((name, "test"), {}).items()
            if self.labels
        ]
        for system, language, rows in looked:
            label, times = Counter(one["prediction"] for one in rows).most_common(1)[0]
            gold = sum(one["gold"] == label for one in rows)
            right = sum(one["gold"] == label == one["prediction"] for one in rows)
            n, wrong, lacking = len(rows), times - right, gold - right
            p = _coin(wrong, lacking)
            few = n - times < (n - gold) / 2
            if times > 0.9 * n and few and p <= TAIL / len(looked):
                where = {"system": system, "language": language, "label": label}
                yield {**where, "times": times, "right": right, "n": n, "p_value": p}

    def _calibration(self) -> Iterator[Figures]:
        for system in self._shown:
            rows = self.whole(system) or {}
            groups: list[tuple[str | None, Sequence[Row]]] = [*rows.items()]
            if len(rows) > 1:
                groups.insert(0, (None, [one for some in rows.values() for one in some]))
            for language, some in groups:
                if found := calibration(self.labels, some):
                    yield {"system": system, "language": language, **found}

    def _inference(self) -> Iterator[Figures]:
        """The seconds of the steps that answered the test rows."""
        account = self.costs.account
        for name in (one["name"] for one in self.said["systems"]):
            scoring = self.steps.get((name, "test"), {})
            if name.endswith(" only"):  # its own language was never asked under this name
                continue
            work = [account.last.get(one.id) for one in scoring.values()]
            if len(work) == len(self.languages) and all(work):
                rows = [row for some in self.sides[name, "test"].values() for row in some]
                writes = all("tokens" in one for one in rows)
                yield {
                    "system": name,
                    "rows": len(rows),
                    "tokens": sum(one["tokens"] for one in rows) if writes else None,
                    "seconds": sum(account.seconds(one) for one in work if one),
                    "shared": any(one.group.endswith("-group") for one in work if one),
                }

    def _signatures(self) -> Iterator[Figures]:
        """Under which digests of prompt, decoding and data who was scored."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for (system, split), some in self.steps.items():
            for language, step in some.items():
                inputs = step.manifest["inputs"]
                parts = sorted(one for one in inputs if one not in ("adapter", "choice"))
                text = "|".join(f"{one}:{inputs[one][:12]}" for one in parts)
                groups.setdefault((split, language, text), []).append(system)
        for (split, language, text), systems in groups.items():
            where = {"split": split, "language": language, "signature": text}
            yield {**where, "systems": sorted(systems)}

    def _interference(self) -> Figures | None:
        """Of what the chosen merge is made of."""
        made = self.costs.one("merge", system=self.chosen, role="")
        if made is None:
            return None
        inputs, home = made.manifest["inputs"], self.costs.account.home / "artifacts"
        folders = {one: home / inputs[one] for one in self.costs.account.parts if one in inputs}
        if len(folders) < 2 or not all(map(_is_adapter, folders.values())):
            return None
        return interference(folders, home / inputs["trunk"] if "trunk" in inputs else None)


def _is_adapter(folder: Path) -> bool:
    """Steps of a few bytes, as some tests have them, hold no tensors."""
    return bool(read_json(folder / "adapter_config.json"))


def _coin(more: int, fewer: int) -> float:
    """The chance that of so many throws of a fair coin at least `more` are heads."""
    n = more + fewer
    return sum(comb(n, k) for k in range(more, n + 1)) / 2**n

"""What a task's set-up and its updates took, against COMB: docs/report.md, once more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from tests.oracle.account import CLOCKS, Account, Figures, Work, busy, less, less_in_all
from tests.oracle.project import REFERENCES, SEARCH, Piece, Step
from tests.oracle.variation import Variation

JOINT, NONE = "joint", "none"


@dataclass
class TaskCosts:
    """One task. `said` is its part of the report, of which no figure is read."""

    account: Account
    said: Mapping[str, Any]

    def results(self) -> Figures:
        take = self.account.amount
        merged = take(self.made) if all(self.made) else None
        with_choosing = take([*self.made, *self.choice]) if merged else None
        combined = take(self.combined)
        if combined and not self.is_measured:  # one training after the other
            combined["elapsed_seconds"] = self._one_by_one(self.combined)
        parallel = self._parallel()
        machines = len(self.languages) if self.trunk != JOINT else 1
        return {
            "trunk": self.trunk != NONE,
            "combined": combined,
            "combined_is": combined and ("measured" if self.is_measured else "estimated"),
            "combined_by_all_workers": self._at_best(self.workers, combined, merged),
            "combined_on_as_many_machines": self._at_best(
                machines, combined, parallel and {"elapsed_seconds": parallel}
            ),
            "trainings": take(self.trainings),
            "merges": take(self.merges),
            "merge_seconds": self._merge_seconds(),
            "merged": merged,
            "choosing": take(self.choice),
            "with_choosing": with_choosing,
            "testing": take(self.tests()),
            "parallel_seconds": parallel,
            "savings": {
                **less_in_all(merged, combined),
                "parallel": less(parallel, combined and combined["elapsed_seconds"]),
            },
            "savings_with_choosing": less_in_all(with_choosing, combined),
            "updates": self._updates(),
            "variation": self.variation.rows(self.said["name"]),
            "break_even": {
                "training": self._paid_back("training", self.made),
                "choosing": self._paid_back(
                    "choosing", [*self.made, *self.choice, *self.tested(self.chosen)]
                ),
            },
        }

    # what there is

    @cached_property
    def trunk(self) -> str:
        """`none`, `joint`, or anything else: a trunk of which every language is a branch."""
        said = self.account.said["spec"]["training"]["trunk"]
        return said if said in (NONE, JOINT) else "other"

    @property
    def languages(self) -> list[str]:
        languages: list[str] = self.said["languages"]
        return languages

    def of(self, kind: str, **asked: str) -> list[Step]:
        """The steps of a kind, of those that stand; what is not asked for may be anything."""
        steps = [s for s in self.account.steps if (s.kind, s.task) == (kind, self.said["name"])]
        wanted = {"tried": 0, **asked}
        return [s for s in steps if all(getattr(s, k) == v for k, v in wanted.items())]

    def one(self, kind: str, **asked: str) -> Step | None:
        return next(iter(self.of(kind, **asked)), None)

    def trained(self, step: Step | None) -> Piece | None:
        """Nothing is known of what was trained elsewhere."""
        (found,) = self.account.work([step])
        return found if found and found.kind == "train" else None

    @cached_property
    def candidates(self) -> list[str]:
        """The distinct ones, in the order of koinize.yaml."""
        rows = self.said["systems"]
        return [one["name"] for one in rows if one["kind"] == "candidate" and not one["same_as"]]

    @cached_property
    def choosable(self) -> list[str]:
        """The trunk is one while nothing left it, whoever else has its weights."""
        rows = self.said["systems"]
        alone = [one["name"] for one in rows if one["kind"] == "candidate"]
        return self.candidates or alone[:1]

    @cached_property
    def chosen(self) -> str:
        (choice,) = self.of("select", role="")
        chosen: str = choice.facts["chosen"]
        return chosen

    @cached_property
    def own(self) -> dict[str, Piece | None]:
        """What an update of a language trains: its adapter, or its branch of the trunk."""
        if self.trunk == NONE:
            return {
                one: self.trained(self.one("train", language=one, role=""))
                for one in self.languages
            }
        branches = {one.language: self.trained(one) for one in self.of("branch")}
        return {one: branches[one] for one in self.languages if one in branches}

    @cached_property
    def trainings(self) -> list[Piece | None]:
        """What had to be trained before there was something to release."""
        if self.trunk == NONE:
            return [None if self._goes_on(one) else work for one, work in self.own.items()]
        trunk = self.trained(self.one("trunk"))
        return [trunk] if self.trunk == JOINT else [trunk, *self.own.values()]

    def _goes_on(self, language: str) -> bool:
        """An adapter that was continued: its present work is its last update alone."""
        step = self.one("train", language=language, role="")
        return bool(step) and "parent" in step.manifest["inputs"]

    @cached_property
    def merges(self) -> list[Piece | None]:
        return [
            work
            for name in self.candidates
            if name != "TRUNK"
            for work in self.account.work([self.one("merge", system=name, role="")])
        ]

    @cached_property
    def made(self) -> list[Piece | None]:
        """Everything up to a release: a joint trunk needs no merge to be one."""
        return self.trainings if self.trunk == JOINT else [*self.trainings, *self.merges]

    @cached_property
    def choice(self) -> list[Piece | None]:
        """What a search looked at, the candidates on dev, and the choice; one alone is not
        scored.
        """
        found = [one for one in self.account.steps if one.task == self.said["name"]]
        looked = [s for s in found if (s.role or s.kind) == SEARCH]
        made = {one.artifact for one in self.merges if one}
        looked = [one for one in looked if one.id not in made]
        scores = [
            self.one("evaluate", system=name, language=language, split="dev")
            for name, language in ((n, one) for n in self.choosable for one in self.languages)
        ]
        if len(self.choosable) == 1:
            scores = [one for one in scores if one]
        judged = [s for s in self.of("judge", split="dev", role="") if s.system in self.choosable]
        return self.account.work([*looked, *scores, *judged, *self.of("select", role="")])

    def tests(self) -> list[Piece | None]:
        """Of all systems, by their judges, too, and what these were set on."""
        judged = [*self.of("judge", split="test"), *self.of("judge", role=REFERENCES)]
        return self.account.work([*self.of("evaluate", split="test"), *judged])

    def tested(self, system: str) -> list[Piece | None]:
        """Its answers in every language, and who judged them."""
        answers = [
            self.one("evaluate", system=system, language=one, split="test")
            for one in self.languages
        ]
        return self.account.work([*answers, *self.of("judge", system=system, split="test")])

    @cached_property
    def comb(self) -> Piece | None:
        return self.trained(self.one("train", role="comb"))

    @property
    def is_measured(self) -> bool:
        return self.comb is not None

    @cached_property
    def combined(self) -> list[Piece | None]:
        """COMB's training; where nobody did it, the languages' or the joint trunk's. A trunk of
        some rows is no measure of all of them.
        """
        if self.comb:
            return [self.comb]
        return self.trainings if self.trunk in (NONE, JOINT) else [None]

    # set-up

    def _one_by_one(self, work: Work) -> Fraction:
        return sum((self.account.seconds(one) for one in work if one), Fraction(0))

    def _parallel(self) -> Fraction | None:
        """A machine for each language: the trunk, the longest training, then merge after merge."""
        if not all(self.made) or (self.trunk != JOINT and not self.merges):
            return None
        work = [self.account.seconds(one) for one in self.trainings if one]
        first = work.pop(0) if self.trunk != NONE else Fraction(0)
        merges = self.merges if self.trunk != JOINT else []
        return first + max(work, default=Fraction(0)) + self._one_by_one(merges)

    def _at_best(
        self, workers: int, combined: Figures | None, merged: Figures | None
    ) -> Figures | None:
        """COMB by so many at once, each as fast as one."""
        if combined is None:
            return None
        seconds = combined["elapsed_seconds"] / workers
        saved = less(merged and merged["elapsed_seconds"], seconds)
        return {"workers": workers, "elapsed_seconds": seconds, "saved": saved}

    @cached_property
    def workers(self) -> int:
        """Of the machine that COMB and the set-up were trained on."""
        shares = [one.share for one in (self.comb, *self.trainings) if one]
        return round(1 / min(shares)) if shares else 1

    def _merge_seconds(self) -> Figures:
        """Of every merge that is a row of the report: MEAN is the one at its best scale."""
        found = dict(zip((n for n in self.candidates if n != "TRUNK"), self.merges, strict=True))
        for one in (one for one in self.said["systems"] if one["kind"] == "mean"):
            (choice,) = self.of("select", role=one["name"].lower())
            found[one["name"]] = self.account.last.get(choice.facts["adapter"])
        return {name: one and one.seconds for name, one in found.items()}

    # updates

    @cached_property
    def variation(self) -> Variation:
        return Variation(self.account)

    @cached_property
    def served(self) -> list[TaskCosts]:
        """Where an update releases another adapter: this task, and those that share it."""
        tasks = {one["name"]: one for one in self.account.said["tasks"]}
        names = self.account.sharing(self.said["name"])
        return [self, *(TaskCosts(self.account, tasks[one]) for one in names[1:])]

    def _stages(self, scope: str) -> tuple[list[Work], list[Work]]:
        """What an update and COMB pay for besides their training, one stage after the other: an
        update for every task that its merge serves.
        """
        by_name = dict(zip((n for n in self.candidates if n != "TRUNK"), self.merges, strict=True))
        merge: Work = [by_name.get(self.chosen)]
        tested = [work for one in self.served for work in one.tested(self.chosen)]
        choice = [work for one in self.served for work in one.choice]
        choice = list({id(one): one for one in choice}.values())  # it is made once
        comb_tested = self.tested("COMB")
        comb_tested = comb_tested if all(comb_tested) else self.tested(self.chosen)
        return {
            "training": ([merge], []),
            "testing": ([merge, tested], [comb_tested]),
            "choosing": ([self.merges, choice, tested], [comb_tested]),
        }[scope]

    def _loaded(self, stages: Iterable[Work], workers: int) -> Figures | None:
        """One stage after the other, after so many workers loaded the model at once."""
        stages = [*stages]
        found = self.account.amount([one for stage in stages for one in stage])
        if found is None:
            return None
        wholes = [self.account.wholly(one for one in stage if one) for stage in stages]
        loads = [one for one in self.account.pieces if (one.kind, one.status) == ("load", "done")]
        seconds, used, cost = Fraction(0), Fraction(0), Fraction(0)
        if loads:
            seconds = sum((one.seconds for one in loads), Fraction(0)) / len(loads)
            used = sum((one.machine for one in loads), Fraction(0)) / len(loads)
            paid = self.account.cost(loads)
            cost = None if paid is None else paid / len(loads)
        known = found["cost"] is not None and cost is not None
        return {
            "elapsed_seconds": sum(map(busy, wholes), Fraction(0)) + seconds,
            "machine_seconds": found["machine_seconds"] + used * workers,
            "cost": found["cost"] + cost * workers if known else None,
            "steps": found["steps"],
        }

    def _update(self, trained: Piece | None, scope: str) -> Figures | None:
        if trained is None or not self.merges:
            return None
        stages = [[trained], *self._stages(scope)[0]]
        return self._loaded(stages, self._loading(stages))

    def _retrained(self, scope: str) -> Figures | None:
        stages = self._again(scope)
        return self._loaded(stages, self._loading(stages))

    def _again(self, scope: str) -> list[Work]:
        """Everything that COMB trained again consists of."""
        return [*([one] for one in self.combined), *self._stages(scope)[1]]

    def _loading(self, stages: Iterable[Sequence[Piece | None]]) -> int:
        """How many workers load the model: one trains; and the most of whom each that loads for
        scoring alone is left with as much of it as loading takes, all having equal parts.
        """
        load = self._load()
        work = [one for stage in stages for one in stage if one]
        scored = sum((p.seconds for p in work if p.kind in ("evaluate", "judge")), Fraction(0))
        each = {k: (scored + (k - 1) * load) / k for k in range(2, self.workers + 1)}
        return max([1, *(k for k, part in each.items() if part - load >= load)])

    def _load(self) -> Fraction:
        """Seconds of one load, in the mean."""
        loads = [p.seconds for p in self.account.pieces if (p.kind, p.status) == ("load", "done")]
        return sum(loads, Fraction(0)) / max(1, len(loads))

    def _retrained_is(self, scope: str) -> str:
        """Measured, derived or estimated."""
        tested = all(self.tested("COMB"))
        if not self.comb or self.said["changed_since"] or (scope != "training" and not tested):
            return "estimated"
        return self._origin([[self.comb], *self._stages(scope)[1]], self.comb, [self.said["name"]])

    def _origin(self, stages: Sequence[Work], trained: Piece, tasks: Sequence[str]) -> str:
        """Whether one run did this and trained nothing else of these tasks."""
        runs = {one.run for stage in stages for one in stage if one}
        pieces = [one for one in self.account.pieces if one.kind == "train" and one.run in runs]
        kinds = ("train", "trunk", "branch")
        own = {one.id for one in self.account.steps if one.kind in kinds and one.task in tasks}
        here = {p.artifact for p in pieces if p.task in tasks or p.artifact in own}
        mine = {one.artifact for one in self.account.whole(trained)}
        return "measured" if len(runs) == 1 and here <= mine else "derived"

    def _updates(self) -> list[Figures]:
        return [
            {
                "language": language,
                "scopes": [
                    self._scoped(trained, scope) for scope in ("training", "testing", "choosing")
                ],
            }
            for language, trained in self.own.items()
        ]

    def _scoped(self, trained: Piece | None, scope: str) -> Figures:
        update, combined = self._update(trained, scope), self._retrained(scope)
        stages = [[trained], *self._stages(scope)[0]]
        tasks = self.account.sharing(self.said["name"])
        saved = None
        if update and combined:
            alone = sum(
                (busy(self.account.whole(one)) for one in self.combined if one), Fraction(0)
            )
            best = combined["elapsed_seconds"] - alone + alone / self.workers
            saved = less(update["elapsed_seconds"], best)
        return {
            "scope": scope,
            "update": update,
            "update_is": self._origin(stages, trained, tasks) if update and trained else None,
            "combined": combined,
            "combined_is": combined and self._retrained_is(scope),
            "savings": less_in_all(update, combined),
            "savings_interval": self._savings_interval(update, combined, stages, scope),
            "saved_at_best": saved,
        }

    def _savings_interval(
        self, update: Figures | None, combined: Figures | None, stages: Sequence[Work], scope: str
    ) -> Figures:
        if not update or not combined:
            return dict.fromkeys(CLOCKS)
        ours, theirs = (
            self.variation.side([[p for p in one if p] for one in some], self._loading(some))
            for some in (stages, self._again(scope))
        )
        elapsed, used = (self.variation.less(*both) for both in zip(ours, theirs, strict=True))
        priced = update["cost"] is not None and combined["cost"] is not None
        return {"elapsed": elapsed, "machine": used, "cost": used if priced else None}

    def _paid_back(self, scope: str, work: Work) -> Figures:
        """Each side loads once for each worker that it needs: one training needs one."""
        nothing: Figures = dict.fromkeys(CLOCKS)
        combined = self._retrained(scope)
        updates = [self._update(one, scope) for one in self.own.values()]
        known = [one for one in updates if one]
        needed = min(self.workers, len(self.trainings)) if scope == "training" else self.workers
        set_up = self._loaded([work], needed)
        if not (combined and set_up and known) or len(known) < len(updates):
            return nothing
        return {
            clock: self._by(set_up[key], combined[key], [one[key] for one in known])
            for clock, key in CLOCKS.items()
        }

    def _by(
        self, set_up: Fraction | None, combined: Fraction | None, updates: list[Fraction | None]
    ) -> Figures | None:
        known = [one for one in updates if one is not None]
        if set_up is None or combined is None or len(known) < len(updates):
            return None
        extra, saved = set_up - combined, combined - sum(known, Fraction(0)) / len(known)
        after = 0 if extra <= 0 else None if saved <= 0 else -(-extra // saved)
        until = int(extra / saved) + 1 if extra <= 0 and saved < 0 else None
        return {"extra": extra, "saved": saved, "updates": after, "until": until}

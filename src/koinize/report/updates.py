"""What an update of one language takes against retraining COMB, in the scopes of `ledger.scopes`.

Both are put together from the work that the present results stand on, so that it need not have been
an update that did it. Loading the model, which is an interval apart, is counted for each worker
that a side needs, as long as it took on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property

from koinize.ledger import LOAD, Interval, covered, total
from koinize.ledger.address import System
from koinize.ledger.scopes import SCOPES, Scope, loading
from koinize.report.break_even import break_even
from koinize.report.cost_figures import (
    BreakEvenRows,
    BreakEvens,
    Origin,
    SavingsInterval,
    ScopeRow,
    TaskCosts,
    UpdateRow,
)
from koinize.report.costs import (
    Accounts,
    Taken,
    branch,
    choosing,
    combined_training,
    figures,
    in_training,
    merged_at_set_up,
    merging,
    merging_candidates,
    saved,
    savings,
    set_up_costs,
    setting_up,
    training,
    workers_of,
)
from koinize.report.input import TaskInput
from koinize.report.variation import Parts, Variation

COMB = System.named("COMB")


def task_costs(task: TaskInput, accounts: Accounts) -> TaskCosts:
    """Set-up and update of one task, merged against combined."""
    variation = Variation(accounts)
    found = Updates(task, accounts, variation)
    return {
        **set_up_costs(task, accounts),
        "updates": found.rows(),
        "break_even": found.paid_back(),
        "variation": variation.rows(task.name),
    }


@dataclass(frozen=True)
class Side:
    """What one side takes in a scope, and whether that was measured as such.

    `elapsed` and `machine`: the same seconds, by the intervals that they are from.
    """

    taken: Taken | None
    origin: Origin
    elapsed: Parts = field(default_factory=dict)
    machine: Parts = field(default_factory=dict)


@dataclass(frozen=True)
class Updates:
    """The updates of one task's languages."""

    task: TaskInput
    accounts: Accounts
    variation: Variation

    def rows(self) -> list[UpdateRow]:
        """One for each language that has an adapter of its own."""
        return [
            {
                "language": language,
                "scopes": [self._row(one, scope) for scope in SCOPES],
            }
            for language, one in self.trainings.items()
        ]

    def paid_back(self) -> BreakEvenRows:
        """After how many updates of one language merging has cost less than COMB."""
        work = merged_at_set_up(self.task, self.accounts)
        made = self.accounts.taken(work)
        choice, tests = choosing(self.task, self.accounts), self._tests(self._chosen, self.task)
        whole = self.accounts.taken([*work, *choice, *tests])
        return {
            "training": self._break_even(made if self._merges else None, "training"),
            "choosing": self._break_even(whole if self._merges else None, "choosing"),
        }

    @cached_property
    def trainings(self) -> dict[str, Interval | None]:
        """The training that an update of a language takes, by language."""
        of = training if self.task.branches is None else branch
        languages = self.task.languages if self.task.branches is None else self.task.branches
        return {one: in_training(self.accounts, of(self.task, one)) for one in languages}

    @cached_property
    def _set_up(self) -> list[Interval | None]:
        return setting_up(self.task, self.accounts)

    @cached_property
    def _merges(self) -> dict[str, Interval | None]:
        """The merge of every candidate, by its title."""
        names, found = merging_candidates(self.task), merging(self.task, self.accounts)
        return dict(zip(names, found, strict=True))

    @cached_property
    def _served(self) -> list[TaskInput]:
        """The tasks in which an update releases something else, this one first."""
        sharing = self.accounts.source.sharing(self.task.name)
        others = [one for one in self.accounts.source.tasks if one.name in sharing[1:]]
        return [self.task, *others]

    @cached_property
    def _chosen(self) -> str:
        return next((one.name for one in self.task.systems if one.chosen), "")

    @cached_property
    def _workers(self) -> int:
        comb = self.accounts.standing.get(combined_training(self.task))
        return workers_of([comb, *self._set_up, *self.trainings.values()])

    def _tests(self, title: str, task: TaskInput) -> list[Interval | None]:
        """The scores of a system on a task's test."""
        found = {
            (step.system.title, step.language): one
            for step, one in self.accounts.of(task.name, "evaluate").items()
            if step.split == "test" and not step.role
        }
        judged = [
            one
            for step, one in self.accounts.of(task.name, "judge").items()
            if step.split == "test" and step.system.title == title
        ]
        return [*(found.get((title, one)) for one in task.languages), *judged]

    def _choosing(self) -> list[Interval | None]:
        """What choosing anew takes: of tasks that share an adapter the dev of each decides."""
        work = [one for task in self._served for one in choosing(task, self.accounts)]
        missing = [None for one in work if one is None]
        return [*missing, *{one.id: one for one in work if one}.values()]

    def _row(self, trained: Interval | None, scope: Scope) -> ScopeRow:
        update, retrained = self._update(trained, scope), self._retrained(scope)
        ours, theirs = update.taken, retrained.taken
        return {
            "scope": scope,
            "update": figures(ours),
            "update_is": update.origin if ours else None,
            "combined": figures(theirs),
            "combined_is": retrained.origin if theirs else None,
            "savings": savings(ours, theirs),
            "savings_interval": self._interval(update, retrained),
            "saved_at_best": saved(ours.elapsed, self._at_best(theirs))
            if ours and theirs
            else None,
        }

    def _update(self, trained: Interval | None, scope: Scope) -> Side:
        """One language trained again, the merge made again, and what else is in the scope."""
        if trained is None or not self._merges:
            return Side(None, "derived")
        merges = [self._merges.get(self._chosen)]
        then: list[Sequence[Interval | None]] = []
        if scope == "choosing":
            merges = list(self._merges.values())
            then.append(self._choosing())
        if scope != "training":
            served = [self._tests(self._chosen, one) for one in self._served]
            then.append([one for some in served for one in some])
        stages: list[Sequence[Interval | None]] = [[trained], merges, *then]
        return self._in_stages(stages, trained, self._served)

    def _retrained(self, scope: Scope) -> Side:
        """COMB trained again and, in the wider scopes, scored on test."""
        comb = in_training(self.accounts, combined_training(self.task))
        tests = self._tests(COMB.title, self.task)
        tested = all(tests)
        stages: list[Sequence[Interval | None]] = [[comb]]
        if comb is None:  # the same rows pass the model, one language after the other
            other_rows = self.task.branches is not None and not self.task.joint
            stages = [[None]] if other_rows else [[one] for one in self._set_up]
        if scope != "training":
            stages.append(tests if tested else self._tests(self._chosen, self.task))
        side = self._in_stages(stages, comb, [self.task])
        is_older = bool(self.task.changed_since)  # it would see other rows, were it trained again
        guessed = comb is None or is_older or (scope != "training" and not tested)
        return replace(side, origin="estimated") if guessed else side

    def _in_stages(
        self,
        stages: Sequence[Sequence[Interval | None]],
        trained: Interval | None,
        tasks: Sequence[TaskInput],
    ) -> Side:
        """One stage after the other, whatever this ledger's order was, and loading before them;
        `tasks` are those whose adapters the work depends on.
        """
        work = [one for stage in stages for one in stage]
        taken = self.accounts.taken(work)  # nothing of nothing
        known = [one for one in work if one]
        if taken is None or len(known) < len(work):
            return Side(None, "derived")
        elapsed = sum((self._seconds(stage) for stage in stages), Decimal(0))
        workers = self._loading(known)
        together = Taken(elapsed, taken.machine, taken.cost, taken.steps).plus(self._loads(workers))
        origin: Origin = "measured" if self._was_done(known, trained, tasks) else "derived"
        parts = [self._parts(stage) for stage in stages]
        machine = {one.id: float(self._machine(one)) for one in known}
        each = 1 / max(1, len(self._loaded))
        return Side(
            together,
            origin,
            {one.id: float(one.seconds) * each for one in self._loaded}
            | {one: seconds for stage in parts for one, seconds in stage.items()},
            {one.id: float(one.machine_seconds) * each * workers for one in self._loaded} | machine,
        )

    def _loading(self, work: Sequence[Interval]) -> int:
        """How many workers load the model for a training and what is scored after it."""
        scored = sum(float(one.seconds) for one in work if one.kind in ("evaluate", "judge"))
        return loading(scored, self._workers, float(self._loads(1).elapsed))

    def _parts(self, stage: Sequence[Interval | None]) -> Parts:
        """Of the seconds of a stage what each of its steps takes up."""
        each = {one.id: float(self._machine(one)) for one in stage if one}
        whole = sum(each.values())
        scale = float(self._seconds(stage)) / whole if whole else 0.0
        return {one: seconds * scale for one, seconds in each.items()}

    def _machine(self, one: Interval) -> Decimal:
        return total(self.accounts.whole(one))[0]

    def _seconds(self, stage: Sequence[Interval | None]) -> Decimal:
        return covered(attempt for one in stage if one for attempt in self.accounts.whole(one))

    def _was_done(
        self, work: Sequence[Interval], trained: Interval | None, tasks: Sequence[TaskInput]
    ) -> bool:
        """Whether one run did all of this and made no other training of these tasks."""
        runs, names = {one.run for one in work}, {one.name for one in tasks}
        current = self.accounts.source.current.items()  # equal tasks have each other's
        theirs = {one for step, one in current if step.kind == "train" and step.task in names}
        made = {
            one.artifact
            for one in self.accounts.source.intervals
            if one.run in runs
            and one.kind == "train"
            and (one.address.task in names or one.artifact in theirs)
        }
        tries = self.accounts.source.tries.get(trained.artifact, ()) if trained else ()
        return len(runs) == 1 and trained is not None and made - {*tries} == {trained.artifact}

    @cached_property
    def _loaded(self) -> list[Interval]:
        intervals = self.accounts.source.intervals
        return [one for one in intervals if (one.kind, one.status) == (LOAD, "done")]

    def _loads(self, workers: int) -> Taken:
        """So many workers load the model at once."""
        loads = self._loaded
        taken = self.accounts.taken(loads)
        if taken is None:
            return Taken(Decimal(0), Decimal(0), Decimal(0), 0)
        each = Decimal(workers) / len(loads)
        seconds = sum((one.seconds for one in loads), Decimal(0)) / len(loads)
        cost = None if taken.cost is None else taken.cost * each
        return Taken(seconds, taken.machine * each, cost, 0)

    def _interval(self, update: Side, retrained: Side) -> SavingsInterval:
        """How far off the savings may be by how much seconds vary here."""
        if update.taken is None or retrained.taken is None:
            return {"elapsed": None, "machine": None, "cost": None}
        machine = self.variation.less(update.machine, retrained.machine)
        known = update.taken.cost is not None and retrained.taken.cost is not None
        return {
            "elapsed": self.variation.less(update.elapsed, retrained.elapsed),
            "machine": machine,
            "cost": machine if known else None,
        }

    def _at_best(self, combined: Taken | None) -> Decimal | None:
        """COMB trained by all workers at once, as if they were that many times as fast."""
        trained = self._retrained("training").taken
        if combined is None or trained is None:
            return None
        one_load = self._loads(1).elapsed
        alone = trained.elapsed - one_load
        return combined.elapsed - alone + alone / self._workers

    def _break_even(self, setup: Taken | None, scope: Scope) -> BreakEvens:
        updates = [self._update(one, scope).taken for one in self.trainings.values()]
        combined, known = self._retrained(scope).taken, [one for one in updates if one]
        if not (setup and combined and known) or len(known) < len(updates):
            return {"elapsed": None, "machine": None, "cost": None}
        needed = min(self._workers, len(self._set_up)) if scope == "training" else self._workers
        setup = setup.plus(self._loads(needed))  # one training needs one worker
        elapsed, machine, cost = (
            _mean([getattr(one, name) for one in known]) for name in ("elapsed", "machine", "cost")
        )
        return {
            "elapsed": break_even(setup.elapsed, combined.elapsed, elapsed),
            "machine": break_even(setup.machine, combined.machine, machine),
            "cost": break_even(setup.cost, combined.cost, cost),
        }


def _mean(values: Sequence[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return sum(known, Decimal(0)) / len(known) if len(known) == len(values) else None

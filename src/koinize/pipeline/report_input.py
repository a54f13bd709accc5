"""What the present artifacts say: the report's input, gathered from store and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from koinize import __version__, report
from koinize.adapter import read_header
from koinize.digest import short
from koinize.errors import InputError
from koinize.ledger import Ledger, first_stated
from koinize.ledger.address import COMB_ROLES, SEARCH, System
from koinize.model import quantized
from koinize.pipeline.endings import bad_ends, equal_seeds, repeated
from koinize.pipeline.interference import interference
from koinize.pipeline.judging import thresholds
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.lineage import ancestors
from koinize.pipeline.project import Project
from koinize.pipeline.results import TEST, Results, kept_recipes
from koinize.pipeline.searching import exploring_found, halving_found, scale_found
from koinize.pipeline.step import Step
from koinize.pipeline.systems import (
    BASE,
    COMB,
    COMB_CONTINUED,
    INDV,
    MEAN,
    PAPER,
    SINGLE,
    TRUNK,
    only,
    system_of,
)
from koinize.pipeline.tries import others_of
from koinize.pipeline.wording import unfair_combs
from koinize.report import Evaluation, ReportInput, SystemKind, TaskInput

SYSTEM_KINDS: dict[System, SystemKind] = {BASE: "base", INDV: "individual", COMB: "combined"}


def gather(project: Project) -> ReportInput:
    """Everything the report needs. Raises InputError while steps are missing."""
    present = project.store.ids()
    absent = [step.name for step in project.steps if step.id not in present]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(project.steps)} steps are missing, first '{absent[0]}'",
            remedy="run `koinize run` first",
        )
    spec = project.spec
    return ReportInput(
        project=spec.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        spec=spec.model_dump(mode="json"),
        price=spec.price.record() if spec.price else None,
        tasks=[_Gatherer(Results(project, name)).task() for name in spec.tasks],
        intervals=project.intervals(),
        current={step.address: step.id for step in project.steps},
        notes=[
            *project.inputs.findings,
            *([quantized.in_words(spec.base.dtype)] if spec.training.load_in_4bit else []),
            *_lineage(project),
            *kept_recipes(project),
            *_searches(project),
            *thresholds(project.spec, project.store, project.steps),
            *bad_ends(project),
            *repeated(project),
            *_odd_adapters(project),
            *equal_seeds(project),
        ],
        tries={
            one: [other.id for other in others] for one, others in others_of(project.steps).items()
        },
        continued={
            step.address: list(ancestors(step, project.store))
            for step in project.steps
            if step.uses.parent
        },
        tones={name: kind.tone for name, kind in KINDS.items()},
    )


def _lineage(project: Project) -> Iterator[str]:
    """What a reader must know of how the adapters came about."""
    for step in (one for one in project.steps if one.stands and not one.seed):
        if step.stale and step.address.role == COMB_ROLES[0]:
            yield next(unfair_combs([step]), "") or (
                f"{step.task}: COMB is the one trained before {', '.join(step.stale)} changed; "
                "`koinize run --retrain-comb` trains it again"
            )
        if step.address.role == "branch":
            yield f"{step.name}: {step.language} left the trunk, which saw other rows of it or none"
        if step.uses.parent:
            updates = project.store.open(step.id).facts["updates"]
            times = "once" if updates == 1 else f"{updates} times"
            yield f"{step.name} was continued {times} since it was trained from the base"


def _searches(project: Project) -> Iterator[str]:
    """What halving came to, and what became of every candidate's scale that was searched."""
    decisions = [step for step in project.steps if step.kind == SEARCH]
    facts = {step.id: project.store.open(step.id).facts for step in decisions}
    for task in project.spec.tasks:
        asked = [
            facts[one.id] for one in decisions if one.task == task and "explore" in one.settings
        ]
        if asked:
            yield f"{task}: {exploring_found(asked)}"
        rungs = [facts[one.id] for one in decisions if one.task == task and "rung" in one.settings]
        if rungs:
            yield f"{task}: {halving_found(rungs)}"
    for step in decisions:
        if facts[step.id].get("found") is not None:
            yield f"{step.task}: {step.system.title}: {scale_found(facts[step.id])}"


def _odd_adapters(project: Project) -> Iterator[str]:
    """What was noticed when an adapter was taken over or merged."""
    for step in project.steps:
        facts = project.store.open(step.id).facts
        if step.kind == "import":
            yield from (f"{step.name} {warning}" for warning in facts.get("warnings", ()))
        elif (
            step.kind == "merge"
            and not step.seed
            and step.system == Results(project, step.task).chosen()
        ):
            yield from (f"{step.task}: {warning}" for warning in facts.get("odd adapters", ()))


class _Gatherer:
    """The results of one task, as the report takes them."""

    def __init__(self, results: Results) -> None:
        self.results, self.name = results, results.task
        self.project, self.spec = results.project, results.project.spec

    def task(self) -> TaskInput:
        definition = self.results.definition
        return TaskInput(
            name=self.name,
            kind=definition.kind,
            metrics=definition.metrics,
            labels=definition.label_set,
            label_texts=definition.label_texts,
            languages=self.spec.languages,
            margins=self.results.margins,
            reference=COMB.title,
            changed_since=next(
                (one.stale for one in self.results.steps if one.address.role == COMB_ROLES[0]), ()
            ),
            systems=list(self._systems()),
            evaluations=list(self._evaluations()),
            interference=self._interference(),
            halved=self._halved(),
            branches=self._branches(),
            judges=self.project.judging.of_task(self.name),
            joint=self.spec.training.trunk == "joint",
            repeated=[
                replace(self._evaluation(step, step.system), seed=int(step.seed))
                for step in self.results.repeated
            ],
            stated=first_stated(Ledger(self.project.files.ledger).records(), self.name),
        )

    def _interference(self) -> report.Inspection | None:
        """Of what the candidates are made of."""
        made = self.results.made(self.results.chosen()).uses
        store, home = self.project.store, self.project.home
        return interference(store, home, self.name, dict(made.adapters), made.trunk)

    def _halved(self) -> int:
        """The number of candidates that halving began with; 0 without it."""
        asked = (one for one in self.results.steps if one.kind == SEARCH and "rung" in one.settings)
        first = next(asked, None)
        return len(set(first.settings["rung"]["candidates"].values())) if first else 0

    def _branches(self) -> tuple[str, ...] | None:
        """The languages that left the trunk; None without one."""
        if not self.spec.training.has_trunk:
            return None
        branches = (
            one for one in self.results.steps if one.address.role == "branch" and one.stands
        )
        return tuple(one.language for one in branches)

    def _systems(self) -> Iterator[report.System]:
        ranks = {INDV: self._rank(*self.spec.languages), COMB: self._rank()}
        for baseline, system in (("base", BASE), ("indv", INDV), ("comb", COMB)):
            if baseline in self.spec.baselines:
                yield report.System(system.title, SYSTEM_KINDS[system], rank=ranks.get(system))
        if "single" in self.spec.baselines:
            best = self.results.chosen("single")
            owner = next(one for one in self.spec.languages if only(one) == best)
            rank = self._rank(owner)
            yield report.System(SINGLE.title, "single", {"adapter": owner}, rank=rank)
        if "comb-continued" in self.spec.baselines:
            trained = any(step.system == COMB_CONTINUED for step in self.results.steps)
            same_as = None if trained else COMB.title
            yield report.System(
                COMB_CONTINUED.title, "combined", same_as=same_as, rank=self._rank()
            )
        for role, system in (("mean", MEAN), ("paper", PAPER)):
            if role in self.spec.baselines:
                yield self._merged(system.title, "mean", self.results.chosen(role), role=role)
        yield from self._candidates()
        if "cross" in self.spec.baselines:
            for language in self.spec.languages:
                yield report.System(only(language).title, "cross", rank=self._rank(language))

    def _rank(self, *languages: str) -> int:
        """The largest of these languages' own adapters; without any, that of all together."""
        return max(map(self._own_rank, languages), default=self.spec.lora.of("").r)

    def _own_rank(self, language: str) -> int:
        if path := self.spec.adapters.get(self.name, {}).get(language):  # trained elsewhere
            header = read_header(self.project.root / path)
            return max(one.rank for one in header.modules.values())
        return self.spec.lora.of(language).r

    def _candidates(self) -> Iterator[report.System]:
        """The trunk, where there is one, and the merges that the release is chosen among."""
        chosen = self.results.chosen()
        if self.spec.training.has_trunk:
            kind: SystemKind = "candidate" if chosen == TRUNK else "combined"
            same_as = COMB.title if self._is_comb(TRUNK) else None
            yield report.System(
                TRUNK.title, kind, chosen=chosen == TRUNK, same_as=same_as, rank=self.spec.lora.r
            )
        if chosen == TRUNK:
            return
        for settings in self.results.candidates:
            system = self.results.merges[system_of(settings)].system
            name = settings.describe()
            yield self._merged(name, "candidate", system, chosen=system == chosen)

    def _is_comb(self, system: System) -> bool:
        """Whether it is the same adapter, so that every test row has one answer of both."""
        ours, theirs = (self.results.of_split(one, TEST) for one in (system, COMB))
        return bool(ours) and {step.id for step in ours.values()} == {
            step.id for step in theirs.values()
        }

    def _merged(
        self, name: str, kind: SystemKind, system: System, *, chosen: bool = False, role: str = ""
    ) -> report.System:
        """`name` is another than the system's where other settings define the same merge; `role` is
        that of the choice that a baseline is.
        """
        step = self.results.made(system, role)
        facts = self.results.open(step).facts
        settings = step.merge.model_dump(mode="json", exclude_defaults=True) if step.merge else {}
        again = kind == "candidate" and name != system.title
        return report.System(
            name,
            kind,
            settings,
            chosen=chosen and not again,
            same_as=system.title if again else None,
            rank=facts["rank"],
            truncation_error=facts["truncation_error"],
            made=step.address if step.kind == "merge" else None,
        )

    def _evaluations(self) -> Iterator[Evaluation]:
        for (system, language, _), step in self.results.evaluations.items():
            yield self._evaluation(step, system)
            if system == INDV and "cross" in self.spec.baselines:
                yield self._evaluation(step, only(language))

    def _evaluation(self, step: Step, system: System) -> Evaluation:
        parts = self.results.open(step).inputs
        # Of one that is kept the inputs have the adapter, too, which is what is compared.
        labels = sorted(set(step.inputs) - {"adapter", "choice"})
        signature = "|".join(f"{label}:{short(parts[label])}" for label in labels)
        rows = self.results.rows(step)
        return Evaluation(self.name, system.title, step.language, step.split, rows, signature)

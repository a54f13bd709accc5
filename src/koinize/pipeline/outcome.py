"""What the present artifacts say: the report's input, gathered from store and ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from koinize import __version__
from koinize.digest import short
from koinize.errors import InputError
from koinize.metrics import metrics
from koinize.pipeline.graph import BASE, COMB, COMB_CONTINUED, INDV, MEAN, distinct, labels_of, only
from koinize.pipeline.interference import interference
from koinize.pipeline.project import Project
from koinize.pipeline.step import PARENT, Step
from koinize.pipeline.update import ancestors
from koinize.pipeline.work import read_result_rows
from koinize.report import Evaluation, ReportInput, System, SystemKind, TaskInput
from koinize.store import Artifact

LABEL_MARGIN, TEXT_MARGIN = 2.0, 1.0
MARGINS = {
    # Points that a language may lose, unless koinize.yaml says otherwise.
    **dict.fromkeys(metrics.names(), LABEL_MARGIN),
    **dict.fromkeys(("rouge-1", "rouge-2", "rouge-l", "chrf"), TEXT_MARGIN),
}
KINDS: dict[str, SystemKind] = {BASE: "base", INDV: "individual", COMB: "combined"}


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
        tasks=[_Gatherer(project, name).task() for name in spec.tasks],
        intervals=project.intervals(),
        current={step.name: step.id for step in project.steps},
        notes=[*project.inputs.findings, *_lineage(project)],
        continued={
            step.name: list(ancestors(step, project.store))
            for step in project.steps
            if PARENT in step.uses
        },
    )


def _lineage(project: Project) -> Iterator[str]:
    """What a reader must know of how the adapters came about."""
    for step in project.steps:
        if step.stale:
            yield (
                f"{step.task}: COMB is the one trained before {', '.join(step.stale)} changed; "
                "`koinize run --retrain-comb` trains it again"
            )
        if PARENT in step.uses:
            updates = project.store.open(step.id).facts["updates"]
            times = "once" if updates == 1 else f"{updates} times"
            yield f"{step.name} was continued {times} since it was trained from the base"


class _Gatherer:
    """The results of one task."""

    def __init__(self, project: Project, name: str) -> None:
        self.project, self.name = project, name
        self.spec = project.spec
        self.definition = project.spec.tasks[name]
        self.steps = [step for step in project.steps if step.task == name]
        self.artifacts = {step.name: project.store.open(step.id) for step in self.steps}

    def task(self) -> TaskInput:
        return TaskInput(
            name=self.name,
            kind=self.definition.kind,
            metrics=self.definition.metrics,
            labels=labels_of(self.definition),
            languages=self.spec.languages,
            margins={**MARGINS, **self.spec.margins, **self.definition.margins},
            reference=COMB,
            systems=list(self._systems()),
            evaluations=list(self._evaluations()),
            interference=interference(
                self.project.store, self.project.home, self.name, self._adapters()
            ),
        )

    def _adapters(self) -> Mapping[str, str]:
        """The ids of what the merges are made of, by language."""
        return next((step.uses for step in self.steps if step.kind == "merge"), {})

    def _choice(self, suffix: str = "") -> str:
        chosen: str = self.artifacts[f"select/{self.name}{suffix}"].facts["chosen"]
        return chosen

    def _systems(self) -> Iterator[System]:
        for baseline, system in (("base", BASE), ("indv", INDV), ("comb", COMB)):
            if baseline in self.spec.baselines:
                yield System(system, KINDS[system])
        if "comb-continued" in self.spec.baselines:
            trained = any(step.system == COMB_CONTINUED for step in self.steps)
            yield System(COMB_CONTINUED, "combined", same_as=None if trained else COMB)
        if "mean" in self.spec.baselines:
            yield self._merged(MEAN, "mean", self._choice("/mean"), None, chosen=False)
        for name, first in distinct(self.spec.merge.settings).items():
            same_as = first.describe() if first.describe() != name else None
            chosen = self._choice() == name
            yield self._merged(name, "candidate", first.describe(), same_as, chosen=chosen)
        if "cross" in self.spec.baselines:
            for language in self.spec.languages:
                yield System(only(language), "cross")

    def _merged(
        self, name: str, kind: SystemKind, merge: str, same_as: str | None, *, chosen: bool
    ) -> System:
        step = next(one for one in self.steps if one.kind == "merge" and one.system == merge)
        facts = self.artifacts[step.name].facts
        settings = step.merge.model_dump(mode="json", exclude_defaults=True) if step.merge else {}
        return System(
            name,
            kind,
            settings,
            chosen=chosen,
            same_as=same_as,
            rank=facts["rank"],
            truncation_error=facts["truncation_error"],
        )

    def _evaluations(self) -> Iterator[Evaluation]:
        for step in self.steps:
            if step.kind != "evaluate":
                continue
            artifact = self.artifacts[step.name]
            yield self._evaluation(step, artifact, step.system)
            if step.system == INDV and "cross" in self.spec.baselines:
                yield self._evaluation(step, artifact, only(step.languages[0]))

    def _evaluation(self, step: Step, artifact: Artifact, system: str) -> Evaluation:
        parts = artifact.inputs
        signature = "|".join(f"{label}:{short(parts[label])}" for label in sorted(step.inputs))
        rows = read_result_rows(artifact)
        return Evaluation(self.name, system, step.languages[0], step.split, rows, signature)

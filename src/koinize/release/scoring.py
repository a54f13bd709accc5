"""Score a release on the test rows of today: the rows that came after it was made.

The evaluation is a step of the pipeline like any other: it has the identity that an evaluation of
the same adapter on the same rows always has, so what was done before is not done again, and its
time is in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from koinize.adapter import files_digest
from koinize.errors import StepError
from koinize.ledger.address import RELEASE, Address, System
from koinize.metrics import JudgedMetric
from koinize.pipeline import Plan, Project, Step, Watcher
from koinize.pipeline.step import Uses
from koinize.release.archive import Release
from koinize.release.candidate import Candidate, answered_alike
from koinize.release.judge import Reference, incumbent_rows
from koinize.release.pairs import Rows, pair_up
from koinize.spec import Spec

Approve = Callable[[Plan], None]


def reference(project: Project, ours: Candidate, release: Release) -> Reference:
    """A release with its answers: to the rows of today where it was scored on them, else to those
    of its own day.
    """
    present = project.store.ids()
    rows: dict[str, Rows] = dict(incumbent_rows(release))
    for language, step in _evaluations(project, ours, release).items():
        if {step.id, *(one.id for one in project.judging.steps(step))} <= present:
            rows[language] = project.rows(step)
    return Reference(release, rows)


def score(
    project: Project, ours: Candidate, theirs: Reference, watcher: Watcher, approve: Approve
) -> Reference:
    """Let a release answer what it has not answered; the caller holds the project's lock.

    `approve` sees the plan first and may raise to refuse it. Raises StepError when an evaluation
    fails.
    """
    asked = _missing(project, ours, theirs)
    if not asked:
        return theirs
    knowing = replace(project, spec=_with_release(project, theirs.release))
    _, outcome = knowing.do(watcher, approve, asked)
    if outcome.failed:
        raise StepError("\n".join(outcome.failed.values()))
    return reference(project, ours, theirs.release)


def _missing(project: Project, ours: Candidate, theirs: Reference) -> list[Step]:
    """The evaluations that are missing; none when another base model was released, which this
    project no longer runs.
    """
    wanted, present = _unanswered(ours, theirs), project.store.ids()
    steps = [
        one
        for language, step in _evaluations(project, ours, theirs.release).items()
        for one in (step, *project.judging.steps(step))
        if language in wanted and one.id not in present
    ]
    answers = any(one.kind == "evaluate" for one in steps)
    if answers and theirs.release.record["adapter"] not in present:
        steps.insert(0, _import(project, theirs.release))
    return steps


def _unanswered(ours: Candidate, theirs: Reference) -> set[str]:
    """The languages with rows that the release never saw, or saw under other settings."""
    before = theirs.release.record["settings"]
    if not answered_alike(before["evaluation"], ours.settings["evaluation"]):
        return set(theirs.rows)
    pairs = pair_up(ours, theirs.rows)
    unjudged = {one for one, rows in theirs.rows.items() if not is_judged(ours, rows)}
    return {
        one
        for one, pair in pairs.items()
        if one in unjudged or pair.overlap.new or pair.overlap.changed
    }


def is_judged(ours: Candidate, rows: Rows) -> bool:
    """Whether the rows have the scores of today's judges."""
    judged = [one for one in ours.metrics.values() if isinstance(one, JudgedMetric)]
    return all(metric.has(row) for metric in judged for row in rows)


def _evaluations(project: Project, ours: Candidate, release: Release) -> dict[str, Step]:
    """The steps that score a release on the test rows of today, by language."""
    if release.record["settings"]["base"] != ours.settings["base"]:
        return {}
    adapter = release.record["adapter"]
    if adapter not in project.store.ids():
        adapter = _import(project, release).id
    return {
        language: replace(
            ours.tests[language].at(system=System.named(release.name)),
            uses=Uses(adapter=adapter),
            after=(),
        )
        for language in ours.rows
        if language in release.record["languages"]
    }


def _import(project: Project, release: Release) -> Step:
    """The release's own folder as an adapter that was trained elsewhere, should the store have lost
    the merge; `Releases.open` has checked its bytes.
    """
    base = next(step for step in project.steps if step.kind == "base")
    task = release.record["task"]
    return Step(
        Address("import", task, language=release.name, role=RELEASE),
        inputs={"adapter files": files_digest(release.folder), "base": base.inputs["base"]},
        languages=(release.name,),
        sort=task,
    )


def _with_release(project: Project, release: Release) -> Spec:
    """The specification as if it named the release's folder among the adapters to import."""
    task, folders = release.record["task"], project.spec.adapters
    named = {**folders.get(task, {}), release.name: str(release.folder.resolve())}
    return project.spec.model_copy(update={"adapters": {**folders, task: named}})

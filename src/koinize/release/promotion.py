"""Promote and roll back: the only two ways in which what is in use changes; and the anchor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from koinize import __version__, machine
from koinize.data import read_rows
from koinize.digest import digest, short
from koinize.engine.card import front_matter
from koinize.errors import GateError, InputError, KoinizeError, did_you_mean
from koinize.ledger import GATE, Ledger
from koinize.metrics import Score, score
from koinize.pipeline import Project, Watcher
from koinize.pipeline.nodes import pricing
from koinize.pipeline.run import locked
from koinize.release import scoring
from koinize.release.archive import Channel, Release, Releases, now
from koinize.release.attempts import Attempt, Attempts
from koinize.release.candidate import Candidate, candidate
from koinize.release.judge import (
    Judgement,
    Lost,
    Reference,
    comparison_identity,
    judge,
    rows_file,
)
from koinize.release.pairs import pair_up
from koinize.release.text import aligned, refusal, tables
from koinize.shown import code
from koinize.tasks import Example

EVIDENCE = "evidence/evidence.json"
TEMPLATE = "evidence/chat_template.jinja"
CARD = "README.md"


Serve = Callable[[Release, Release | None], AbstractContextManager[None]]
"""Lets a server serve a release in the place of another one, None for none: for good if the block
raises nothing. It is entered before a channel is switched, and may refuse that by raising."""


def not_served(_: Release, __: Release | None) -> AbstractContextManager[None]:
    """No server follows this channel (a `Serve`)."""
    return nullcontext()


@dataclass(frozen=True)
class Promotion:
    """What became of a candidate: `release` is None when it was refused; `switched` is False when
    the channel already had it in use.
    """

    task: str
    channel: str
    judgement: Judgement
    release: Release | None
    switched: bool

    def refuse(self) -> None:
        """Raise GateError, with the table and the worst examples, when it was refused."""
        if self.release is None:
            raise GateError(refusal(self.task, self.channel, self.judgement))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "task": self.task,
            "channel": self.channel,
            "release": self.release.name if self.release else None,
            "folder": str(self.release.folder) if self.release else None,
            "switched": self.switched,
            **self.judgement.to_dict(),
            "passes": self.release is not None,  # also what is in use already, untested
        }


def task_of(project: Project, name: str | None) -> str:
    """The task that is meant: the named one, or the only one. Raises InputError."""
    tasks = project.spec.tasks
    if name is None and len(tasks) == 1:
        return next(iter(tasks))
    if name is None:
        raise InputError(
            f"the project has {len(tasks)} tasks",
            expected=f"--task with one of: {', '.join(sorted(tasks))}",
        )
    if name not in tasks:
        raise InputError(f"unknown task '{name}'", remedy=did_you_mean(name, tasks))
    return name


def promote(
    project: Project,
    task: str,
    channel: str,
    watcher: Watcher | None = None,
    approve: scoring.Approve = lambda _: None,
    serve: Serve = not_served,
) -> Promotion:
    """Judge the candidate against what the channel has in use, and switch if it passes and a server
    that has to `serve` it does.

    With a watcher the release in use first answers the test rows that came after it, once `approve`
    has seen the estimate and raised nothing; without one, only rows that both answered are
    compared. Holds the project's lock. Killed at any moment, the channel points to the old release
    or to the new one, and both are whole. Raises InputError when there is no candidate or another
    koinize works here, StepError when the scoring fails, KoinizeError when something that has to be
    read is broken.
    """
    releases = Releases(project.home, task)
    releases.channel(channel)  # an unknown one is refused before anything is touched
    with locked(project.home):
        ours = candidate(project, task)
        pointer = releases.channel(channel)
        incumbent = releases.open(pointer.current) if pointer.current else None
        if incumbent and incumbent.record["candidate"] == ours.identity:
            kept = Judgement(incumbent.version, notes=(f"{incumbent.name} is in use already",))
            with serve(incumbent, incumbent):
                pass
            return Promotion(task, channel, kept, incumbent, switched=False)
        theirs = scoring.reference(project, ours, incumbent) if incumbent else None
        if theirs and watcher:
            theirs = scoring.score(project, ours, theirs, watcher, approve)
        test = _Test(project, releases, pointer, ours, theirs)
        judgement = test.judgement()
        if not judgement.passes:
            shown = replace(judgement, lost=tuple(_with_prompts(project, task, judgement.lost)))
            return Promotion(task, channel, shown, None, switched=False)
        release = _release(test, judgement)
        _switch(releases, pointer.promoted(release.version), serve(release, incumbent))
        return Promotion(task, channel, judgement, release, switched=True)


class _Test:
    """One attempt to replace what a channel has in use."""

    def __init__(
        self,
        project: Project,
        releases: Releases,
        pointer: Channel,
        ours: Candidate,
        theirs: Reference | None,
    ) -> None:
        self.project, self.releases, self.pointer = project, releases, pointer
        self.ours, self.theirs = ours, theirs
        self.pairs = pair_up(ours, theirs.rows) if theirs else {}
        self.identity = comparison_identity(ours, theirs, self.pairs) if theirs else ""
        known = theirs.release.record.get("attempts", 0) if theirs else 0
        self.attempts = Attempts(project.home, ours.task, known)

    def judgement(self) -> Judgement:
        """Compare, and record the attempt before anybody learns how it ended."""
        if self.theirs is None:
            return judge(self.ours, None, {}, None, None)
        release = self.theirs.release
        trial = self.attempts.trial(self.identity, release.record["adapter"])
        device = machine.device()
        with Ledger(self.project.files.ledger).recording(
            f"gate/{self.ours.task}",
            kind=GATE,
            device=device,
            price=pricing(self.project.spec)(device),
            artifact=self.ours.adapter.id,
        ) as work:
            work.units = sum(pair.overlap.common for pair in self.pairs.values())
            found = judge(self.ours, self.theirs, self.pairs, trial, self._anchor())
            if found.gated and not found.unmatched:  # else nothing was put to the test
                work.attempt = self.attempts.line(
                    Attempt(
                        utc=now(),
                        channel=self.pointer.name,
                        identity=self.identity,
                        candidate=self.ours.adapter.id,
                        incumbent=release.version,
                        reference=release.record["adapter"],
                        trial=trial.number,
                        level=trial.level,
                        p_value=found.p_value,
                        passed=found.passes,
                        margins=self.ours.gated_margins,
                    )
                )
        return found

    def _anchor(self) -> Reference | None:
        """The release that drift is measured from; None when that is the one in use, or its answers
        were not judged by today's models.
        """
        version = self.pointer.anchor
        if version is None or version == self.pointer.current:
            return None
        found = scoring.reference(self.project, self.ours, self.releases.open(version))
        judged = all(scoring.is_judged(self.ours, rows) for rows in found.rows.values())
        return found if judged else None


def anchor(project: Project, task: str, channel: str, version: int) -> Channel:
    """Measure drift from this release from now on, verified first. Holds the project's lock.

    Raises InputError when there is no such release.
    """
    releases = Releases(project.home, task)
    releases.channel(channel)
    with locked(project.home):
        releases.open(version)
        pinned = releases.channel(channel).anchored(version)
        releases.switch(pinned)
        return pinned


def rollback(project: Project, task: str, channel: str, serve: Serve = not_served) -> Channel:
    """Put the release before into use again, verified first, once a server that has to `serve` it
    does. Holds the project's lock.

    Raises InputError when there is none before.
    """
    releases = Releases(project.home, task)
    releases.channel(channel)
    with locked(project.home):
        pointer = releases.channel(channel)
        if len(pointer.stack) < 2:
            now = f"v{pointer.current} is its first" if pointer.current else "it has none"
            raise InputError(
                f"channel '{channel}' of task '{task}' has no release to go back to: {now}",
                remedy="`koinize history` shows what was promoted",
            )
        moved = pointer.rolled_back()
        before, now_in_use = releases.open(moved.stack[-1]), _in_use(releases, pointer)
        _switch(releases, moved, serve(before, now_in_use))
        return moved


def _switch(releases: Releases, channel: Channel, served: AbstractContextManager[None]) -> None:
    """Both or neither: who stops this while the channel is written is heard when all is done."""
    with machine.stoppable(), ExitStack() as after, served:
        after.enter_context(machine.undisturbed())
        releases.switch(channel)


def _in_use(releases: Releases, pointer: Channel) -> Release | None:
    """The release that a rollback leaves behind, which may be broken: that is no reason to stay."""
    with suppress(KoinizeError):
        return releases.open(pointer.stack[-1])
    return None


def _with_prompts(project: Project, task: str, lost: Iterable[Lost]) -> Iterator[Lost]:
    """With the prompt, and the text of an option where its label is only a number."""
    definition = project.spec.tasks[task]
    examples: dict[str, dict[str, Example]] = {}
    for one in lost:
        if one.language not in examples:
            rows = read_rows(definition.source(one.language, "test"), project.root)
            found = definition.examples(rows, one.language)
            examples[one.language] = {example.key: example for example in found}
        example = examples[one.language].get(one.key)
        yield _told(one, example) if example else one


def _told(one: Lost, example: Example) -> Lost:
    options = {
        label: f"{label}: {option.strip()}"
        for label, option in zip(example.labels, example.options, strict=True)
        if label.isdecimal()
    }
    truth, before, after = (
        options.get(text, text) for text in (one.truth, one.incumbent, one.candidate)
    )
    return replace(one, prompt=example.prompt, truth=truth, incumbent=before, candidate=after)


def _release(test: _Test, judgement: Judgement) -> Release:
    """The release of this candidate for this channel: made now, or by whoever was killed before
    the channel was switched, or before a rollback.
    """
    releases, ours, pointer = test.releases, test.ours, test.pointer
    identity = digest([ours.identity, pointer.name, judgement.incumbent, test.identity])
    last = max(releases.versions(), default=0)
    for version in {last, *(event.version for event in pointer.events)} - {0}:
        with suppress(KoinizeError):  # a broken or removed one is no reason not to make another
            found = releases.open(version)
            if found.record["identity"] == identity:
                return found
    version = releases.next_version()
    evidence = _evidence(ours, judgement)
    record = {
        "identity": identity,
        "candidate": ours.identity,
        "task": ours.task,
        "channel": pointer.name,
        "created": now(),
        "koinize": __version__,
        "system": ours.system,
        "adapter": ours.adapter.id,
        "languages": sorted(ours.rows),
        "settings": dict(ours.settings),
        "artifacts": dict(ours.artifacts),
        "attempts": len(test.attempts.all()),
        "ledger": asdict(Ledger(test.project.files.ledger).verify()),
    }

    def fill(folder: Path) -> None:
        for name in ours.adapter.files:
            shutil.copyfile(ours.adapter.path(name), folder / name)
        for language, rows in ours.rows.items():
            path = folder / rows_file(language)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_text(text, encoding="utf-8")
        _write_json(folder / EVIDENCE, evidence)
        if template := test.project.template:
            (folder / TEMPLATE).write_text(template, encoding="utf-8")
        with (folder / CARD).open("a", encoding="utf-8") as card:
            if CARD not in ours.adapter.files:  # a trunk, which no merge wrote a card for
                card.write(_front(record))
            card.write(_card(version, record, evidence, judgement))

    return releases.add(version, record, fill)


def _evidence(ours: Candidate, judgement: Judgement) -> dict[str, Any]:
    return {
        "gate": judgement.to_dict(),
        "margins": dict(ours.margins),
        "scores": [
            {"language": language, "metric": name, **score(metric, rows).to_dict()}
            for name, metric in ours.metrics.items()
            for language, rows in ours.rows.items()
        ],
        "data": dict(ours.data),
        "inputs": dict(ours.inputs),
        "cost": dict(ours.cost),
    }


def _front(record: Mapping[str, Any]) -> str:
    """How the card of an adapter begins that is no merge."""
    front = {
        "base_model": record["settings"]["base"]["model"],
        "language": record["languages"],
        "library_name": "peft",
        "tags": ["lora", "koinize"],
    }
    title = f"# One adapter for {', '.join(record['languages'])}, trained on all of them"
    return "\n".join([*front_matter(front), title, ""])


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(
    version: int, record: dict[str, Any], evidence: dict[str, Any], judgement: Judgement
) -> str:
    """What the merge's card cannot know: how it scored, and why it was released."""
    lines = [
        f"# Release v{version} of {record['task']}",
        "",
        f"Promoted to {record['channel']} on {record['created']} (koinize {record['koinize']}), "
        f"adapter `{short(record['adapter'])}`, {code(record['system'])}.",
        "",
        "Scores on test, in points with their 95 % intervals:",
        "",
        "```",
        *aligned(["language", "metric", "score", "interval", "rows"], _score_rows(evidence)),
        "```",
        "",
        *_compared(judgement),
        "",
        f"Everything else is in `{EVIDENCE}` and `evidence/rows/`.",
    ]
    return "\n" + "\n".join(lines) + "\n"


def _score_rows(evidence: dict[str, Any]) -> list[list[str]]:
    rows = []
    for one in evidence["scores"]:
        plain = {key: value for key, value in one.items() if key not in ("language", "metric")}
        found = Score(**plain)
        interval = f"{found.low:.2f} to {found.high:.2f}"
        rows.append([one["language"], one["metric"], f"{found.value:.2f}", interval, str(found.n)])
    return rows


def _compared(judgement: Judgement) -> list[str]:
    notes = [f"- {note}" for note in judgement.notes]
    if not judgement.comparisons:
        return notes
    return ["```", *tables(judgement), "```", "", *notes]

"""A project as Python sees it: every method reads its files as they are when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from koinize import pipeline
from koinize.api import languages
from koinize.api.found import Costs, Results, read
from koinize.api.planned import Plan, planned
from koinize.api.reporting import REPORT, report_results, write_report
from koinize.api.running import Progress, Teller
from koinize.api.server import Server, follower
from koinize.errors import InputError
from koinize.pipeline.editing import Change, append_rows
from koinize.spec import SPEC_FILE, load
from koinize.spec.splice import Value

if TYPE_CHECKING:
    from koinize.export import Exported, Tasks
    from koinize.release import Event, Promotion, Release

Source = str | Mapping[str, str]
"""Where the rows of a language stand: a path with {split}, or one for each of train, dev, test."""


@dataclass(frozen=True)
class LanguageChange:
    """What a change of languages did (or would do): in words, as a diff, and the plan after it.

    `plan` is None where rows would have been added and nothing was written. `trunk_rows` says by
    task how many rows of a removed language a frozen trunk was trained on, and so still holds.
    """

    changes: tuple[str, ...]
    diff: str
    plan: Plan | None
    trunk_rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """One koinize.yaml. `Project.open(folder).plan().run()` is the whole job.

    Every method raises InputError for what it is given and for every mistake in koinize.yaml or the
    data, and KoinizeError where something that has to be read is broken.
    """

    file: Path

    @classmethod
    def open(cls, place: Path | str = ".") -> Project:
        """The project in this folder, or of this koinize.yaml, which is read and checked."""
        file = Path(place) / SPEC_FILE if Path(place).is_dir() else Path(place)
        pipeline.Project.at(file)
        return cls(file)

    @classmethod
    def init(cls, folder: Path | str, example: str = "reviews") -> Project:
        """Write a small project to start from into a new folder: "reviews" or "tiny"."""
        from koinize.examples import write_example

        write_example(example, Path(folder))
        return cls.open(folder)

    @property
    def folder(self) -> Path:
        """Where koinize.yaml lies, and the report."""
        return self.file.parent

    @property
    def languages(self) -> tuple[str, ...]:
        """Its languages, sorted by their codes."""
        return tuple(load(self.file).languages)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its tasks, in the order of koinize.yaml."""
        return tuple(load(self.file).tasks)

    def plan(
        self,
        *,
        retrain_comb: bool = False,
        new_generation: bool = False,
        choose_again: bool = False,
    ) -> Plan:
        """What is missing, why, and what it will cost; nothing is done yet.

        `retrain_comb` trains COMB again where only training rows changed, `new_generation` the
        trunk, and `choose_again` chooses where a recipe would be kept.
        """
        project = pipeline.Project.at(
            self.file,
            retrain_comb=retrain_comb,
            new_generation=new_generation,
            choose_again=choose_again,
        )
        return planned(project, project.plan())

    def results(self) -> Results:
        """Scores, verdicts and costs of what is finished. Raises InputError before a run is."""
        return read(report_results(self._opened))

    def report(self, out: Path | str | None = None) -> Path:
        """Write the report as one HTML file, by default report.html beside koinize.yaml.

        A file that is there is written over only where it is such a report.
        """
        from koinize.report.render import BEGINS
        from koinize.store import replaceable

        path = replaceable(Path(out), BEGINS, "report") if out else self.folder / REPORT
        write_report(report_results(self._opened), path)
        return path

    def costs(self) -> Costs:
        """What was spent so far: time on both clocks, money, energy."""
        from koinize.ledger.summary import everything, kinds, runs

        intervals = self._opened.intervals()
        return Costs(everything(intervals), kinds(intervals), tuple(runs(intervals)))

    def promote(
        self,
        *,
        task: str | None = None,
        channel: str = "production",
        score: bool = True,
        progress: Callable[[Progress], object] | None = None,
        serve: Server | str | None = None,
    ) -> Promotion:
        """Put the chosen merge into use, if no language is worse: which has to be shown.

        `task` is needed where there are several. With `score`, the release in use first answers the
        test rows that came after it. What was refused is returned, too: `release` is None then, the
        channel is as it was, and `refuse()` raises GateError with the table. With `serve`, a
        running server, or its address, serves it first: GateError where it does something else.
        """
        from koinize import release

        project = self._opened
        name = release.task_of(project, task)
        watcher = Teller(progress) if score else None
        follows = follower(project, name, serve)
        return release.promote(project, name, channel, watcher, serve=follows)

    def rollback(
        self,
        *,
        task: str | None = None,
        channel: str = "production",
        serve: Server | str | None = None,
    ) -> Event:
        """Put the release before into use again; with `serve`, on this server first."""
        from koinize import release

        project = self._opened
        name = release.task_of(project, task)
        return release.rollback(project, name, channel, follower(project, name, serve)).events[-1]

    def export(self, named: str, out: Path | str, *, to: str, task: str | None = None) -> Exported:
        """Write a release (`v3`, or a channel's name) as one tool takes it: peft, fused, gguf, vllm
        or sglang. `out` is a new folder.
        """
        from koinize import export, release

        project = self._opened
        found = export.source(project, release.task_of(project, task), named)
        return export.export(found, to, Path(out))

    def export_tasks(self, out: Path | str, *, task: str | None = None) -> Tasks:
        """Write the test rows as tasks of lm-evaluation-harness into a new folder."""
        from koinize import export, release

        project = self._opened
        return export.export_tasks(project, release.task_of(project, task), Path(out))

    def release(self, *, task: str | None = None, channel: str = "production") -> Release | None:
        """The release in use, every file of it checked: `folder` is a PEFT adapter.

        None before the first promotion.
        """
        from koinize.release import Releases, task_of

        project = self._opened
        releases = Releases(project.home, task_of(project, task))
        version = releases.channel(channel).current
        return releases.open(version) if version else None

    def add_language(
        self,
        language: str,
        data: Source | None = None,
        *,
        task: str | None = None,
        tasks: Mapping[str, Source] | None = None,
        dry_run: bool = False,
    ) -> LanguageChange:
        """Add a language to koinize.yaml, which keeps its comments; nothing is written unless all
        rows can be read.

        `data` says where its rows stand, for `task` where there are several, or `tasks` does for
        several at once; neither where the tasks' templates fit its files.
        """
        sources = self._sources(data, task, tasks)
        return self._told(languages.add(self.file, language, sources, write=not dry_run))

    def update_language(
        self,
        language: str,
        data: Source | None = None,
        *,
        task: str | None = None,
        tasks: Mapping[str, Source] | None = None,
        append: Path | str | None = None,
        dry_run: bool = False,
    ) -> LanguageChange:
        """Point a language at other data, or `append` the rows of a file to its training rows."""
        if (append is None) == (data is None and tasks is None):
            raise InputError(
                f"'{language}' is updated by other data or by more rows",
                expected="one of data, tasks and append",
            )
        if append is None:
            sources = self._sources(data, task, tasks)
            return self._told(languages.update(self.file, language, sources, write=not dry_run))
        rows, name = Path(append), self._task(task)
        return self._told(append_rows(self.file, name, language, rows, write=not dry_run))

    def remove_language(
        self, language: str, *, exact: bool = False, dry_run: bool = False
    ) -> LanguageChange:
        """Remove a language from koinize.yaml; its files stay, and what a trunk learnt of it.

        `exact` begins a new generation, whose trunk never saw it.
        """
        done, held = languages.remove(self._opened, language, exact=exact, write=not dry_run)
        return self._told(done, held)

    @property
    def _opened(self) -> pipeline.Project:
        return pipeline.Project.at(self.file)

    def _task(self, name: str | None) -> str:
        from koinize.release import task_of

        return task_of(self._opened, name)

    def _sources(
        self, data: Source | None, task: str | None, tasks: Mapping[str, Source] | None
    ) -> dict[str, Value]:
        """Task -> where its rows stand, as far as was said."""
        if tasks is not None and (data is not None or task is not None):
            raise InputError("the data are given twice", expected="data, or tasks with all of them")
        if tasks is None:
            return {} if data is None else {self._task(task): data}
        return {self._task(name): source for name, source in tasks.items()}

    def _told(self, done: Change, held: Mapping[str, int] | None = None) -> LanguageChange:
        todo = planned(done.project, done.plan) if done.plan else None
        return LanguageChange(done.changes, done.diff, todo, held or {})

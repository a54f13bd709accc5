"""Runs, scores and releases in MLflow: each is sent once, and channels are aliases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from koinize.errors import InputError, KoinizeError, StepError
from koinize.pipeline import Project
from koinize.release import CHANNELS, Release, Releases
from koinize.tracking.measured import Record, release_record, runs, systems

KEY, SENT, PROJECT = "koinize.key", "koinize.sent", "koinize.project"
ADDRESS = "MLFLOW_TRACKING_URI"
FILES = "release"  # the folder of a release's files among a run's artifacts
METRICS, PARAMS = 1000, 100  # the most that MLflow takes at once
# What holds while we send, unless the user says otherwise: no minutes of waiting for a server that
# is down, no report to anybody else, and no lines between ours.
MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
Value = TypeVar("Value")
REMEDY = "what arrived stays, and is not sent twice: run the same command again"


@dataclass
class Sent:
    """What came of it: records and releases that were sent now, and those that were there.

    aliases: what every channel of a task points to, as MLflow's version. notes: what was left out.
    """

    new: int = 0
    known: int = 0
    releases: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def send(project: Project, uri: str | None, experiment: str | None) -> Sent:
    """Send what MLflow at `uri` has not yet, into an experiment that is named as the project.

    Raises InputError without an address or without mlflow, StepError where MLflow refuses or is not
    there.
    """
    address = uri or os.environ.get(ADDRESS)
    if not address:
        raise InputError("there is no address of MLflow", expected=f"--uri, or {ADDRESS}")
    with _manners():
        try:
            client = import_module("mlflow.tracking").MlflowClient(address, address)
            return _Sender(project, client, experiment or project.spec.name).send()
        except ImportError as error:
            raise InputError(
                f"MLflow needs the package {error.name}, which is not installed",
                remedy="pip install 'koinize[mlflow]', or mlflow itself for a database",
            ) from error
        except KoinizeError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise StepError(f"MLflow refused: {said}", where=address, remedy=REMEDY) from error


@contextmanager
def _manners() -> Iterator[None]:
    """How mlflow behaves meanwhile, which it reads from the environment."""
    before = {name: os.environ.get(name) for name in MANNERS}
    os.environ.update({name: one for name, one in MANNERS.items() if before[name] is None})
    try:
        yield
    finally:
        for name, one in before.items():
            if one is None:
                os.environ.pop(name, None)


class _Sender:
    """One experiment of one MLflow, and what is there of this project."""

    def __init__(self, project: Project, client: Any, name: str) -> None:  # noqa: ANN401
        self.project, self.client, self.sent = project, client, Sent()
        self.entities = import_module("mlflow.entities")
        found = client.get_experiment_by_name(name)
        self.experiment = found.experiment_id if found else client.create_experiment(name)
        self.there: dict[str, Any] = {}
        page = None
        while page != "":
            some = client.search_runs([self.experiment], page_token=page)
            for run in some:
                if run.data.tags.get(PROJECT) == project.spec.name and KEY in run.data.tags:
                    self.there[run.data.tags[KEY]] = run
            page = some.token or ""

    def send(self) -> Sent:
        """All of it."""
        for record in [*runs(self.project), *self._systems()]:
            self._run(record)
        for task in self.project.spec.tasks:
            self._releases(task)
        return self.sent

    def _systems(self) -> list[Record]:
        try:
            return systems(self.project)
        except InputError as error:
            self.sent.notes.append(f"no scores were sent: {error}")
            return []

    def _run(self, record: Record) -> str:
        """The id of the run that has this record; all of it is there when it is marked as sent."""
        run = self.there.get(record.key)
        if run is not None and run.data.tags.get(SENT) == record.content:
            self.sent.known += 1
            return str(run.info.run_id)
        if run is None:
            tags = {KEY: record.key, PROJECT: self.project.spec.name, **record.tags}
            began = int(record.began * 1000)
            run = self.client.create_run(self.experiment, began, tags, record.name)
            self.there[record.key] = run
        else:  # what is chosen may be another one now
            for name, text in record.tags.items():
                self.client.set_tag(run.info.run_id, name, text)
        ident, when = run.info.run_id, int(record.ended * 1000)
        for some in _parts(record.params, PARAMS):
            params = [self.entities.Param(name, text) for name, text in some.items()]
            self.client.log_batch(ident, params=params)
        for numbers in _parts(record.metrics, METRICS):
            metrics = [self.entities.Metric(name, one, when, 0) for name, one in numbers.items()]
            self.client.log_batch(ident, metrics=metrics)
        if record.folder is not None:
            self.client.log_artifacts(ident, str(record.folder), FILES)
        self.client.set_terminated(ident, "FINISHED", when)
        self.client.set_tag(ident, SENT, record.content)
        self.sent.new += 1
        return str(ident)

    def _releases(self, task: str) -> None:
        """Each release as a version of one registered model, and the channels as its aliases."""
        releases = Releases(self.project.home, task)
        if not releases.versions():
            return
        model = f"{self.project.spec.name}.{task}"
        aliases = self._model(model)
        known = {
            one.tags["koinize.identity"]: one.version
            for one in self.client.search_model_versions(f"name = '{model}'")
            if "koinize.identity" in one.tags
        }
        versions: dict[int, str] = {}
        for version in releases.versions():
            try:
                release = releases.open(version)
                versions[version] = self._version(model, release, known)
            except KoinizeError as error:
                self.sent.notes.append(f"{task}: {error}")
        for channel in CHANNELS:
            wanted = versions.get(releases.channel(channel).current or 0)
            if wanted and str(aliases.get(channel)) != wanted:
                self.client.set_registered_model_alias(model, channel, wanted)
            elif wanted is None and channel in aliases:
                self.client.delete_registered_model_alias(model, channel)
            if wanted:
                self.sent.aliases[f"{model}@{channel}"] = wanted

    def _version(self, model: str, release: Release, known: Mapping[str, Any]) -> str:
        """MLflow's number for a release."""
        run = self._run(release_record(release))
        identity = str(release.record["identity"])
        if identity in known:
            return str(known[identity])
        source = f"{self.client.get_run(run).info.artifact_uri}/{FILES}"
        tags = {"koinize.release": release.name, "koinize.identity": identity}
        made = self.client.create_model_version(model, source, run, tags)
        self.sent.releases.append(f"{model} {release.name}")
        return str(made.version)

    def _model(self, name: str) -> dict[str, Any]:
        """The aliases of the registered model, which is made if there is none.

        Raises InputError for one of that name that is somebody else's.
        """
        ours = self.project.spec.name
        for one in self.client.search_registered_models(f"name = '{name}'"):
            if one.tags.get(PROJECT) != ours:
                raise InputError(
                    f"MLflow has a registered model '{name}' that koinize did not make",
                    remedy="rename it there, or the project in koinize.yaml",
                )
            return dict(one.aliases)
        self.client.create_registered_model(name, {PROJECT: ours})
        return {}


def _parts(values: Mapping[str, Value], most: int) -> Iterator[dict[str, Value]]:
    items = list(values.items())
    for start in range(0, len(items), most):
        yield dict(items[start : start + most])

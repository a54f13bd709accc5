"""A release as its exports need it: its files, its base model, and its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from koinize.adapter import ADAPTER_FILES, AdapterHeader, read_header
from koinize.digest import bytes_digest, short
from koinize.errors import InputError, did_you_mean
from koinize.files import LARGEST_TEXT, read_bytes
from koinize.model.base import BaseSpec, identity, prepare, user_cache
from koinize.model.manner import template_of
from koinize.pipeline import Project
from koinize.release import CHANNELS, Release, Releases, version_of
from koinize.release.promotion import EVIDENCE, TEMPLATE
from koinize.shown import line

LONGEST_DIFFERENCE = 100  # characters of a line of a chat template


@dataclass(frozen=True)
class Source:
    """One release of a task, which `channels` have in use. `name` is what servers call it."""

    project: Project
    release: Release
    channels: tuple[str, ...]

    @property
    def task(self) -> str:
        """The task that it was released for."""
        return str(self.release.record["task"])

    @property
    def name(self) -> str:
        """The same for every release, so that nobody has to follow versions."""
        return self.task

    @property
    def base(self) -> BaseSpec:
        """The base model that it was trained on, as koinize.yaml named it then."""
        return BaseSpec.model_validate(self.release.record["settings"]["base"])

    def header(self) -> AdapterHeader:
        """What its adapter is. Raises InputError."""
        return read_header(self.release.folder)

    def base_folder(self) -> Path:
        """The base model's folder, brought here where it is not. Raises InputError."""
        return prepare(self.base, self.project.root, user_cache()).absolute()

    def base_is_trained_on(self) -> bool:
        """Whether the base model is, byte for byte, the one that it was trained on."""
        inputs = self.release.read_json(EVIDENCE).get("inputs", {})
        trained = {one["base"] for one in inputs.values() if "base" in one}
        project = self.project
        return trained <= {identity(self.base, project.root, project.files.digests)}

    def template(self) -> Template:
        """The chat template that it was tested with, beside that of the base today."""
        path = self.release.folder / TEMPLATE
        kept = read_bytes(path, LARGEST_TEXT).decode("utf-8") if path.is_file() else None
        base = template_of(self.base_folder())
        return Template(base if kept is None else kept, base, kept is not None)

    def record(self) -> dict[str, Any]:
        """What every export says of it."""
        known = self.release.record
        return {
            "task": self.task,
            "release": self.release.name,
            "channels": list(self.channels),
            "identity": known["identity"],
            "adapter": known["adapter"],
            "adapter_files": {
                one: bytes_digest(read_bytes(self.release.folder / one)) for one in ADAPTER_FILES
            },
            "system": known["system"],
            "languages": known["languages"],
            "base": known["settings"]["base"],
        }


@dataclass(frozen=True)
class Template:
    """A chat template, empty for plain text; `base` is the base model's own, today.

    `is_kept`: it was kept with the release. Before that was done, the base's has to do.
    """

    text: str
    base: str
    is_kept: bool

    def says(self) -> str:
        """Which it is, and in the first line that differs what the base's says today."""
        if not self.text and not self.base:
            return "there is no chat template: prompts are plain text"
        known = f"chat template {short(bytes_digest(self.text.encode()))}"
        if self.text == self.base:
            return f"{known}, that of the base"
        return f"{known} in training; the base has another one today: {self._difference()}"

    def _difference(self) -> str:
        pairs = unified_diff(self.text.splitlines(), self.base.splitlines(), lineterm="", n=0)
        changed = [one for one in pairs if not one.startswith(("---", "+++", "@@"))]
        said = {sign: _first(changed, sign) for sign in "-+"}
        return f"{said['+']} where {said['-']} was"

    def record(self) -> Mapping[str, object] | None:
        """The digests; None for a base model that is given plain text."""
        if not self.text and not self.base:
            return None
        return {
            "sha256": bytes_digest(self.text.encode()),
            "base_sha256": bytes_digest(self.base.encode()),
            "same": self.text == self.base,
            "kept_with_release": self.is_kept,
        }


def _first(changed: list[str], sign: str) -> str:
    found = next((one[1:] for one in changed if one.startswith(sign)), None)
    return "nothing" if found is None else f"'{line(found.strip(), LONGEST_DIFFERENCE)}'"


def source(project: Project, task: str, named: str) -> Source:
    """The release that is called `v3`, or that a channel has in use. Raises InputError."""
    releases = Releases(project.home, task)
    in_use = {one: releases.channel(one).current for one in CHANNELS}
    if named in CHANNELS:
        version = in_use[named]
        if version is None:
            raise InputError(
                f"nothing is in use in {named} of task '{task}'",
                remedy="promote a release, or name a version such as v3",
            )
    elif named.removeprefix("v").isdecimal():
        version = version_of(named)
    else:
        raise InputError(
            f"'{named}' is no release",
            expected=f"a version such as v3, or a channel: {', '.join(CHANNELS)}",
            remedy=did_you_mean(named, CHANNELS),
        )
    found = releases.open(version)
    return Source(project, found, tuple(one for one, it in in_use.items() if it == version))

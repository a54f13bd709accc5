"""A project with releases of adapters that PEFT wrote, put there by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from koinize.model import base
from koinize.pipeline import Project
from koinize.release import Release, Releases
from koinize.release.archive import Channel
from tests.pipeline.conftest import SPEC, Small


def project_with(root: Path, base_folder: Path, *adapters: Path, template: str = "") -> Project:
    """v1, v2 ... of the task `mood`; production has the last one in use, staging none."""
    root.mkdir()
    small = Small(root)
    small.spec(SPEC.replace("{model: base}", f"{{model: {base_folder}, dtype: float32}}"))
    project = small.real()
    for number, adapter in enumerate(adapters, 1):
        release(project, number, adapter, template)
    channel = Channel("production")
    for number in range(1, len(adapters) + 1):
        channel = channel.promoted(number)
    releases_of(project).switch(channel)
    return project


def releases_of(project: Project) -> Releases:
    return Releases(project.home, "mood")


def release(project: Project, version: int, adapter: Path, template: str) -> Release:
    """One that says that it was trained on the base as it is now."""
    identity = base.identity(project.spec.base, project.root, project.files.digests)
    settings = {"base": project.spec.base.model_dump(mode="json"), "evaluation": {}}
    record = {
        "identity": f"{version:064x}", "candidate": "c" * 64, "task": "mood",
        "channel": "production", "created": "2026-11-27", "koinize": "0", "system": "ties",
        "adapter": "a" * 64, "languages": ["de", "en"], "settings": settings, "artifacts": {},
    }  # fmt: skip
    evidence = {
        "scores": [],
        "data": {},
        "cost": {},
        "inputs": {"train/mood/de": {"base": identity}},
    }

    def fill(folder: Path) -> None:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(adapter / name, folder / name)
        (folder / "README.md").write_text("# The card\n")
        (folder / "evidence").mkdir()
        (folder / "evidence" / "evidence.json").write_text(json.dumps(evidence))
        if template:
            (folder / "evidence" / "chat_template.jinja").write_text(template)

    return releases_of(project).add(version, record, fill)

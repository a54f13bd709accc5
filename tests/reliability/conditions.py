"""What has to be true of a project after anything: the conditions that every test here checks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from koinize.ledger import Ledger
from koinize.pipeline import Project
from koinize.release import examine

MEASURED = ("seconds", "load_seconds", "peak_bytes", "path", "steps_before", "tokens_before")


def digests(root: Path) -> dict[str, dict[str, Any]]:
    """Name -> id, facts and the digests of the files of what every step of today made."""
    project = Project.at(root / "koinize.yaml")
    store = project.store
    opened = {step.name: store.open(step.id) for step in project.steps}
    return {
        name: {
            "id": one.id,
            "files": {file: entry["sha256"] for file, entry in one.files.items()},
            "facts": {key: one.facts[key] for key in one.facts if key not in MEASURED},
        }
        for name, one in opened.items()
    }


def check_finished(root: Path) -> None:
    """All steps are done, each once; the ledger holds; nothing is left over or broken."""
    home = root / ".koinize"
    steps = Project.at(root / "koinize.yaml").steps
    made = [one for one in Ledger(home / "ledger.jsonl").intervals() if one.artifact]
    assert {one.status for one in made} <= {"done", "interrupted", "failed"}
    kinds = {step.kind for step in steps}
    done = Counter(one.artifact for one in made if one.status == "done" and one.kind in kinds)
    assert done == Counter(step.id for step in steps), "each artifact has one finished interval"
    assert leftovers(root) == []
    assert json.loads((home / "names.json").read_text()) == {step.name: step.id for step in steps}
    assert [one for one in examine(root) if one.state != "good"] == []
    report, ledger = root / "report.html", home / "ledger.jsonl"
    assert "</html>" in report.read_text()
    assert report.stat().st_mtime_ns >= ledger.stat().st_mtime_ns


def leftovers(root: Path) -> list[str]:
    """Files and folders that somebody should have removed."""
    home = root / ".koinize"
    found = [
        path for name in ("tmp", "progress", "checkpoints") for path in (home / name).glob("*")
    ]
    found += [path for path in root.rglob("*") if path.name.endswith(".part")]
    found += [home / "holder.json"] if (home / "holder.json").exists() else []
    return sorted(str(path.relative_to(root)) for path in found)

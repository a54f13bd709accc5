"""The results of a project as its report says them, and the report as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.pipeline import Project

if TYPE_CHECKING:
    from koinize.report import Results

REPORT = "report.html"


def report_results(project: Project) -> Results:
    """Every figure of the report. Raises InputError while there is nothing to report."""
    from koinize.pipeline.report_input import gather
    from koinize.release import released
    from koinize.report import results

    source = gather(project)
    releases, notes = released(project)
    return results(replace(source, releases=releases, notes=[*source.notes, *notes]))


def write_report(results: Results, path: Path) -> None:
    """Write it as one HTML file, whole or not at all."""
    from koinize.report import render_html
    from koinize.store import write_atomically

    write_atomically(path, render_html(results))


def is_outdated(report: Path, project: Project) -> bool:
    """Whether work was recorded since the report, as when a run was killed before writing it."""
    ledger = project.files.ledger
    if not (report.exists() and ledger.exists()):
        return not report.exists()
    return report.stat().st_mtime_ns < ledger.stat().st_mtime_ns

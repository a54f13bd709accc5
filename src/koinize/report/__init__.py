"""The report: (ledger, result rows) -> one offline HTML file, text for a terminal, JSON.

`results` computes every figure once; `render_html` and `render_text` only say them. A section is
one file of `koinize.report.sections` whose attribute `section` is a `Section`. See docs/report.md.
"""

from __future__ import annotations

import koinize.report.sections  # noqa: F401 - before the catalog, whose name it would take later
from koinize.report.figures import Inspection, Results, SystemKind
from koinize.report.input import (
    Evaluation,
    ReleaseInput,
    ReportInput,
    System,
    TaskInput,
)
from koinize.report.render import render_html, render_text, sections
from koinize.report.results import results
from koinize.report.section import Section

__all__ = [
    "Evaluation",
    "Inspection",
    "ReleaseInput",
    "ReportInput",
    "Results",
    "Section",
    "System",
    "SystemKind",
    "TaskInput",
    "render_html",
    "render_text",
    "results",
    "sections",
]

"""On paper: few pages, and a word on what is left out."""

import re
import shutil
import subprocess

import pytest

from koinize.report import render_html, results
from tests.report.conftest import report_input, task_input
from tests.report.test_calibration import with_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = 8


def test_what_is_not_printed_is_said(realistic):
    page = render_html(realistic)
    rules = page[page.index("@media print") : page.index("</style>")]
    hidden = "nav, details:not(.words), details.words summary, tr.repeated, #settings, #signatures"
    assert f"{hidden} {{ display: none; }}" in rules
    said = (
        "Settings, signatures, equal candidates and the tables that are folded away stand in the "
        "file."
    )
    assert said in rules
    for name in ("settings", "signatures"):
        assert f'<section id="{name}">' in page
    assert "<details>" in page
    # What words mean is a click away on the screen, and printed.
    assert '<details class="words"><summary>How to read this</summary>' in page
    assert (
        "details.words::details-content { content-visibility: visible; block-size: auto; }" in rules
    )
    # Of the paper's eight candidates two are the same as others: in the choice and among merges.
    assert page.count('<tr class="repeated">') == 2 * 2


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_five_languages_with_every_section_fit_on_few_pages(tmp_path):
    task = with_scores(task_input(test_rows=60, dev_rows=40))
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(render_html(results(report_input(tasks=[task]))), encoding="utf-8")
    subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={paper}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
    )
    assert 1 < len(re.findall(rb"/Type\s*/Page\b(?!s)", paper.read_bytes())) <= PAGES

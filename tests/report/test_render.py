"""What is rendered: whole, offline, escaped, and never in need of what a project may lack."""

import re
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from koinize.report import (
    Evaluation,
    ReportInput,
    System,
    TaskInput,
    render_html,
    render_text,
    results,
    sections,
)
from koinize.report.answer import the_answer
from koinize.report.blocks import Cell, Facts, Figure, Heading, Paragraph, Table
from koinize.report.html import blocks_html
from koinize.report.text import blocks_text

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Checker(HTMLParser):
    """Fails on a tag that is closed out of turn or not at all; collects attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(html):
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def in_terminal(found, width=100):
    stream = StringIO()
    render_text(found, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


@pytest.fixture(scope="module")
def page(realistic):
    return render_html(realistic)


def test_the_page_is_well_formed_and_every_drawing_is_xml(page):
    checker = checked(page)
    assert {"main", "section", "table", "svg"} <= checker.tags
    outermost = re.findall(r'<svg [^>]*class="plot".*?</svg>\s*</div>', page, flags=re.DOTALL)
    assert len(outermost) >= 10
    for drawing in outermost:
        root = ET.fromstring(drawing.removesuffix("</div>").strip())  # noqa: S314 - our own
        assert root.get("aria-label")


def test_the_page_refers_to_nothing_outside_itself(page):
    checker = checked(page)
    assert not checker.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    references = [
        value
        for name, value in checker.attributes
        if name in {"src", "href", "srcset", "action", "data", "xlink:href"}
    ]
    assert all(value.startswith("#") for value in references)
    assert not any(name.startswith("on") for name, _ in checker.attributes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_links_lead_to_sections_of_the_page(page):
    checker = checked(page)
    ids = {value for name, value in checker.attributes if name == "id"}
    targets = {value for name, value in checker.attributes if name == "href"}
    assert targets == {f"#{name}" for name in ids}
    assert ids == set(sections.names())


def test_the_answer_comes_first(page, realistic):
    assert page.index('id="summary"') == page.index('id="') + 0
    text = " ".join("".join(checked(page).text).split())
    first = text[text.index("Summary", text.index("Notes")) :][:600]
    task = realistic["tasks"][0]
    assert first.removeprefix("Summary ").startswith(the_answer(task))
    assert (
        "The merge knots-ties density 0.5 was chosen from 8 candidates, 6 of them distinct, by "
        "macro-f1 on dev" in first
    )
    assert task["chosen"] == "knots-ties density 0.5"


def test_costs_stand_beside_the_papers_with_what_does_not_add_up(page):
    text = " ".join(checked(page).text)
    for figure in ("USD 113.4", "USD 107.1", "35.3 % less", "5.6 % less", "73.7 % less"):
        assert figure in text
    assert "so 35.3 % or 38.9 % less wall time, and 5.6 % or 0 % less cost" in text
    assert "derived: the longest training, then merge after merge" in text
    assert "Price of a machine hour: USD 2.49, from https://example.org/prices" in text


def test_a_verdict_is_told_by_symbol_and_word(page):
    text = " ".join(checked(page).text)
    for told in ("▲ better", "✓ not worse", "▼ worse", "? inconclusive"):
        assert told in text


def test_text_in_any_script_arrives_whole(page, realistic):
    assert "レビュー：{text}\n感情：" in page
    assert "评论：{text}" in in_terminal(realistic, 160)


def test_hostile_names_are_text_everywhere(realistic):
    hostile = '<script>alert("1")</script>\'"><img src=x onerror=y>[bold red]&amp;'
    names = {realistic["tasks"][0]["chosen"]: hostile, "COMB": f"COMB{hostile}", "de": hostile}
    found = renamed(realistic, names)
    found["project"] = hostile
    found["notes"] = [hostile]
    found["spec"] = {hostile: {hostile: [hostile]}}
    page = render_html(found)
    checker = checked(page)
    assert not checker.tags & {"script", "img"}
    assert not any(name.startswith("on") for name, _ in checker.attributes)
    assert hostile in "".join(checker.text)
    assert "[bold red]&amp;" in in_terminal(found, 400)


def renamed(value, names):
    """The same results with other names, in keys too."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def bare(**changes):
    """A project of which nothing is known yet."""
    fields = {
        "project": "p",
        "created": "not a time",
        "version": "0",
        "spec": {},
        "price": None,
        "tasks": [],
        "intervals": [],
        "current": {},
    }
    return ReportInput(**fields | changes)


ROW = {"key": "1", "language": "de", "gold": "a", "prediction": "a"}
ONLY_BASE = TaskInput(
    name="t",
    kind="classify",
    metrics=("accuracy",),
    labels=("a", "b"),
    languages=("de",),
    margins={},
    reference="COMB",
    systems=[System("BASE", "base")],
    evaluations=[Evaluation("t", "BASE", "de", "test", [ROW], "s")],
)
CHOSEN = System("m", "candidate", chosen=True)
ONLY_MERGE = replace(
    ONLY_BASE,
    systems=[CHOSEN],
    evaluations=[Evaluation("t", "m", "de", split, [ROW], "s") for split in ("dev", "test")],
)
NO_ROWS = replace(ONLY_BASE, evaluations=[])


@pytest.mark.parametrize("tasks", [[], [ONLY_BASE], [ONLY_MERGE], [NO_ROWS]])
@pytest.mark.parametrize("name", sections.names())
def test_every_section_lives_with_what_is_missing(name, tasks):
    found = results(bare(tasks=tasks))
    section = sections.get(name)
    checked(str(section.html(found)))
    for block in section.text(found):
        Console(file=StringIO()).print(block)


def test_a_project_without_comb_and_price_says_so():
    text = " ".join(in_terminal(results(bare(tasks=[ONLY_MERGE]))).split())
    assert "No price given: costs are shown in time only." in text
    assert "nothing to compare: COMB was not evaluated, or no margin is set" in text
    assert "The merge m is the only candidate: nothing had to be chosen on dev." in text
    assert "No merge has been chosen yet." in in_terminal(results(bare(tasks=[ONLY_BASE])))


def test_a_reference_that_is_older_than_its_rows_is_said_where_it_is_compared():
    reference = System("COMB", "combined")
    rows = [Evaluation("t", one, "de", "test", [ROW], "s") for one in ("m", "COMB")]
    task = replace(
        ONLY_MERGE, margins={"accuracy": 2.0}, systems=[reference, CHOSEN], evaluations=rows
    )
    said = "On test against COMB with a margin of 2 points"
    older = "On test against COMB, which was trained before train rows de changed, with a margin"
    fresh = " ".join(in_terminal(results(bare(tasks=[task]))).split())
    assert said in fresh
    stale = results(bare(tasks=[replace(task, changed_since=("train rows de",))]))
    assert older in " ".join(in_terminal(stale).split())


def test_two_tasks_have_a_heading_each():
    found = results(bare(tasks=[ONLY_MERGE, replace(ONLY_MERGE, name="summary")]))
    html = str(sections.get("summary").html(found))
    assert re.findall("<h3>(.*?)</h3>", html) == ["t", "summary"]


def test_a_twin_is_marked_in_the_choice_and_among_the_merges(realistic):
    for name in ("selection", "merges"):
        (table,) = (one for one in sections.get(name).data(realistic) if isinstance(one, Table))
        said = {
            row[0].text: " ".join(f"{one.text} {one.below}" for one in row) for row in table.rows
        }
        assert "ties density 1" in said["dare-ties density 1"].replace("dare-ties density 1", "")


def test_the_choice_says_how_much_of_it_is_luck(realistic):
    *_, table, paragraph = sections.get("selection").data(realistic)
    (task,) = realistic["tasks"]
    shares = {row["name"]: row["best_in"] for row in task["selection"]}
    assert sum(share for share in shares.values() if share is not None) == pytest.approx(1.0)
    assert shares["dare-ties density 1"] is None  # the same merge as another
    winner = 100 * shares[task["chosen"]]
    assert f"{task['chosen']} would have won on {winner:.0f} % of the resamples" in paragraph.text
    less = task["against_mean"]
    assert (less["system"], less["reference"]) == (task["chosen"], "MEAN")
    assert f"against MEAN it is {less['difference']:+.1f} [" in paragraph.text.replace("−", "-")
    assert table.columns[1] == "best in"


def test_a_choice_for_several_tasks_is_not_said_to_be_by_one(realistic):
    """The winner of all together need not be the best of this one: the figure is its own."""
    shared = deepcopy(realistic)
    shared["spec"]["merge"] = {"across": ["sentiment", "summary"]}
    (task,) = shared["tasks"]
    *_, other = (row for row in task["selection"] if not row["same_as"])
    for row in (*task["selection"], *task["systems"]):
        row["chosen"] = row["name"] == other["name"]
    task["chosen"] = other["name"]
    summary = sections.get("summary").data(shared)
    said = " ".join(one.text for one in summary if isinstance(one, Paragraph))
    reached = f"{other['mean']['value']:.1f}"
    assert (
        "by dev of sentiment and summary together; on that of sentiment it reached "
        f"{reached} macro-f1."
    ) in said
    *_, luck = sections.get("selection").data(shared)
    assert luck.text.startswith(f"By sentiment alone, {other['name']} would have won on ")


def test_every_section_has_its_own_place():
    places = [sections.get(name).order for name in sections.names()]
    assert len(set(places)) == len(places)


def test_a_terminal_shows_every_figure_of_the_page(realistic):
    """Whatever stands in a table cell of the page also stands in the terminal."""
    text = in_terminal(realistic, 250)
    for name in sections.names():
        for block in sections.get(name).data(realistic):
            table = block.table if isinstance(block, Figure) else block
            if isinstance(table, Table):
                for cell in (one for row in table.rows for one in row):
                    assert all(line in text for line in cell.text.splitlines())


def test_a_table_too_wide_for_the_terminal_is_split_and_nothing_is_cut(realistic):
    text = in_terminal(realistic, 80)
    for name in ("summary", "verdicts", "quality", "selection", "costs", "merges"):
        for block in sections.get(name).data(realistic):
            if isinstance(block, Table):
                for cell in (one for row in block.rows for one in row):
                    assert cell.text in text
                    assert cell.below in text


def test_each_part_of_a_split_table_begins_with_the_first_column():
    row = tuple(Cell(text) for text in ("de", "1" * 10, "2" * 10, "3" * 10))
    (drawn,) = blocks_text([Table(("", "a", "b", "c"), (row,), "said once")])
    stream = StringIO()
    Console(file=stream, width=33, color_system=None).print(drawn)
    lines = [line.split() for line in stream.getvalue().splitlines()]
    # 5 for the first column, 13 for each other: two of those fit into 33
    assert [line for line in lines if line[:1] == ["de"]] == [["de", row[1].text, row[2].text],
                                                              ["de", row[3].text]]  # fmt: skip
    assert lines.count(["said", "once"]) == 1


def test_blocks_in_both_forms():
    blocks = [
        Heading("A & B"),
        Paragraph("one", "muted"),
        Facts((("label", "12 %", "why"),)),
        Table(("x", "y"), ((Cell("a", "b", "worse", "t"), Cell("1")),), "c", frozenset({1})),
    ]
    assert " ".join(str(blocks_html(blocks)).split()) == (
        '<h3>A &amp; B</h3> <p class="muted">one</p> <dl class="facts"> <div><dt>label</dt>'
        "<dd>12 %<small>why</small></dd></div> </dl> "
        '<div class="table" tabindex="0" role="group" aria-label="c"> <table> '
        "<caption><span>c</span></caption>"
        '<thead><tr><th scope="col">x</th><th scope="col" class="number">y</th></tr></thead> '
        '<tbody> <tr><th scope=row title="t"><span class="tone worse">a</span><small>b</small>'
        '</th><td class="number">1</td></tr> </tbody> </table> </div>'
    )
    stream = StringIO()
    for block in blocks_text(blocks):
        Console(file=stream, width=40, color_system=None).print(block)
    lines = [line.strip() for line in stream.getvalue().splitlines() if line.strip()]
    assert lines[:3] == ["A & B", "one", "12 %  label (why)"]


def test_the_section_of_the_documentation_is_a_section():
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(example, names)  # noqa: S102 - our own file
    found = results(bare())
    assert str(names["section"].html(found)).strip() == "<p>Hello, p.</p>"
    assert names["section"].order not in [sections.get(name).order for name in sections.names()]


def test_comb_on_the_same_workers_and_machines_stands_beside_the_merge(realistic):
    """COMB took 10 min 12.4 s; two workers, and a machine for each of five languages."""
    text = in_terminal(realistic, 200)
    assert "COMB, trained by all 2 workers at once" in text
    assert "COMB, trained on all 5 such machines at once" in text
    costs = realistic["tasks"][0]["costs"]
    whole = costs["combined"]["elapsed_seconds"]
    assert costs["combined_by_all_workers"]["elapsed_seconds"] == pytest.approx(whole / 2)
    assert costs["combined_on_as_many_machines"]["elapsed_seconds"] == pytest.approx(whole / 5)
    assert "5 min 06 s" in text
    assert "2 min 02 s" in text
    assert "than COMB on as many at best (estimated)" in " ".join(text.split())
    assert "save no work: whether there is less work, only machine time and cost say" in text


@pytest.mark.slow
def test_one_worker_is_not_compared_with_itself(realistic):
    alone = deepcopy(realistic)
    costs = alone["tasks"][0]["costs"]
    costs["combined_by_all_workers"]["workers"] = 1
    assert "workers at once" not in in_terminal(alone, 200)
    assert "COMB by all" not in in_terminal(alone, 200)

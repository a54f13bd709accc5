"""The heat map: colour by arithmetic on paper, and every cell with its number."""

from xml.etree import ElementTree as ET

import pytest

from koinize.report.blocks import Figure, Table
from koinize.report.heat import heat, top_of
from koinize.report.render import sections

NAMES = ("de", "en", "ja")
MATRIX = ((1.0, 0.1, -0.05), (0.1, 1.0, 0.2), (-0.05, 0.2, 1.0))


def groups(drawing):
    root = ET.fromstring(str(drawing))  # noqa: S314 - our own
    return root, root.findall("g")


def test_every_cell_has_its_number_its_colour_and_its_names():
    root, cells = groups(heat(NAMES, MATRIX, 0.2, "cosine"))
    assert root.get("aria-label") == "cosine"
    assert [one.text for one in root.findall("text")] == ["de", "en", "ja", "de", "en", "ja"]
    first = cells[0:3]
    assert [one.findtext("text") for one in first] == ["1.00", "0.10", "−0.05"]
    assert [one.findtext("title") for one in first] == [
        "de and de: 1.0000",
        "de and en: 0.1000",
        "de and ja: −0.0500",
    ]
    rects = [one.find("rect") for one in first]
    # Half of full opacity .5 at half of the top, a quarter at a quarter, none on the diagonal.
    assert [one.get("fill-opacity") for one in rects] == ["0.000", "0.250", "0.125"]
    assert [one.get("class") for one in rects] == ["cell", "cell", "cell against"]
    # 13 % for the names, 87 % for three columns.
    assert [one.get("x") for one in rects] == ["13.00%", "42.00%", "71.00%"]


def test_no_cell_is_stronger_than_half_so_that_its_number_can_be_read():
    _, cells = groups(heat(NAMES, MATRIX, 0.05, ""))
    assert max(float(one.find("rect").get("fill-opacity")) for one in cells) == 0.5


def test_a_measure_of_conflict_is_drawn_in_the_colour_of_warnings():
    _, cells = groups(heat(NAMES, MATRIX, 0.5, "", warns=True))
    assert {one.find("rect").get("class") for one in cells} == {"cell against"}


@pytest.mark.parametrize(
    ("largest", "top"), [(0.0, 0.02), (0.02, 0.02), (0.021, 0.05), (-0.3, 0.5), (0.9, 1.0), (2, 1)]
)
def test_the_colour_is_full_at_a_round_number(largest, top):
    assert top_of([[1.0, largest], [0.0, 1.0]]) == top


def test_no_minus_before_what_rounds_to_zero():
    _, cells = groups(heat(("de", "en"), [[1.0, -0.001], [-0.001, 1.0]], 1.0, ""))
    assert cells[1].findtext("text") == "0.00"


def test_the_section_says_every_pair_in_figures_too(realistic):
    figure, adapters = (
        one
        for one in sections.get("interference").data(realistic)
        if isinstance(one, Figure | Table)
    )
    assert [title for title, _ in figure.panels] == [
        "Cosine of updates · full colour at 0.2",
        "Overlap, columns of B · full colour at 0.2",
        "Overlap, rows of A · full colour at 0.2",
        "Opposed signs · full colour at 0.5",
    ]
    assert len(figure.table.rows) == 10
    # de and zh stand four apart: .3 - .4, (1 + .1) / 2, 40 + 0 + 4
    assert [cell.text for cell in figure.table.rows[3]] == [
        "de and zh", "−0.100", "0.100", "0.100", "0.550", "44.0°", "44.0°",
    ]  # fmt: skip
    assert [cell.text for cell in adapters.rows[0]] == [
        "de", "3.50", "4.8", "11.5", "61.4 %", "75.0 %", "86.7 %", "94.9 %", "100.0 %",
    ]  # fmt: skip


def test_many_languages_get_the_whole_width(realistic):
    task = realistic["tasks"][0]
    names = [f"l{number}" for number in range(8)]
    square = [[0.5] * 8] * 8
    found = dict.fromkeys(("cosine", "column_overlap", "row_overlap", "sign_conflict"), square)
    found |= {"column_angle": square, "row_angle": square, "languages": names}
    found |= {"norms": [1.0] * 8, "ranks": [[1, 1]] * 8, "energy_ranks": [1], "energy": [[1.0]] * 8}
    _, figure, _ = sections.get("interference").data({"tasks": [{**task, "interference": found}]})
    assert figure.wide

"""Drawings: where marks stand, by arithmetic on paper."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.report.svg import Bar, Block, Mark, Scale, bars, dots, lanes, scale_over, trend


def parsed(drawing):
    return ET.fromstring(str(drawing))  # noqa: S314 - our own


def test_a_scale_keeps_two_percent_free_at_both_ends():
    scale = Scale(0.0, 50.0)
    assert [scale.percent(x) for x in (0.0, 25.0, 50.0)] == [2.0, 50.0, 98.0]


def test_ends_and_ticks_are_round():
    # 21.2 / 6 = 3.5, so steps of 5
    scale = scale_over([-14.3, 6.9])
    assert (scale.low, scale.high) == (-15.0, 10.0)
    assert [label for _, label in scale.ticks] == ["−15", "−10", "−5", "0", "5", "10"]
    assert scale_over([93.0, 99.9], bounds=(0.0, 100.0)).high == 100.0


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9))
def test_a_scale_holds_its_values(values):
    scale = scale_over(values)
    for value in values:
        assert 2.0 - 1e-6 <= scale.percent(value) <= 98.0 + 1e-6  # a rounding of floor(x) * step


@pytest.mark.parametrize("shape", ["dot", "ring", "diamond", "up", "down"])
def test_a_mark_stands_at_its_value_and_tells_its_figures(shape):
    mark = Mark("en", 25.0, 0.0, 50.0, "25.0 [0.0, 50.0]", "en: 4 rows", shape=shape)
    root = parsed(dots([mark], Scale(0.0, 50.0), "all of it"))
    assert root.get("aria-label") == "all of it"
    group = root.find("g")
    assert group.findtext("title") == "en: 4 rows"
    assert [one.text for one in group.findall("text")] == ["en", "25.0 [0.0, 50.0]"]
    line = group.find("line")
    assert (line.get("x1"), line.get("x2")) == ("2.00%", "98.00%")
    circle, holder = group.find("circle"), group.find("svg")
    assert (circle.get("cx") if circle is not None else holder.get("x")) == "50.00%"


def test_the_tolerated_range_begins_at_minus_the_margin():
    root = parsed(dots([], Scale(-10.0, 10.0), "", tolerated=5.0))
    shade = root.find("rect")
    assert (shade.get("x"), shade.get("width")) == ("26.00%", "72.00%")  # 2 + 96 / 4, up to 98


def test_bars_are_shares_of_the_longest():
    root = parsed(bars([Bar("a", 5.0, "5 s", "a: 5 s"), Bar("b", 0.0, "0 s", "")], 20.0, ""))
    widths = [one.get("width") for one in root.iter("rect") if one.get("class") == "fill"]
    assert widths == ["25.00%", "0.00%"]


def test_lanes_place_work_by_time_and_label_what_is_wide_enough():
    work = [Block(0, 0.0, 50.0, "de", "", "train"), Block(1, 50.0, 1.0, "en", "", "train")]
    root = parsed(lanes(work, 2, 100.0, [(0.0, "0")], ""))
    first, second = root.findall("svg")
    assert (first.get("x"), first.get("width"), first.get("y")) == ("2.000%", "48.000%", "3")
    assert (second.get("x"), second.get("width"), second.get("y")) == ("50.000%", "0.960%", "33")
    assert first.findtext("text") == "de"
    assert second.findtext("text") is None


def test_long_names_are_cut_in_a_drawing_and_hostile_ones_escaped():
    root = parsed(bars([Bar("<b>" * 20, 1.0, "", "<&>")], 1.0, '"'))
    assert root.find("g").findtext("text") == ("<b>" * 20)[:29] + "…"
    assert root.find("g").findtext("title") == "<&>"


def test_a_trend_goes_upwards_and_keeps_the_level_of_its_first_value():
    marks = [Mark("v1", 25.0, 0.0, 50.0, "", "first"), Mark("v2", 50.0, 50.0, 50.0, "", "second")]
    root = parsed(trend(marks, Scale(0.0, 50.0), "en over the releases"))
    # 170 pixels, of which 2 % are free at both ends: 25 of 50 lies in the middle, 50 near the top
    dots_found = [(dot.get("cx"), dot.get("cy")) for dot in root.iter("circle")]
    assert dots_found == [("32.00%", "85.00"), ("76.00%", "3.40")]
    (level,) = (line for line in root.iter("line") if line.get("class") == "zero")
    assert (level.get("y1"), level.get("y2")) == ("85.00", "85.00")
    assert [title.text for title in root.iter("title")] == ["first", "second"]

"""A reliability diagram: how often answers are right, over the probability that they were given."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from koinize.report.figures import CalibrationBin
from koinize.report.formats import count
from koinize.report.svg import as_markup, canvas, write

HEIGHT = 190  # pixels of the plot
TOP = 8
AXIS = 36
LEFT, RIGHT = 10.0, 97.0  # percent of the width
TICKS = (0, 25, 50, 75, 100)


def reliability(bins: Sequence[CalibrationBin], description: str) -> Markup:
    """One dot per bin, larger for more rows; a bar where a calibrated model's dot would lie."""
    root = canvas(TOP + HEIGHT + AXIS, description)
    for tick in TICKS:
        x, y = _across(tick), f"{_down(tick):g}"
        left, right = f"{LEFT}%", f"{RIGHT}%"
        SubElement(root, "line", {"x1": left, "x2": right, "y1": y, "y2": y, "class": "grid"})
        write(root, f"{tick}", f"{LEFT - 2}%", float(y) + 4, "tick", "end")
        write(root, f"{tick}", x, TOP + HEIGHT + 15, "tick", "middle")
    write(root, "probability of the answer, %", "53.5%", TOP + HEIGHT + 31, "tick", "middle")
    ends = {"x1": _across(0), "y1": f"{_down(0):g}", "x2": _across(100), "y2": f"{_down(100):g}"}
    SubElement(root, "line", {**ends, "class": "zero"})
    n = sum(one["n"] for one in bins)
    for one in bins:
        group = SubElement(root, "g", {"class": "mark strong"})
        SubElement(group, "title").text = (
            f"{count(one['n'], 'answer')} with a probability of {one['confidence']:.0f} %: "
            f"{one['accuracy']:.0f} % are right; if calibrated, {one['calibrated_low']:.0f} to "
            f"{one['calibrated_high']:.0f} %"
        )
        x = _across(one["confidence"])
        heights = {"y1": one["calibrated_low"], "y2": one["calibrated_high"]}
        bar = {name: f"{_down(value):g}" for name, value in heights.items()}
        SubElement(group, "line", {"x1": x, "x2": x, **bar, "class": "calibrated"})
        radius = f"{2 + 6 * sqrt(one['n'] / n):.1f}"
        place = {"cx": x, "cy": f"{_down(one['accuracy']):g}", "r": radius}
        SubElement(group, "circle", {**place, "class": "dot"})
    return as_markup(root)


def _across(value: float) -> str:
    return f"{LEFT + (RIGHT - LEFT) * value / 100:.2f}%"


def _down(value: float) -> float:
    return TOP + HEIGHT * (1 - value / 100)

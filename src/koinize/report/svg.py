"""Drawings in SVG. Across, all is in percent, so a drawing fits a desk and a telephone.

Text keeps its size because no drawing is scaled: it has no viewBox, only a height in pixels.
Colours come from the page by class, and every mark carries its numbers as a tooltip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

Shape = Literal["dot", "ring", "diamond", "up", "down"]

ROW = 40
BAR_ROW = 38
LANE = 30
AXIS = 24
TREND = 170
INSET = 2.0  # percent kept free at both sides, so that no mark is cut off

PATHS: dict[Shape, str] = {
    "diamond": "M0,-5.5 L5.5,0 L0,5.5 L-5.5,0 Z",
    "up": "M0,-5.5 L5.5,4.5 L-5.5,4.5 Z",
    "down": "M0,5.5 L5.5,-4.5 L-5.5,-4.5 Z",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval, labelled on the left (name) and right (figures)."""

    name: str
    value: float
    low: float
    high: float
    figures: str
    tooltip: str
    tone: str = ""
    shape: Shape = "dot"


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` across the drawing, with labelled ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    def percent(self, value: float) -> float:
        """Where a value stands."""
        return INSET + (100 - 2 * INSET) * (value - self.low) / (self.high - self.low)

    def at(self, value: float) -> str:
        """Where a value stands, as an attribute."""
        return f"{self.percent(value):.2f}%"


def scale_over(values: Sequence[float], *, bounds: tuple[float, float] | None = None) -> Scale:
    """A scale at least one point wide whose ends are round and hold all values.

    Its ends stay within `bounds`, which must hold the values too.
    """
    low, high = min(values), max(values)
    if high - low < 1.0:
        low, high = low - 0.5, high + 0.5
    step = _step((high - low) / 6)
    low, high = floor(low / step) * step, ceil(high / step) * step
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    ticks = [low + index * step for index in range(round((high - low) / step) + 1)]
    labels = (f"{round(tick, 6):g}".replace("-", "−") for tick in ticks)
    return Scale(low, high, tuple(zip(ticks, labels, strict=True)))


def _step(rough: float) -> float:
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def dots(
    marks: Sequence[Mark], scale: Scale, description: str, *, tolerated: float = 0.0
) -> Markup:
    """One row per mark: a point and its 95 % interval.

    With `tolerated`, the margin below zero, the range in which nothing is lost beyond it is shaded.
    """
    body = ROW * len(marks)
    root = canvas(body + AXIS, description)
    if tolerated:
        left, right = scale.percent(-tolerated), 100 - INSET
        shade = {"x": f"{left:.2f}%", "width": f"{right - left:.2f}%", "height": str(body)}
        SubElement(root, "rect", {"y": "0", "class": "tolerated", **shade})
    _axis(root, scale, body)
    for index, mark in enumerate(marks):
        _dot(root, mark, scale, ROW * index)
    return as_markup(root)


def _axis(root: Element, scale: Scale, body: int) -> None:
    for tick, label in scale.ticks:
        x = scale.at(tick)
        kind = "zero" if tick == 0 and scale.low < 0 else "grid"
        SubElement(root, "line", {"x1": x, "x2": x, "y1": "0", "y2": str(body), "class": kind})
        write(root, label, x, body + 16, "tick", _anchor(scale.percent(tick)))


def _anchor(percent: float) -> str:
    return "start" if percent < 2 * INSET else "end" if percent > 100 - 2 * INSET else "middle"


def _dot(root: Element, mark: Mark, scale: Scale, top: int) -> None:
    group = SubElement(root, "g", {"class": f"mark {mark.tone}".strip()})
    SubElement(group, "title").text = mark.tooltip
    write(group, _shortened(mark.name), "0", top + 14, "name", "start")
    write(group, mark.figures, "100%", top + 14, "figures", "end")
    y = top + 27
    across = {"x1": scale.at(mark.low), "x2": scale.at(mark.high)}
    SubElement(group, "line", {**across, "y1": str(y), "y2": str(y), "class": "whisker"})
    if mark.shape in ("dot", "ring"):
        place = {"cx": scale.at(mark.value), "cy": str(y), "r": "5", "class": mark.shape}
        SubElement(group, "circle", place)
        return
    holder = {"x": scale.at(mark.value), "y": str(y), "overflow": "visible"}
    SubElement(SubElement(group, "svg", holder), "path", {"d": PATHS[mark.shape], "class": "dot"})


def trend(marks: Sequence[Mark], scale: Scale, description: str) -> Markup:
    """Values from left to right, joined, and the level of the first one all the way across."""
    root = canvas(TREND + AXIS, description)
    for tick, label in scale.ticks:
        y = _height(scale, tick)
        SubElement(root, "line", {"x1": "9%", "x2": "100%", "y1": y, "y2": y, "class": "grid"})
        write(root, label, "7%", float(y) + 4, "tick", "end")
    places = [f"{10 + 88 * (index + 0.5) / len(marks):.2f}%" for index in range(len(marks))]
    heights = [_height(scale, mark.value) for mark in marks]
    level = {"x1": "9%", "x2": "100%", "y1": heights[0], "y2": heights[0], "class": "zero"}
    SubElement(root, "line", level)
    ends = list(zip(places, heights, strict=True))
    for (x1, y1), (x2, y2) in pairwise(ends):
        SubElement(root, "line", {"x1": x1, "x2": x2, "y1": y1, "y2": y2, "class": "whisker"})
    for mark, x, y in zip(marks, places, heights, strict=True):
        group = SubElement(root, "g", {"class": f"mark {mark.tone}".strip()})
        SubElement(group, "title").text = mark.tooltip
        low, high = _height(scale, mark.low), _height(scale, mark.high)
        SubElement(group, "line", {"x1": x, "x2": x, "y1": low, "y2": high, "class": "whisker"})
        SubElement(group, "circle", {"cx": x, "cy": y, "r": "5", "class": mark.shape})
        write(root, mark.name, x, TREND + 16, "tick", "middle")
    return as_markup(root)


def _height(scale: Scale, value: float) -> str:
    return f"{TREND * (1 - scale.percent(value) / 100):.2f}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A length, labelled above it."""

    name: str
    value: float
    figures: str
    tooltip: str
    tone: str = ""


def bars(rows: Sequence[Bar], longest: float, description: str) -> Markup:
    """One bar per row; `longest` is what the full width stands for."""
    root = canvas(BAR_ROW * len(rows), description)
    for index, bar in enumerate(rows):
        top = BAR_ROW * index
        group = SubElement(root, "g", {"class": f"bar {bar.tone}".strip()})
        SubElement(group, "title").text = bar.tooltip
        write(group, _shortened(bar.name), "0", top + 14, "name", "start")
        write(group, bar.figures, "100%", top + 14, "figures", "end")
        across = {"x": "0", "y": str(top + 20), "height": "9", "rx": "1.5"}
        SubElement(group, "rect", {**across, "width": "100%", "class": "track"})
        width = 100 * bar.value / longest if longest else 0.0
        SubElement(group, "rect", {**across, "width": f"{width:.2f}%", "class": "fill"})
    return as_markup(root)


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a lane, in seconds."""

    lane: int
    start: float
    seconds: float
    name: str
    tooltip: str
    tone: str


def lanes(
    blocks: Sequence[Block], number: int, elapsed: float, ticks: Sequence[tuple[float, str]],
    description: str,
) -> Markup:  # fmt: skip
    """Who worked when: one lane per worker, time from left to right."""
    body = LANE * number
    scale = Scale(0.0, elapsed or 1.0, tuple(ticks))
    root = canvas(body + AXIS, description)
    _axis(root, scale, body)
    for block in blocks:
        left, right = scale.percent(block.start), scale.percent(block.start + block.seconds)
        place = {"x": f"{left:.3f}%", "width": f"{max(right - left, 0.12):.3f}%"}
        frame = {"y": str(LANE * block.lane + 3), "height": str(LANE - 6), "overflow": "hidden"}
        inner = SubElement(root, "svg", {**place, **frame, "class": f"block {block.tone}"})
        SubElement(inner, "title").text = block.tooltip
        SubElement(inner, "rect", {"width": "100%", "height": "100%", "class": "fill"})
        if right - left > 7:
            write(inner, block.name, "6", 16, "inside", "start")
    return as_markup(root)


def canvas(height: int, description: str) -> Element:
    """An empty drawing of this height in pixels; the description is for those who do not see it."""
    attributes = {"width": "100%", "height": str(height), "role": "img", "class": "plot"}
    return Element("svg", {**attributes, "aria-label": description})


def write(parent: Element, text: str, x: str, y: float, kind: str, anchor: str) -> None:
    """Put a text at a place; `kind` is its class, `anchor` what of it stands there."""
    place = {"x": x, "y": f"{y:g}", "class": kind, "text-anchor": anchor}
    SubElement(parent, "text", place).text = text


def _shortened(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"


def as_markup(root: Element) -> Markup:
    """The drawing as text of a page."""
    return Markup(tostring(root, encoding="unicode"))  # noqa: S704 - ElementTree escapes all text

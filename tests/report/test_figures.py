"""The figures are what their types say: no key too many, none missing, every value of its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from typing_extensions import is_typeddict

from koinize.report import Results
from koinize.report.cost_figures import BreakEven
from koinize.report.figures import Estimate


def misfits(value: Any, kind: Any, place: str) -> list[str]:
    """Where a plain value is not of its type, all the way down."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        found = [misfits(value, one, place) for one in inner]
        return [] if [] in found else min(found, key=len)
    pairs: list[tuple[Any, Any, str]] = []
    if is_typeddict(kind):
        keys = get_type_hints(kind)
        fits = isinstance(value, dict) and keys.keys() == value.keys()
        pairs = [(value[key], one, f"{place}.{key}") for key, one in keys.items() if fits]
    elif origin is Sequence:
        fits = isinstance(value, list)
        pairs = [(one, inner[0], f"{place}[{i}]") for i, one in enumerate(value) if fits]
    elif origin is Mapping:
        fits = isinstance(value, dict)
        pairs = [(value[key], inner[1], f"{place}[{key}]") for key in value if fits]
    elif origin is Literal:
        fits = value in inner
    else:
        fits = kind is Any or type(value) is kind or (kind is float and type(value) is int)
    below = [bad for one in pairs for bad in misfits(*one)]
    return below if fits else [f"{place}: {value!r} is no {kind}"]


def test_the_results_are_what_their_types_say(realistic):
    assert misfits(realistic, Results, "results") == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"value": 1.0, "low": 0.0, "high": 2.0}, Estimate),
        ({"value": 1.0, "low": 0.0, "high": 2.0, "n": 3, "more": 1}, Estimate),
        ({"value": 1.0, "low": 0.0, "high": 2.0, "n": 3.0}, Estimate),
        ({"value": "1", "low": 0.0, "high": 2.0, "n": 3}, Estimate),
        ({"extra": 1.0, "saved": 1.0, "updates": 0.5, "until": None}, BreakEven),
        ("other", Literal["measured", "estimated"]),
        ("text", Sequence[str]),
        ([1], Sequence[str]),
        ({"de": "x"}, Mapping[str, float]),
    ],
)
def test_a_misfit_is_found(value, kind):
    """So that the test above means what it says."""
    assert misfits(value, kind, "it") != []

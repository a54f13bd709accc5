"""Blocks and whole reports as HTML: one file without scripts and without a single reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from koinize.report.blocks import Block


@cache
def environment() -> Environment:
    """The templates, which escape every value that is not Markup."""
    made = Environment(
        loader=PackageLoader("koinize.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["kind"] = lambda block: type(block).__name__
    return made


def blocks_html(blocks: Sequence[Block]) -> Markup:
    """The blocks, one after another."""
    return Markup(environment().get_template("blocks.html").render(blocks=blocks))  # noqa: S704

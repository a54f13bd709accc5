"""The specification that all of this followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from koinize.report.blocks import Block, pairs
from koinize.report.figures import Results
from koinize.report.formats import DASH
from koinize.report.section import Section


class Settings(Section):
    """Every value under its full name."""

    title = "Settings"
    order = 80

    def data(self, results: Results) -> Sequence[Block]:
        """Nothing without a specification."""
        rows = list(_flat("", results["spec"]))
        return [pairs(rows, "the specification", "name", "value")] if results["spec"] else []


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Nested values under dotted names."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list) and any(isinstance(one, (Mapping, list)) for one in value):
        for index, item in enumerate(value):
            yield from _flat(f"{name}[{index}]", item)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or DASH
    else:
        yield name, DASH if value in (None, "", {}) else str(value)


section = Settings()

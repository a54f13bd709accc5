"""The specification that all of this followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from koinize.report._blocks import Block, Heading, pairs
from koinize.report._section import Results, Section


class Settings(Section):
    """One table per part of the specification."""

    title = "Settings"
    order = 80

    def data(self, results: Results) -> Sequence[Block]:
        """Plain values first, then each part under its own heading."""
        spec = results["spec"]
        alone = {key: value for key, value in spec.items() if not isinstance(value, Mapping)}
        blocks: list[Block] = [pairs(list(_flat("", alone)))] if alone else []
        for name, part in spec.items():
            if isinstance(part, Mapping) and part:
                blocks += [Heading(name), pairs(list(_flat("", part)))]
        return blocks


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Nested values as dotted names."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, (list, tuple)) and any(isinstance(one, Mapping) for one in value):
        for index, item in enumerate(value):
            yield from _flat(f"{name}[{index}]", item)
    else:
        yield name, _said(value)


def _said(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_said(one) for one in value)
    return "–" if value in (None, "", {}) else str(value)


section = Settings()

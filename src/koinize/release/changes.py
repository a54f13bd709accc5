"""What changed from one release to another: data, settings, scores, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from koinize.release.archive import Release
from koinize.release.promotion import EVIDENCE


@dataclass(frozen=True)
class Changes:
    """Every entry is (what, before, after); a side that lacks it is None.

    `data` and `settings` list what differs only; `scores` and `cost` list everything. A score is
    the plain mapping of value, low, high, n and signature.
    """

    before: str
    after: str
    same_adapter: bool
    data: tuple[tuple[str, Any, Any], ...]
    settings: tuple[tuple[str, Any, Any], ...]
    scores: tuple[tuple[str, Any, Any], ...]
    cost: tuple[tuple[str, Any, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        listed = {
            part: [
                {"what": what, self.before: old, self.after: new}
                for what, old, new in getattr(self, part)
            ]
            for part in ("data", "settings", "scores", "cost")
        }
        return {"same_adapter": self.same_adapter, **listed}


def changes(before: Release, after: Release) -> Changes:
    """Compare two verified releases of one task."""
    old, new = before.read_json(EVIDENCE), after.read_json(EVIDENCE)
    return Changes(
        before=before.name,
        after=after.name,
        same_adapter=before.record["adapter"] == after.record["adapter"],
        data=_differing(old["data"], new["data"]),
        settings=_differing(_flat(before.record["settings"]), _flat(after.record["settings"])),
        scores=_side_by_side(_scores(old), _scores(new)),
        cost=_side_by_side(_flat(old["cost"]), _flat(new["cost"])),
    )


def _side_by_side(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[tuple[str, Any, Any], ...]:
    return tuple((key, old.get(key), new.get(key)) for key in {**old, **new})


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    return tuple(
        one for one in sorted(_side_by_side(old, new), key=lambda one: one[0]) if one[1] != one[2]
    )


def _scores(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{one['language']} {one['metric']}": {
            key: value for key, value in one.items() if key not in ("language", "metric")
        }
        for one in evidence["scores"]
    }


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """`{"lora": {"r": 8}}` -> `{"lora.r": 8}`."""
    return dict(_leaves(value, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else key)
    else:
        yield name, value

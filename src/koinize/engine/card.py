"""The model card of a merged adapter: what it is made of, in a form that others can check.

A card holds no date and no path, so that the same merge writes the same bytes anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence


def render_card(
    front: Mapping[str, object],
    *,
    title: str,
    recipe: str,
    settings: Mapping[str, object],
    inputs: Iterable[tuple[str, float, str]],
    outcome: Sequence[str],
    errors: Iterable[tuple[str, int, float]],
) -> str:
    """README.md with YAML front matter.

    inputs: (language, weight, digest); errors: (module, rank, relative Frobenius error).
    """
    lines = [
        "---",
        *(f"{key}: {_yaml(value)}" for key, value in front.items() if value not in ("", None)),
        "---",
        "",
        f"# {title}",
        "",
        recipe,
        "",
        *(f"- {line}" for line in outcome),
        "",
        "| language | weight | adapter (SHA-256) |",
        "|---|---|---|",
        *(f"| {language} | {weight:g} | `{digest}` |" for language, weight, digest in inputs),
        "",
        "Settings:",
        "",
        "```json",
        json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False),
        "```",
        "",
        "<details><summary>Rank and relative error of every module</summary>",
        "",
        "| module | rank | error |",
        "|---|---|---|",
        *(f"| {module} | {rank} | {error:.6f} |" for module, rank, error in errors),
        "",
        "</details>",
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """JSON is YAML; quoting every string keeps `no` Norwegian."""
    return json.dumps(value, ensure_ascii=False)

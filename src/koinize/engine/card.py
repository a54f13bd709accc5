"""The model card of a merged adapter: what it is made of, in a form that others can check.

A card holds no date and no path, so that the same merge writes the same bytes in any place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from koinize.merge.option import shortest_decimal
from koinize.shown import json_text, markdown

# What `koinize verify` reads again: tables, by their first line.
INPUTS = "| language | weight | adapter (SHA-256) |"
FILES = "| file | SHA-256 |"
ERRORS = "| module | rank | error |"
GROUPS = "Merged first, and then with one another: "
TRUNK = "Trunk (SHA-256): "
# How the lines begin that state what the merge came to.
OUTCOMES = ("- Modules: ", "- Lost by the change of rank: ", "- Written in ")


def table_rows(card: str, header: str) -> dict[str, str]:
    """The lines of one of a card's tables, by their first column; empty if it has no such table."""
    _, _, rest = card.partition(f"\n{header}\n")
    rows = takewhile(lambda line: line.startswith("|"), rest.splitlines()[1:])
    return {row.split("|")[1].strip(): row for row in rows}


def stated_line(card: str, what: str) -> str:
    """What follows in the line that states this, such as TRUNK; empty if there is none."""
    lines = (line for line in card.splitlines() if line.startswith(f"- {what}"))
    return next(lines, "").removeprefix(f"- {what}")


def front_matter(front: Mapping[str, object]) -> list[str]:
    """The lines that a hub reads: a block of YAML, and an empty line."""
    keys = (f"{key}: {_yaml(value)}" for key, value in front.items() if value not in ("", None))
    return ["---", *keys, "---", ""]


def render_card(
    front: Mapping[str, object],
    *,
    title: str,
    recipe: str,
    settings: Mapping[str, object],
    inputs: Iterable[tuple[str, float, str]],
    outcome: Sequence[str],
    notes: Sequence[str],
    errors: Iterable[tuple[str, int, float]],
    files: Mapping[str, str],
) -> str:
    """README.md with YAML front matter.

    outcome: lines of ours in Markdown; notes: text that may quote an input.
    inputs: (language, weight, digest); errors: (module, rank, relative Frobenius error); files:
    the digests of the folder's other files, by name.
    """
    lines = [
        *front_matter(front),
        f"# {markdown(title)}",
        "",
        recipe,
        "",
        *(f"- {line}" for line in outcome),
        *(f"- {markdown(note)}" for note in notes),
        "",
        INPUTS,
        "|---|---|---|",
        *(
            f"| {markdown(language)} | {shortest_decimal(weight)} | `{digest}` |"
            for language, weight, digest in inputs
        ),
        "",
        FILES,
        "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in files.items()),
        "",
        "Settings:",
        "",
        "```json",
        json_text(settings, indent=2),
        "```",
        "",
        "<details><summary>Rank and relative error of every module</summary>",
        "",
        ERRORS,
        "|---|---|---|",
        *(f"| {markdown(module)} | {rank} | {error:.6f} |" for module, rank, error in errors),
        "",
        "</details>",
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """JSON is YAML; quoting every string keeps `no` Norwegian."""
    return json_text(value)

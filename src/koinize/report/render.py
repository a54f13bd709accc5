"""All sections in their order, as one HTML file or in a terminal."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files

from markupsafe import Markup
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from koinize.catalog import Catalog
from koinize.report.figures import Results
from koinize.report.formats import count, listing
from koinize.report.html import environment
from koinize.report.section import Section

BEGINS = "<!doctype html>"
"""How every report begins: by it one is known that may be written over."""

sections = Catalog[Section]("koinize.report.sections", "section")


def in_order() -> list[tuple[str, Section]]:
    """Every section with its name, as they follow one another."""
    found = [(name, sections.get(name)) for name in sections.names()]
    return sorted(found, key=lambda pair: pair[1].order)


def render_html(results: Results) -> str:
    """The whole report as one HTML file that needs no network."""
    parts = [
        {"id": name, "title": section.title, "content": content}
        for name, section in in_order()
        if (content := section.html(results).strip())
    ]
    style = files("koinize.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("report.html")
        .render(
            results=results,
            parts=parts,
            style=Markup(style),  # noqa: S704 - our own file
            subtitle=_subtitle(results),
            created=_created(results),
        )
    )


def render_text(results: Results, console: Console) -> None:
    """The whole report in a terminal."""
    console.print(Text(f"{results['project']} · {_subtitle(results)}", style="bold"))
    for _, section in in_order():
        blocks = section.text(results)
        if blocks:
            console.print(Padding(Text(section.title.upper(), style="bold cyan"), (1, 0, 0, 0)))
        for block in blocks:
            console.print(block)


def _subtitle(results: Results) -> str:
    tasks = [f"{task['name']} ({task['kind']})" for task in results["tasks"]]
    languages = sorted({one for task in results["tasks"] for one in task["languages"]})
    base = results["spec"].get("base") or {}
    parts = [
        f"base model {base['model']}" if "model" in base else "",
        f"{count(len(languages), 'language')}: {', '.join(languages)}" if languages else "",
        f"{'task' if len(tasks) == 1 else 'tasks'} {listing(tasks)}" if tasks else "",
    ]
    return " · ".join(part for part in parts if part)


def _created(results: Results) -> str:
    try:
        return datetime.fromisoformat(results["created"]).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return str(results["created"])

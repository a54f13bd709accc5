"""`koinize show`: one example as the base model gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from koinize.cli.options import PROJECT, AsJson, Place, SpecFile, open_project, print_json

if TYPE_CHECKING:
    from koinize.pipeline.exhibit import Exhibit, Part


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel=PROJECT)(show)


def show(
    task: Annotated[str, typer.Argument(help="A task of koinize.yaml.")],
    language: Annotated[str, typer.Argument(help="One of its languages.")],
    place: Place = None,
    spec: SpecFile = None,
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "train",
    as_json: AsJson = False,
) -> None:
    """Show one example's exact text and tokens.

    As the base model gets them: what is prompt, what is target, and what stands between the two.
    """
    from koinize.pipeline.exhibit import exhibit

    project = open_project(place, spec)
    found = exhibit(project, task, language, split)
    if as_json:
        print_json(_plain(found))
        return
    typer.echo(f"{task}, {language}: example {found.key}, the first of {found.rows} {split} rows")
    typer.echo("\n".join(_lines(found)))


def _lines(found: Exhibit) -> list[str]:
    through = "the base model's chat template" if found.is_chat else "no chat template"
    lines = [f"through {through}", *_text("prompt", found.prompt), *_text("target", found.target)]
    lines += ["", f"between prompt and answer: {found.between!r}"]
    if found.unsaid:
        lines.append(f"a server sends this, too, before the answer: {found.unsaid!r}")
    if found.truncated:
        lines.append("the prompt lost tokens from its middle to training.max_length")
    lines += ["", "tokens of the prompt", _tokens(found.prompt)]
    lines += ["tokens of the target", _tokens(found.target)]
    if found.options:
        lines += ["", "scored after the prompt"]
        if len(found.before_options.ids) > len(found.prompt.ids):
            lines[-1] += f" and {found.before_options.text[len(found.prompt.text) :]!r}"
    for number, (label, option) in enumerate(zip(found.labels, found.options, strict=True)):
        lines.append(f"{'*' if number == found.gold else ' '} {label}: {_tokens(option)}")
    if found.written:
        lines.append(f"also written after it: a line of at most {found.written} tokens")
    return lines


def _text(name: str, part: Part) -> list[str]:
    return ["", f"{name}, {len(part.ids)} tokens", part.text]


def _tokens(part: Part) -> str:
    return " ".join(map(repr, part.pieces))


def _plain(found: Exhibit) -> dict[str, Any]:
    def part(one: Part) -> dict[str, Any]:
        return {"text": one.text, "tokens": list(zip(one.ids, one.pieces, strict=True))}

    return {
        "key": found.key,
        "chat": found.is_chat,
        "prompt": part(found.prompt),
        "target": part(found.target),
        "between": found.between,
        "server_only": found.unsaid,
        "truncated": found.truncated,
        "before_options": part(found.before_options) if found.options else None,
        "written": found.written,
        "options": [
            {"label": label, "right": number == found.gold, **part(one)}
            for number, (label, one) in enumerate(zip(found.labels, found.options, strict=True))
        ],
    }

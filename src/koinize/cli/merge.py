"""The merge engine alone: PEFT folders in, one PEFT folder out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from koinize.cli.modules_progress import Report, counting_modules
from koinize.cli.options import ADAPTERS, outside
from koinize.cli.words import key_values, number_or_word
from koinize.errors import GateError, Interrupted
from koinize.machine import keep_memory

if TYPE_CHECKING:
    from koinize.engine import MergeReport

Trunk = Annotated[
    Path | None, typer.Option(help="The adapter that all were trained on from: differences count.")
]
Adapters = Annotated[list[str], typer.Argument(help="LANGUAGE=FOLDER, one for each language.")]
Out = Annotated[
    Path,
    typer.Option("-o", "--out", callback=outside, help="The folder to write; must not exist."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Threads = Annotated[int, typer.Option(min=1, help="Modules at once; changes no byte.")]

DTYPES = "auto (bfloat16 if all factors are, else float32), float32, bfloat16 or float16."


class Merge(TyperCommand):
    """`koinize merge`, which gets its options when it is called.

    They are those of `MergeSettings`, and `koinize --help` has no need of that.
    """

    def make_context(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as click's
        """That of a command with all options, which click then invokes."""
        from koinize.cli.merge_options import taking_settings

        alone = typer.Typer(
            add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
        )
        alone.command(self.name)(taking_settings(merge))
        return typer.main.get_command(alone).make_context(*given, **named)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("merge", cls=Merge, help=getdoc(merge), rich_help_panel=ADAPTERS)(lambda: None)
    for command in (recipes, inspect, fuse, resize, verify):
        app.command(rich_help_panel=ADAPTERS)(command)


def merge(
    adapters: Adapters,
    out: Out,
    *,
    trunk: Trunk = None,
    threads: Threads = 1,
    max_memory: Annotated[
        str | None, typer.Option(help="Of tensors in work, such as 1.5GB; changes no byte.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    as_json: AsJson = False,
    **options: Any,  # noqa: ANN401 - those of MergeSettings
) -> None:
    """Merge PEFT LoRA folders of one base into one.

    The base model is not read.
    """
    from koinize.cli.merge_options import settings_of
    from koinize.engine import merge_adapters

    settings = settings_of(options)
    with watched(as_json) as progress:
        report = merge_adapters(
            _folders(adapters),
            settings,
            out=out,
            trunk=trunk,
            threads=threads,
            max_memory=max_memory,
            device=device,
            progress=progress,
        )
    tell(report, as_json=as_json)


def tell(report: MergeReport, *, as_json: bool) -> None:
    """Say what a merge came to."""
    settings = report.settings
    _warn(report)
    if as_json:
        _print(settings=settings.model_dump(mode="json", exclude_defaults=True), **_record(report))
        return
    typer.echo(f"{report.out}: {settings.describe()}, {len(report.modules)} modules")
    typer.echo(f"rank {report.rank}, {report.error:.2%} lost by the change of rank")
    typer.echo(f"written in {report.precision}")
    if report.vllm_flags:
        typer.echo(f"vLLM: {report.vllm_flags}")


def recipes(as_json: AsJson = False) -> None:
    """List the merge recipes, their options and their papers."""
    from dataclasses import asdict

    from koinize.merge.recipe import RECIPES

    found = {name: RECIPES.get(name) for name in RECIPES.names()}
    if as_json:
        _print(**{name: asdict(recipe) for name, recipe in found.items()})
        return
    for name, recipe in found.items():
        typer.echo(f"{name:16} {recipe.title} {recipe.paper}.")
        if recipe.options:
            typer.echo(f"{'':16} options: {', '.join(sorted(recipe.options))}")


def inspect(
    adapters: Adapters,
    by: Annotated[
        str | None, typer.Option(help="Also one row for each `module` or `layer`.")
    ] = None,
    trunk: Trunk = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Show what is in adapters, and how they interfere."""
    from dataclasses import asdict

    from koinize.cli.inspect_view import show_inspection
    from koinize.engine.inspect import inspect_adapters, part_kind

    found = inspect_adapters(_folders(adapters), trunk=trunk, threads=threads, by=part_kind(by))
    if as_json:
        record = asdict(found)
        parts, total = record.pop("parts"), record.pop("total")
        _print(**record, **total, parts=parts)
        return
    show_inspection(found)


def fuse(
    adapter: Annotated[Path, typer.Argument(help="The adapter's folder.")],
    base: Annotated[Path, typer.Argument(help="The base model's folder.")],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Add an adapter to its base model.

    Writes the model's safetensors files, and says what rounding lost.
    """
    from koinize.engine.fuse import fuse_adapter

    with watched(as_json) as progress:
        report = fuse_adapter(adapter, base, out=out, progress=progress)
    if as_json:
        _print(out=str(report.out), modules=report.modules, loss=report.loss)
        return
    typer.echo(f"{report.out}: {report.modules} modules")
    typer.echo(f"{report.loss:.2%} of the adapter's update was lost to the base's dtype")


def resize(
    adapter: Annotated[Path, typer.Argument(help="The adapter's folder.")],
    rank: Annotated[str, typer.Argument(help="A number, or a share of the energy such as 0.99.")],
    out: Out,
    dtype: Annotated[str, typer.Option(help=DTYPES)] = "auto",
    as_json: AsJson = False,
) -> None:
    """Change the rank of an adapter, with the least error."""
    from koinize.engine.resize import resize_adapter

    with watched(as_json) as progress:
        report = resize_adapter(
            adapter, number_or_word(rank), out=out, dtype=dtype, progress=progress
        )
    _warn(report)
    if as_json:
        _print(**_record(report))
        return
    typer.echo(f"{report.out}: rank {report.rank}, {report.error:.2%} lost")


def verify(
    folder: Annotated[Path, typer.Argument(help="A merged adapter.")],
    adapters: Annotated[
        list[str] | None, typer.Argument(help="Its inputs, LANGUAGE=FOLDER: merges them again.")
    ] = None,
    trunk: Trunk = None,
    as_json: AsJson = False,
) -> None:
    """Check an adapter against its card and its inputs.

    With its inputs the merge is done again, and compared: byte for byte, and where another
    processor rounds otherwise by how far its updates are apart.
    """
    from koinize.engine.verify import verify_adapter

    with watched(as_json) as progress:
        inputs = _folders(adapters) if adapters else None
        found = verify_adapter(folder, inputs, trunk=trunk, progress=progress)
    if as_json:
        _print(checked=found.checked, mismatches=found.mismatches)
    if found.mismatches:
        raise GateError("\n".join(found.mismatches), where=str(folder))
    for checked in () if as_json else found.checked:
        typer.echo(f"holds: {checked}")


def _warn(report: MergeReport) -> None:
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if report.repeated:
        typer.echo(
            f"note: {sum(report.repeated.values())} decompositions in {len(report.repeated)} "
            "modules were repeated by another library, because the first one's result was none",
            err=True,
        )


def _record(report: MergeReport) -> dict[str, object]:
    return {
        "out": str(report.out),
        "rank": report.rank,
        "error": report.error,
        "dtype": report.dtype,
        "modules": {one.name: {"rank": one.rank, "error": one.error} for one in report.modules},
        "repeated_decompositions": dict(report.repeated),
        "inputs": dict(report.inputs),
        "trunk": report.trunk,
        "seconds": report.seconds,
        "vllm_flags": report.vllm_flags,
        "warnings": list(report.warnings),
    }


def _folders(given: list[str]) -> dict[str, Path]:
    pairs = key_values(given, "LANGUAGE=FOLDER")
    return {language: Path(folder) for language, folder in pairs.items()}


@contextmanager
def watched(as_json: bool) -> Iterator[Report | None]:
    """Progress on standard error, none for machines; Ctrl-C in a word.

    The process keeps its memory from here on, as a command may that then ends.
    """
    keep_memory()
    try:
        with counting_modules(quiet=as_json) as progress:
            yield progress
    except KeyboardInterrupt:
        raise Interrupted("stopped", remedy="nothing was written") from None


def _print(**found: object) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2))

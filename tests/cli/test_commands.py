"""The commands as a whole: their help, their project, and what documents and messages type."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

import koinize
from koinize.cli import application
from koinize.cli.options import ACCOUNT, ADAPTERS, PROJECT, RELEASES, open_project
from tests.cli.conftest import Call

ROOT = Path(__file__).parents[2]
SOURCE = Path(koinize.__file__).parent
COMMANDS: Any = typer.main.get_command(application())
USAGE_ERROR: Any = typer.BadParameter.__base__


def leaves(command: Any = COMMANDS, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that call it."""
    for name, one in getattr(command, "commands", {}).items():
        yield from leaves(one, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


def parse(words: Sequence[str], command: Any = COMMANDS) -> None:
    """Parse these words as the command line does, without doing anything."""
    context = command.make_context(command.name, list(words))
    if hasattr(command, "commands"):
        _, one, rest = command.resolve_command(context, [*words])
        parse(rest, one)


def test_the_help_lists_every_command_in_a_group_with_its_whole_line(koinize: Call) -> None:
    code, out, _ = koinize("--help")
    assert code == 0
    titles = [line[:-1] for line in out.splitlines() if re.fullmatch(r"[A-Z]\w+:", line)]
    assert titles == ["Options", PROJECT, RELEASES, ADAPTERS, ACCOUNT]
    listed = re.findall(r"^  ([a-z-]+)  +(.+)", out.partition(f"\n{PROJECT}:")[2], re.MULTILINE)
    assert {name for name, _ in listed} == set(COMMANDS.commands)
    assert [line for _, line in listed if not re.fullmatch(r"[A-Z].*[^.]\.", line)] == []


@pytest.mark.parametrize("group", ["language", "ledger"])
def test_the_help_of_a_group_has_whole_lines_too(koinize: Call, group: str) -> None:
    _, out, _ = koinize(group, "--help")
    assert "Commands:" in out
    assert "..." not in out.partition("Commands:")[2]


def test_every_command_of_a_project_takes_it_as_its_last_argument() -> None:
    wrong = []
    for words, command in leaves():
        options = {name for one in command.params for name in one.opts}
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        last = arguments[-1].name if arguments else ""
        if ("--spec" in options) != (last == "place"):
            wrong.append(words)
    assert wrong == []


@pytest.mark.parametrize("named", ["demo", "demo/koinize.yaml", "--spec demo", "--spec=demo"])
def test_a_project_is_a_folder_or_a_file_as_argument_or_option(
    tmp_path: Path, koinize: Call, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "koinize.yaml").touch()
    monkeypatch.chdir(tmp_path)
    code, out, _ = koinize("ledger", "show", *named.split())
    assert (code, out) == (0, "nothing was recorded yet\n")


def test_a_project_that_is_named_twice(call: Call) -> None:
    assert call("run", "demo", "--spec", "other") == (
        2,
        "",
        "koinize: the project is named twice, as 'demo' and with --spec 'other'; expected one of "
        "the two\n",
    )


# What is typed in documents, in examples and in the messages of the program itself.

WORDS_NOT_A_COMMAND = {
    "koinize computes it differently now",
    "koinize gives such a base model its texts differently now",
}
"""A reason, as `plan` prints it."""


def documents() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in ("docs", "examples"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return found


def blocks(text: str) -> Iterator[str]:
    """What stands on the lines of a document's blocks, one command each, without a prompt."""
    for block in re.findall(r"^```[\w ]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part.strip().removeprefix("$ ") for part in line.split("&&"))


def fenced(text: str) -> Iterator[str]:
    """The commands of ours among them."""
    yield from (one for one in blocks(text) if one.startswith("koinize "))


def inline(text: str) -> Iterator[str]:
    """The commands between backticks, also without the program's name where an option follows."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        words = " ".join(span.split())
        if words.startswith("koinize ") and words not in WORDS_NOT_A_COMMAND:
            yield words
        elif re.match(rf"({'|'.join(COMMANDS.commands)}) (\S+ )?--", words):
            yield f"koinize {words}"


def refused(command: str, *, mentioned: bool = False) -> str | None:
    """Why the application would not take a command; one that is only mentioned may lack words."""
    try:
        parse(shlex.split(command, comments=True)[1:])
    except typer.Exit:  # of --help
        return None
    except USAGE_ERROR as error:
        missing = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError")
        return None if mentioned and missing else f"{command}: {error or type(error).__name__}"
    return None


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_document_are_those_of_the_program(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [refused(one) for one in fenced(text)]
    found += [refused(one, mentioned=True) for one in inline(text)]
    assert list(filter(None, found)) == []


def test_the_commands_of_the_makefile_and_of_commented_projects_are_those_of_the_program() -> None:
    made = re.findall(r"\$\(BIN\)/(koinize [^|\n]+)", (ROOT / "Makefile").read_text())
    specs = "\n".join(path.read_text() for path in sorted(SOURCE.rglob("koinize.yaml")))
    said = re.findall(r"^# +(koinize [a-z]+)  ", specs, re.MULTILINE)
    assert (len(made), len(said)) == (11, 3)
    assert list(filter(None, map(refused, [*made, *said]))) == []


def test_the_commands_that_messages_name_are_those_of_the_program() -> None:
    """Whatever a message, a help text or a docstring has between backticks."""
    texts = {
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found = {one for text in texts for one in inline(text)}
    assert {"koinize run", "koinize doctor --mend", "koinize gc"} <= found
    assert list(filter(None, (refused(one, mentioned=True) for one in sorted(found)))) == []


def test_the_projects_that_documents_run_are_there() -> None:
    commands = [one for path in documents() for one in fenced(path.read_text(encoding="utf-8"))]
    named = {word for one in commands for word in one.split() if word.startswith("examples/")}
    assert named >= {"examples/debian/topic"}
    for place in named:
        assert open_project(ROOT / place).spec.tasks


def test_the_scripts_and_targets_that_documents_run_are_there() -> None:
    """`python FILE` from the root or beside the document, and `make TARGET`."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found, missing = 0, []
    for path in documents():
        for line in blocks(path.read_text(encoding="utf-8")):
            script = re.match(r"(?:\S+=\S+ )*python (\S+\.py)", line)
            target = re.match(r"make (\w+)", line)
            found += bool(script or target)
            if script and not any((one / script[1]).exists() for one in (ROOT, path.parent)):
                missing.append(line)
            if target and target[1] not in targets:
                missing.append(line)
    assert missing == []
    assert found > 5


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("koinize run a b", "b"),
        ("koinize runn", "runn"),
        ("koinize plan --spek x", "--spek"),
        ("koinize language change ja", "change"),
        ("koinize merge en=A", "out"),
    ],
)
def test_a_command_that_is_none_is_found(command: str, said: str) -> None:
    """So that the tests above mean what they say."""
    assert said in (refused(command) or "")

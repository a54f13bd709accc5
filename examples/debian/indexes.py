"""Fetch apt's package and translation indexes and read them into plain records."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from koinize.errors import InputError, StepError

APT_LANGUAGES = {"de": "de", "en": "en", "fr": "fr", "ja": "ja", "zh": "zh_CN"}
"""Language code of the data -> name of apt's translation index."""

APT_HELPER = Path("/usr/lib/apt/apt-helper")

# `#clear` because a machine may have set its own list of languages (containers often say "none")
# and hooks that expect the system's own folders.
APT_SETTINGS = """\
#clear Acquire::Languages;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages {{ {languages} }};
Dir::State::Lists "{cache}/lists";
Dir::Cache "{cache}/apt";
"""

_INDEX_NAME = re.compile(r"_(?:(Packages)|Translation-([A-Za-z]+(?:%5f[A-Za-z]+)?))(?:\.\w+)?$")
WIDE = re.compile(
    "[\u2e80-\u303e\u3041-\u9fff\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60]"
)
"""A character that takes two columns of a terminal, as Chinese and Japanese ones do."""

_BULLET = re.compile(r"(?:[-*+o•·]|\d+[.)])\s+\S")


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package: where it comes from and how the archive files it."""

    name: str
    source: str
    section: str


@dataclass(frozen=True, slots=True)
class Description:
    """One package's description in one language.

    `original` is apt's MD5 of the English description: it ties a translation to what was
    translated. `paragraphs` hold unwrapped lines, a list item on its own line.
    """

    package: str
    original: str
    short: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Indexes:
    """Everything that was read: packages by name, descriptions by language code."""

    files: tuple[Path, ...]
    packages: dict[str, Package]
    descriptions: dict[str, list[Description]]


def fetch(cache: Path) -> Path:
    """Let apt download the indexes into `cache`/lists; the system's own lists stay untouched.

    Raises StepError where apt is missing or the download fails.
    """
    if shutil.which("apt-get") is None or not APT_HELPER.exists():
        raise StepError(
            "apt is not installed here",
            remedy="run this on Debian or Ubuntu, or copy an apt lists folder and pass --lists",
        )
    lists = (cache / "lists").resolve()
    for folder in (lists / "partial", cache.resolve() / "apt" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    languages = " ".join(f'"{name}";' for name in APT_LANGUAGES.values())
    settings = cache / "apt.conf"
    settings.write_text(APT_SETTINGS.format(languages=languages, cache=cache.resolve()))
    command = ["apt-get", "-q", "-c", str(settings), "update"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # apt-get reports a failed download with status 0 when it hopes to use an older index.
    if done.returncode != 0 or "Failed to fetch" in done.stderr:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise StepError(
            f"apt-get could not fetch the indexes: {lines[0]}",
            remedy="check the network and /etc/apt/sources.list, or pass --lists with a folder",
        )
    return lists


def complete(lists: Path) -> bool:
    """Whether `lists` holds package records and a translation index for every language."""
    return not _missing(_index_files(lists))


def read(lists: Path) -> Indexes:
    """Read all indexes of a lists folder. Raises InputError where one is missing."""
    files = _index_files(lists)
    if missing := _missing(files):
        raise InputError(
            f"holds no index of: {', '.join(missing)}",
            where=str(lists),
            expected="an apt lists folder with Packages and Translation files",
            remedy="leave --lists out to fetch them with apt",
        )
    packages: dict[str, Package] = {}
    for path in files["Packages"]:
        for fields in records(_contents(path)):
            package = _package(fields)
            packages.setdefault(package.name, package)
    descriptions = {
        code: [
            description
            for path in files[name]
            for description in map(_description, records(_contents(path)))
        ]
        for code, name in APT_LANGUAGES.items()
    }
    return Indexes(tuple(p for kind in sorted(files) for p in files[kind]), packages, descriptions)


def records(text: str) -> Iterator[dict[str, str]]:
    """The records of a deb822 index: field -> value, continuation lines after newlines."""
    for block in re.split(r"\n\n+", text.strip("\n")):
        fields: dict[str, str] = {}
        name = ""
        for line in block.split("\n"):
            if line.startswith((" ", "\t")):
                fields[name] = f"{fields[name]}\n{line[1:]}"
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def unwrap(lines: list[str]) -> tuple[str, ...]:
    """Paragraphs from the wrapped lines of a long description.

    A line with only a full stop ends a paragraph. Wrapped lines become one; a list item, and a
    line that the author indented outside a list, keeps its own.
    """
    paragraphs: list[str] = []
    kept: list[str] = []
    for line in [*lines, "."]:
        content = " ".join(line.split())
        if content in {"", "."}:
            if kept:
                paragraphs.append("\n".join(kept))
            kept = []
        elif not kept or _starts_line(line, content, kept[-1]):
            kept.append(content)
        else:
            kept[-1] = _joined(kept[-1], content)
    return tuple(paragraphs)


def _index_files(lists: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(lists.glob("*_*")):
        if match := _INDEX_NAME.search(path.name):
            kind = match[1] or match[2].replace("%5f", "_")
            files.setdefault(kind, []).append(path)
    return files


def _missing(files: dict[str, list[Path]]) -> list[str]:
    return [kind for kind in ("Packages", *APT_LANGUAGES.values()) if kind not in files]


def _contents(path: Path) -> str:
    if path.name.endswith("_Packages") or "." not in path.name.rpartition("_Translation-")[2]:
        return path.read_text(encoding="utf-8")
    command = [str(APT_HELPER), "cat-file", str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")
    except (OSError, subprocess.CalledProcessError) as error:
        raise StepError(
            f"cannot be unpacked: {error}", where=str(path), remedy="install apt, or unpack it"
        ) from error


def _package(fields: dict[str, str]) -> Package:
    name = fields["Package"]
    source = fields.get("Source", name).split(" ")[0]  # "name (version)" where versions differ
    return Package(name, source, fields.get("Section", "").rpartition("/")[2])


def _description(fields: dict[str, str]) -> Description:
    field = next(n for n in fields if n.startswith("Description-") and n != "Description-md5")
    short, *long = unicodedata.normalize("NFC", fields[field]).split("\n")
    return Description(
        fields["Package"], fields.get("Description-md5", ""), short.strip(), unwrap(long)
    )


def _starts_line(line: str, content: str, previous: str) -> bool:
    if _BULLET.match(content):
        return True
    return line.startswith(" ") and not _BULLET.match(previous)


def _joined(left: str, right: str) -> str:
    # Chinese and Japanese put no space between words, so a wrapped line ends without one.
    return f"{left}{'' if WIDE.match(left[-1]) or WIDE.match(right) else ' '}{right}"

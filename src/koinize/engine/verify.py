"""Checking a merged adapter against its inputs and its card, by doing the merge again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from koinize.adapter import open_adapter, read_header
from koinize.digest import file_digest
from koinize.engine import adapter_digest, merge_adapters
from koinize.errors import InputError
from koinize.recipe import merge_settings

CARD_FILE = "README.md"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and every mismatch in words; no mismatch means that all holds."""

    checked: tuple[str, ...]
    mismatches: tuple[str, ...]


def verify_adapter(
    folder: Path | str,
    adapters: Mapping[str, Path | str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Reload an adapter: header, shapes and finiteness of every tensor.

    With its inputs, by language, also their digests against the card, and the merge itself: it is
    repeated with the card's settings, and must give the same bytes (and so the stated error).
    Raises InputError if the adapter cannot be read at all.
    """
    folder = Path(folder)
    header = read_header(folder)
    with open_adapter(header) as adapter:
        for module in header.modules:
            adapter.factors(module)
        for name in header.saved:
            for _ in adapter.saved(name):
                pass  # reading it is the check
    checked = [f"{len(header.modules)} modules: shapes and finite values"]
    if not adapters:
        return Verification(tuple(checked), ())
    card = (folder / CARD_FILE).read_text(encoding="utf-8") if _has_card(folder) else ""
    mismatches = []
    for language, path in sorted(adapters.items()):
        identity = adapter_digest(read_header(path))
        rows = [line for line in card.splitlines() if line.startswith(f"| {language} |")]
        if not any(identity in row for row in rows):
            mismatches.append(f"the card does not name '{language}' with digest {identity}")
    checked.append(f"{len(adapters)} input digests")
    if not mismatches:
        mismatches += _repeated(folder, adapters, card, progress)
        checked.append("the merge, done again")
    return Verification(tuple(checked), tuple(mismatches))


def _has_card(folder: Path) -> bool:
    return (folder / CARD_FILE).is_file()


def _repeated(
    folder: Path,
    adapters: Mapping[str, Path | str],
    card: str,
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".verify.") as work:
        settings = merge_settings(**_stated_settings(folder, card))
        again = merge_adapters(adapters, settings, out=Path(work) / "again", progress=progress)
        return [
            f"{path.name} differs from what the settings in the card give"
            for path in sorted(again.out.iterdir())
            if path.name != CARD_FILE and file_digest(path) != file_digest(folder / path.name)
        ] + _error_mismatch(card, again.error)


def _stated_settings(folder: Path, card: str) -> dict[str, object]:
    _, fence, rest = card.partition("```json\n")
    try:
        settings = json.loads(rest.partition("```")[0])
    except ValueError:
        settings = None
    if not fence or not isinstance(settings, dict):
        raise InputError(
            "has no settings to merge again with",
            where=str(folder / CARD_FILE),
            expected="a card that koinize wrote",
        )
    return settings


def _error_mismatch(card: str, error: float) -> list[str]:
    stated = f"Lost by the change of rank: {error:.3%} of the Frobenius norm."
    return [] if stated in card else [f"the card does not state the measured error {error:.3%}"]

"""Checking a merged adapter against its inputs and its card, by doing the merge again."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from koinize.adapter import AdapterHeader, Factors, open_adapter, read_header
from koinize.adapter.config import CONFIG_FILE
from koinize.adapter.header import WEIGHTS_FILE
from koinize.digest import file_digest
from koinize.engine.card import (
    ERRORS,
    FILES,
    INPUTS,
    OUTCOMES,
    TRUNK,
    stated_line,
    table_rows,
)
from koinize.engine.merging import adapter_digest, merge_adapters
from koinize.errors import InputError, StepError
from koinize.files import MEGABYTE, parse_json, read_bytes
from koinize.merge.recipe import merge_settings
from koinize.model.rehearsal import refused_by_peft
from koinize.shown import markdown

CARD_FILE = "README.md"
LARGEST_CARD = 32 * MEGABYTE  # it has a line for every module
# How far, relative to its norm, an update may be from that of the merge done again. Rounding makes
# 1e-7 of most recipes and, where entries whose vote is nearly tied fall on the other side, 6e-5 of
# TIES on 126 modules (docs/log.md).
LIKENESS = 1e-3
SEEN = 1e-8  # how near two updates can be seen to be, by their factors in float64
LAST_DIGIT = 2e-6  # of an error as a card states it
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and every mismatch in words; no mismatch means that all holds."""

    checked: tuple[str, ...]
    mismatches: tuple[str, ...]


def verify_adapter(
    folder: Path | str,
    adapters: Mapping[str, Path | str] | None = None,
    *,
    trunk: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Reload an adapter: header, shapes and finiteness of every tensor, digests as in its card.

    With its inputs, by language, and the trunk if there was one, also their digests against the
    card, and the merge itself: it is repeated with the card's settings, and must give the same
    bytes, weights, ranks and errors. Processors round differently, so where the file is the one
    that the card names, its updates may also be those of the repetition to within LIKENESS, and
    how near they are is told. Raises InputError if the adapter or its card cannot be read at
    all, and for a trunk without the other inputs.
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
    card, mismatches = _read_card(folder), []
    if stated := table_rows(card, FILES):
        mismatches += [
            f"{name} does not have the digest that the card states"
            for name in (CONFIG_FILE, WEIGHTS_FILE)
            if f"`{file_digest(folder / name)}`" not in stated.get(name, "")
        ]
        checked.append("2 file digests")
    if not adapters and trunk is not None:
        raise InputError("there is a trunk but no adapter", expected="every LANGUAGE=FOLDER too")
    mismatches += _peft(header, checked)
    if not adapters:
        return Verification(tuple(checked), tuple(mismatches))
    if not card:
        raise InputError(
            "is not there, and only it says what the merge was made of",
            where=str(folder / CARD_FILE),
            expected="a card that koinize wrote",
        )
    unnamed = [*_unnamed_inputs(adapters, card), *_unnamed_trunk(trunk, card)]
    checked.append(f"{len(adapters) + (trunk is not None)} input digests")
    if not unnamed:
        holds, wrong = _repeated(folder, adapters, trunk, card, progress)
        mismatches += wrong
        checked.append(holds)
    return Verification(tuple(checked), (*mismatches, *unnamed))


def _peft(header: AdapterHeader, checked: list[str]) -> list[str]:
    """What PEFT has against it, on its base if that is known here; what was tried is noted."""
    refused = refused_by_peft(header)
    if refused is None:
        return []
    checked.append(f"whether PEFT loads it on {header.base_model}")
    return [f"PEFT does not load it: {refused}"] if refused else []


def _read_card(folder: Path) -> str:
    path = folder / CARD_FILE
    try:
        return read_bytes(path, LARGEST_CARD).decode("utf-8") if path.is_file() else ""
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError:
        raise InputError(
            "is not UTF-8 text", where=str(path), expected="a card that koinize wrote"
        ) from None


def _unnamed_inputs(adapters: Mapping[str, Path | str], card: str) -> list[str]:
    stated = table_rows(card, INPUTS)
    found = {name: adapter_digest(read_header(path)) for name, path in sorted(adapters.items())}
    missing = sorted(stated.keys() - set(map(markdown, found)))
    return [
        f"the card also names '{language}', whose folder was not given" for language in missing
    ] + [
        f"the card does not name '{language}' with digest {identity}"
        for language, identity in found.items()
        if f"`{identity}`" not in stated.get(markdown(language), "")
    ]


def _unnamed_trunk(trunk: Path | str | None, card: str) -> list[str]:
    line = stated_line(card, TRUNK)
    if trunk is None:
        return ["the card also names a trunk, whose folder was not given"] if line else []
    identity = adapter_digest(read_header(trunk))
    named = f"`{identity}`" in line
    return [] if named else [f"the card does not name a trunk with digest {identity}"]


def _repeated(
    folder: Path,
    adapters: Mapping[str, Path | str],
    trunk: Path | str | None,
    card: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[str, list[str]]:
    """What holds of the merge done again, and what does not."""
    settings = merge_settings(**_stated_settings(folder, card))
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".verify.") as work:
            again = merge_adapters(
                adapters, settings, out=Path(work) / "again", trunk=trunk, progress=progress
            ).out
            ours, theirs = file_digest(folder / WEIGHTS_FILE), file_digest(again / WEIGHTS_FILE)
            same = ours == theirs
            # What was written since is no matter of rounding.
            as_stated = f"`{ours}`" in table_rows(card, FILES).get(WEIGHTS_FILE, "")
            apart = 0.0 if same else _furthest(folder, again) if as_stated else math.inf
            wrong = _misstated(card, _read_card(again), 0.0 if same else LIKENESS)
            differing = [CONFIG_FILE] * (
                file_digest(folder / CONFIG_FILE) != file_digest(again / CONFIG_FILE)
            ) + [WEIGHTS_FILE] * (apart > LIKENESS)
            said = [f"{one} differs from what the settings in the card give" for one in differing]
            if LIKENESS < apart < math.inf:
                said[-1] += f": an update by {apart:.1%} of its norm"
    except OSError as error:
        raise StepError(f"cannot be checked: {error.strerror}", where=str(folder)) from error
    holds = "the merge, done again"
    if not same and not said:
        holds += (
            f": not byte for byte, but no update differs by more than about {max(apart, SEEN):.0e} "
            "of its norm, as on another processor or with another version of a library"
        )
    return holds, said + wrong


def _furthest(one: Path, other: Path) -> float:
    """How far two adapters of the same modules are apart: ||D - E|| / ||E|| of the module where
    that is largest, of their updates D and E; infinite where anything else of them differs.
    """
    ours, theirs = read_header(one), read_header(other)
    if ours.modules.keys() != theirs.modules.keys() or ours.saved.keys() != theirs.saved.keys():
        return math.inf
    furthest = 0.0
    with open_adapter(ours) as mine, open_adapter(theirs) as repeated:
        for name in ours.saved:
            pieces = zip_longest(mine.saved(name), repeated.saved(name))
            if any(our != their for our, their in pieces):
                return math.inf
        for module in ours.modules:
            apart, size = _apart(mine.factors(module), repeated.factors(module))
            if apart:
                furthest = max(furthest, apart / size if size else math.inf)
    return furthest


def _apart(one: Factors, other: Factors) -> tuple[float, float]:
    """||D - E|| and ||E|| of the products, to SEEN of ||E||, from their factors; infinite where
    their shapes differ.
    """
    from koinize.merge.linalg import gram

    if (one.B.shape[0], one.A.shape[1]) != (other.B.shape[0], other.A.shape[1]):
        return math.inf, 1.0
    inner = gram(one.B, other.B) * gram(one.A.T, other.A.T)
    ours, theirs = inner[: one.rank, : one.rank].sum(), inner[one.rank :, one.rank :].sum()
    between = inner[: one.rank, one.rank :].sum()
    apart = max(0.0, float(ours + theirs - 2 * between))
    return math.sqrt(apart), math.sqrt(max(0.0, float(theirs)))


def _stated_settings(folder: Path, card: str) -> dict[str, object]:
    _, fence, rest = card.partition("```json\n")
    try:
        settings = parse_json(rest.partition("```")[0])
    except ValueError:
        settings = None
    if not fence or not isinstance(settings, dict):
        raise InputError(
            "has no settings to merge again with",
            where=str(folder / CARD_FILE),
            expected="a card that koinize wrote",
        )
    return settings


def _misstated(card: str, repeated: str, tolerance: float) -> list[str]:
    """Where a card differs from that of the merge done again; its reader may have added to it. Of
    what the merge came to, numbers may differ by the tolerance.
    """
    lines = [line for line in card.splitlines() if line.startswith(OUTCOMES)]
    found = [
        f"the card does not state: {line.removeprefix('- ')}"
        for line in repeated.splitlines()
        if line.startswith(OUTCOMES) and not any(_alike(line, one, tolerance) for one in lines)
    ]
    for header, within in ((INPUTS, 0.0), (ERRORS, tolerance)):
        stated, rows = table_rows(card, header), table_rows(repeated, header)
        wrong = sorted(
            name
            for name in {**stated, **rows}
            if not _alike(stated.get(name, ""), rows.get(name, ""), within)
        )
        if wrong:  # one says it; the others would only repeat it
            name = wrong[0]
            found.append(
                f"the card states {stated.get(name, 'nothing')} where the merge gives "
                f"{rows.get(name, f'nothing for {name}')}"
                + (f", the first of {len(wrong)} rows that differ" if wrong[1:] else "")
            )
    return found


def _alike(one: str, other: str, tolerance: float) -> bool:
    """Whether two lines are the same but for the size of their numbers."""
    if not tolerance:
        return one == other
    texts, numbers = (
        [split(line) for line in (one, other)] for split in (NUMBER.split, NUMBER.findall)
    )
    return texts[0] == texts[1] and all(
        math.isclose(float(mine), float(theirs), rel_tol=tolerance, abs_tol=LAST_DIGIT)
        for mine, theirs in zip(*numbers, strict=True)
    )

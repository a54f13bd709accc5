"""Whether the ledger, the releases and the artifacts of a project tell one story.

A chain of digests shows a line that was changed, not that the whole file was written anew, cut or
emptied. But where it ended is noted beside it and in every release, and every artifact says how
long it took to make. Whoever changes one without the others is found. Whoever changes all of them
is not: for that, note the head elsewhere, sign it, or have it stamped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from koinize.digest import short
from koinize.errors import KoinizeError
from koinize.ledger import GATE, LOAD, Head, Interval, Ledger
from koinize.ledger.signatures import Signed
from koinize.ledger.stamps import Stamped
from koinize.release.archive import Releases
from koinize.release.garbage import tasks_released
from koinize.store import Home, Store

LEAST = Decimal("0.005")  # seconds: both are rounded
MOST = Decimal(60)  # seconds that a step may take besides what it measures of itself
MOST_SHARE = Decimal("1.1")


def contradictions(home: Path) -> list[str]:
    """What cannot be true at once, a sentence for each. `home` is the project's .koinize.

    Raises KoinizeError where the chain itself is broken.
    """
    ledger = Ledger(Home(home).ledger)
    here = Store(
        home
    )  # a shared artifact may be another machine's, in whose ledger its seconds are
    return [*_cut(ledger, home), *_seconds(ledger, here)]


def unsigned(ledger: Ledger, signed: list[Signed], signers: Path) -> list[str]:
    """What the signatures of those that count contradict, a sentence for each."""
    trusted = [one for one in signed if one.by]
    if not trusted:
        return [f"no signature on this ledger is by anybody in {signers}"]
    lost = ledger.forgotten(one.head for one in trusted)
    return [
        f"{one.by} signed a ledger of {one.head.records} records on {one.at}, the last of which "
        f"begins with {short(one.head.digest)}; it is not there: lines were cut off or written "
        "anew since"
        for one in trusted
        if one.head in lost
    ]


def unstamped(ledger: Ledger, stamped: list[Stamped], authorities: Path) -> list[str]:
    """What the stamps of those that count contradict, a sentence for each."""
    trusted = [one for one in stamped if one.at]
    if not trusted:
        return [f"no stamp on this ledger holds by the certificates in {authorities}"]
    lost = ledger.forgotten(one.head for one in trusted)
    return [
        f"{one.by} stamped a ledger of {one.head.records} records at {one.at.isoformat()}, the "
        f"last of which begins with {short(one.head.digest)}; it is not there: lines were cut off "
        "or written anew since"
        for one in trusted
        if one.at and one.head in lost
    ]


def _cut(ledger: Ledger, home: Path) -> Iterator[str]:
    released = {head: name for name, head in _released(home)}
    for head in ledger.forgotten(released):
        where = released.get(head, "heads.jsonl")
        yield (
            f"{where} knows of {head.records} records in the ledger, the last of which begins with "
            f"{short(head.digest)}; it is not there: lines were cut off or written anew since"
        )


def _released(home: Path) -> Iterator[tuple[str, Head]]:
    """Where the ledger ended when each release was made."""
    for task in tasks_released(home):
        releases = Releases(home, task)
        for version in releases.versions():
            with suppress(KoinizeError):  # a broken release is told elsewhere
                noted = releases.open(version).record.get("ledger")
                if noted:
                    yield f"{task} v{version}", Head(noted["records"], noted["digest"])


def _seconds(ledger: Ledger, store: Store) -> Iterator[str]:
    """Steps whose seconds in the ledger are not what their artifact says that they took."""
    spent: dict[str, list[Interval]] = defaultdict(list)
    for one in ledger.intervals():
        if one.kind not in (LOAD, GATE):  # which are about an artifact, and do not make it
            spent[one.artifact].append(one)
    for artifact in sorted(store.ids()):
        with suppress(KoinizeError):  # a broken artifact is told elsewhere
            recorded = store.manifest(artifact)
            if recorded and "seconds" in recorded.facts:
                measured = Decimal(str(recorded.facts["seconds"]))
                yield from _compared(recorded.name, measured, spent[artifact])


def _compared(name: str, measured: Decimal, intervals: list[Interval]) -> Iterator[str]:
    """Compare all that was spent on an artifact, attempts that were ended among it, and what its
    last making took: it may have been removed, and made again by a quicker machine. A making that
    kept it here and could not send it to a shared store has failed.
    """
    if any(one.status == "open" for one in intervals):
        return  # killed after its artifact was there; the next run closes it
    whole = sum((one.seconds for one in intervals), Decimal(0))
    done = [one.seconds for one in intervals if one.status == "done"]
    if not intervals:
        yield f"{name} was made in {measured:.3f} s, and the ledger has no line of it"
    elif whole < measured - LEAST:
        yield f"{name} was made in {measured:.3f} s, and the ledger has {whole:.3f} s for it"
    elif done and done[-1] > measured * MOST_SHARE + MOST:
        yield f"{name} was made in {measured:.3f} s, and the ledger has {done[-1]:.3f} s for it"

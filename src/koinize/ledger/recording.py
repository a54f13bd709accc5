"""The ledger of one project: intervals opened, closed, and closed for those who were killed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from koinize.ledger.address import Address
from koinize.ledger.chain import Chain, Head, Setback
from koinize.ledger.heads import HEADS, Heads, not_on
from koinize.ledger.heartbeat import Heartbeat
from koinize.ledger.history import History, history
from koinize.ledger.interval import IDLE, LOAD, MILLISECOND, Interval, Saved, held, left_of, total
from koinize.ledger.lines import MARGINS, checked

BILLIONTH = Decimal("1e-9")
KILLED = "the run was killed; closed at its last heartbeat"
WHOLE_MACHINE = "1"


@dataclass
class Work:
    """What whoever does a piece of work may say of it before it ends (see `Ledger.recording`)."""

    tokens: int = 0
    units: int = 0
    energy: Mapping[str, str] = field(default_factory=dict)
    attempt: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """The ledger of one project: the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chain = Chain(path)
        self._heads = Heads(path.with_name(HEADS))
        self._origins: dict[str, float] = {}  # run -> the monotonic time from which it counts

    def at(self, run: str) -> Decimal:
        """Seconds, to the millisecond, since this object first heard of that run (monotonic)."""
        origin = self._origins.setdefault(run, time.monotonic())
        return Decimal(time.monotonic() - origin).quantize(MILLISECOND)

    def start(
        self,
        interval: str,
        *,
        run: str,
        step: str,
        kind: str,
        artifact: str,
        device: str,
        share: str,
        price: Mapping[str, str],
        at: Decimal | None = None,
        why: str = "",
        address: Address | None = None,
        sort: str = "",
        group: str = "",
    ) -> None:
        """Open an interval. `share` is a decimal; `price` is empty where none is known.

        `why` is the reason for the work, in the plan's words; `address` that of the step that it
        does, and `sort` the work that it is like. `group` is the same for all that a worker does
        at once: they lie one after the other in its time, each with its part of the seconds.
        `at` is for what is recorded afterwards: when it began, in seconds since its run did.
        """
        self._chain.append(
            {
                "event": "start",
                "interval": interval,
                "at": str(self.at(run) if at is None else at),
                "run": run,
                "step": step,
                "kind": kind,
                "artifact": artifact,
                "why": why,
                "device": device,
                "share": share,
                "price": price,
                "address": address.record() if address else {},
                "sort": sort,
                **({"group": group} if group else {}),
            }
        )

    def end(
        self,
        interval: str,
        *,
        status: str,
        seconds: float | Decimal,
        tokens: int = 0,
        units: int = 0,
        error: str = "",
        energy: Mapping[str, str] | None = None,
        at: Decimal | None = None,
        attempt: Mapping[str, Any] | None = None,
        lost: Decimal | None = None,
    ) -> Head:
        """Close an interval with its outcome and its wall seconds (kept to the millisecond).

        `at` is when it ended, in seconds since its run began: it then covers the `seconds` before
        that, which may be less than what has passed since it was opened. `energy` has `joules` and
        `source`, or is empty where it could not be read. `attempt` is what a gate tried, and how it
        ended; `lost` are those of the seconds that are to be done again, of work that another
        interval goes on with. Returns where the chain ends now.
        """
        return self._chain.append(
            {
                "event": "end",
                "interval": interval,
                "at": None if at is None else str(at),
                "status": status,
                "seconds": str(Decimal(seconds).quantize(MILLISECOND)),
                "tokens": tokens,
                "units": units,
                "energy": energy or {},
                "error": error,
                **({"attempt": attempt} if attempt else {}),
                **({} if lost is None else {"lost": str(lost)}),
            }
        )

    def loaded(
        self,
        interval: str,
        seconds: Decimal,
        *,
        run: str,
        artifact: str,
        device: str,
        share: str,
        price: Mapping[str, str],
        at: Decimal,
        energy: Mapping[str, str] | None = None,
    ) -> None:
        """Record what a worker took to load the model for the work of `interval`.

        `at` is when it began, in seconds since its run did.
        """
        name = _load_of(interval)
        self.start(
            name,
            run=run,
            step=LOAD,
            kind=LOAD,
            artifact=artifact,
            device=device,
            share=share,
            price=price,
            at=at,
        )
        self.end(name, status="done", seconds=seconds, energy=energy, at=at + seconds)

    @contextmanager
    def recording(
        self,
        step: str,
        *,
        kind: str,
        device: str,
        price: Mapping[str, str],
        artifact: str = "",
        run: str = "",
        share: str = WHOLE_MACHINE,
    ) -> Iterator[Work]:
        """Record what happens inside as one interval, by default a run of its own.

        Closed as done, as failed when an exception leaves it, or as interrupted when that is no
        ordinary one (Ctrl-C); the exception goes on. The work may state its tokens and units:

            with ledger.recording("gate/topic", kind=GATE, device=machine.device(), price={}) as it:
                it.units = judge(candidate)
        """
        run = run or uuid.uuid4().hex[:8]
        interval = f"{run}-{uuid.uuid4().hex[:12]}"
        began, work = self.at(run), Work()
        self.start(
            interval,
            run=run,
            step=step,
            kind=kind,
            artifact=artifact,
            device=device,
            share=share,
            price=price,
            at=began,
        )
        status, error = "done", ""
        try:
            yield work
        except BaseException as problem:
            status = "failed" if isinstance(problem, Exception) else "interrupted"
            error = str(problem) or type(problem).__name__
            raise
        finally:
            now = self.at(run)
            head = self.end(
                interval,
                status=status,
                seconds=now - began,
                tokens=work.tokens,
                units=work.units,
                energy=work.energy,
                error=error,
                at=now,
                attempt=work.attempt,
            )
            self._heads.note(head)

    def close_run(
        self,
        run: str,
        at: Decimal,
        *,
        device: str,
        price: Mapping[str, str],
        energy: Mapping[str, str] | None = None,
        machines: Decimal = Decimal(1),
    ) -> None:
        """Record the idle time of a run that ended after `at` seconds: one interval for all of it.

        Its share is what the other intervals leave of the machine, on average over the run, so that
        the machine time of a run's intervals adds up to its wall time on the whole machine, or on
        the `machines` that had this device, on average over the run.
        """
        work = [one for one in self.intervals() if one.run == run]
        used = total(one for one in work if one.device == device)[0]
        share = max(Decimal(0), machines - used / at).quantize(BILLIONTH) if at else Decimal(0)
        before = sum(one.kind == IDLE for one in work)
        name = f"{run}-idle" + (f"-{before + 1}" if before else "")
        self.start(
            name,
            run=run,
            step=IDLE,
            kind=IDLE,
            artifact="",
            device=device,
            share=str(share),
            price=price,
            at=Decimal(0),
        )
        head = self.end(name, status="done", seconds=at, energy=energy, at=at)
        self._heads.note(head)

    def close_abandoned(
        self,
        heartbeat: Heartbeat | float | None,
        kept: Callable[[Interval], Mapping[str, Any] | None] = lambda _: None,
        saved: Callable[[Interval], Saved | None] = lambda _: None,
    ) -> list[Interval]:
        """Close what a killed run left open, as interrupted at the last heartbeat.

        A bare number is that heartbeat's Unix time. Where `kept` has the seconds, tokens and units
        of what the work made, it was only killed before it could say so here: that one is done,
        and so is the loading of the model before it, where `kept` has its `load_seconds`. `saved`
        is what another interval will go on with.
        A run that did not live to record its idle time gets it, too, where its heartbeat says how
        far it was.
        """
        last = Heartbeat(heartbeat) if isinstance(heartbeat, float | int) else heartbeat
        past = self._history()
        closed = [one for one in past.intervals if one.status == "open"]
        made = {one.id: kept(one) for one in closed}
        for interval in sorted(closed, key=lambda one: made[one.id] is None):
            if (facts := made[interval.id]) is None:
                self._abandon(interval, last, past.origins.get(interval.run), saved(interval))
            else:
                self._complete(interval, facts, past)
        if last and last.at is not None and last.run in past.origins:
            self._close_killed(last.run, last.at)
        return closed

    def intervals(self) -> list[Interval]:
        """Every interval, in the order in which they were opened."""
        return self._history().intervals

    def _abandon(
        self, one: Interval, last: Heartbeat | None, origin: Decimal | None, saved: Saved | None
    ) -> None:
        """Close one interval; by the run's own clock if possible, else by the wall clock."""
        begin, parts = left_of(one, self.intervals())
        if last and origin is not None and last.run == one.run and last.at is not None:
            seconds = ((last.at - (begin - origin)) / parts).quantize(MILLISECOND)
            at = begin - origin + max(Decimal(0), seconds)
        else:
            seconds, at = (Decimal(last.unix) - begin if last else Decimal(0)) / parts, None
        said = KILLED if seconds >= 0 else f"{KILLED}, which is no later than its start"
        seconds = max(Decimal(0), seconds)
        self.end(
            one.id,
            status="interrupted",
            seconds=seconds,
            tokens=saved.tokens if saved else 0,
            units=saved.units if saved else 0,
            error=said,
            at=at,
            lost=saved.lost(seconds, seconds * parts + begin - one.begin) if saved else None,
        )

    def _complete(self, one: Interval, facts: Mapping[str, Any], past: History) -> None:
        """Close one interval by what its work measured."""
        seconds = Decimal(str(facts["seconds"])).quantize(MILLISECOND)
        load = Decimal(str(facts.get("load_seconds", 0))).quantize(MILLISECOND)
        origin = past.origins.get(one.run)
        began = None if origin is None else left_of(one, self.intervals())[0] - origin
        recorded = any(other.id == _load_of(one.id) for other in past.intervals)
        if load and began is not None and not recorded:
            self.loaded(
                one.id,
                load,
                run=one.run,
                artifact=one.artifact,
                device=one.device,
                share=str(one.share),
                price=one.price,
                at=began,
            )
        self.end(
            one.id,
            status="done",
            seconds=seconds,
            tokens=facts.get("tokens", 0),
            units=facts.get("units", 0),
            at=None if began is None else began + load + seconds,
        )

    def _close_killed(self, run: str, at: Decimal) -> None:
        """Record the idle time of a run that was killed, if that is still to be done."""
        past = self._history()
        work = [one for one in past.intervals if one.run == run]
        if all(one.kind != IDLE for one in work):
            until = max(at, *(one.end - past.origins[run] for one in work))
            for device, count in held(work).items():
                price = next(one.price for one in work if one.device == device)
                self.close_run(run, until, device=device, price=price, machines=count)

    def _history(self) -> History:
        return history(self.records())

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record. Raises KoinizeError where the chain of digests is broken, or for a line
        that lacks what all lines have.
        """
        for number, record in enumerate(self._chain.records(), 1):
            yield checked(record, f"{self.path}:{number}")

    def verify(self) -> Head:
        """Check the whole chain and say where it ends. Raises KoinizeError where it is broken."""
        return self._chain.head()

    def attempts(self) -> list[Mapping[str, Any]]:
        """What gates tried and how it ended, the oldest first."""
        return [one["attempt"] for one in self.records() if one.get("attempt")]

    def state_margins(self, task: str, margins: Mapping[str, float]) -> None:
        """Record what a language of this task may lose, in points by metric."""
        self._chain.append(
            {"event": MARGINS, "interval": "", "task": task, "margins": dict(margins)}
        )

    def forgotten(self, also: Iterable[Head] = ()) -> list[Head]:
        """Ends of the chain that were noted (beside it, or `also`) and are not on it any more.

        Lines were cut off or written anew since. Raises KoinizeError where the chain is broken.
        """
        return not_on([*self._heads.all(), *also], self._chain.digests())

    def forget(self) -> None:
        """Keep only those noted ends that are on the chain: the others are known to be lost."""
        self._heads.keep(self._chain.digests())

    def has(self, digest: str) -> bool:
        """Whether a record has this digest. Raises KoinizeError where the chain is broken."""
        return digest in self._chain.digests()

    def setbacks(self) -> list[Setback]:
        """Where the wall clock went backwards. Durations do not depend on it, dates do."""
        return self._chain.setbacks()


def _load_of(interval: str) -> str:
    """The id of the interval in which the model was loaded for that one."""
    return f"{interval}-{LOAD}"

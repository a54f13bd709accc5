"""A run's account: every second of every worker in one interval of the ledger, and its energy.

Where a worker does several steps at once, its time is shared out among them (decision 012).
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from koinize import machine
from koinize.digest import short
from koinize.executors import Executor, Place
from koinize.ledger import AT_ONCE, IN_TURN, MILLISECOND, PROVISION, Heartbeat, Ledger
from koinize.ledger.energy import Meter, recorded
from koinize.pipeline.attempt import saved
from koinize.pipeline.joining import in_turn
from koinize.pipeline.nodes import Nodes, Pricing
from koinize.pipeline.plan import Missing
from koinize.pipeline.step import Step
from koinize.pipeline.work import Job
from koinize.store import Home, Store


@dataclass(eq=False)
class Hand:
    """What one worker has in hand: the job of one step, or of several that it does at once.

    `jobs` are those that are not over; all of them `began` at once. Of the worker's time, what lies
    before `upto` (seconds since the run began, by its monotonic clock) is in the ledger; `joules`
    are those of the time since, as far as they were read, `told` those before, if others read them.
    It is expected to take `expected` seconds.
    """

    jobs: list[Job]
    together: bool
    name: str
    began: Decimal
    upto: Decimal
    place: Place
    joules: Decimal = Decimal(0)
    told: Decimal = Decimal(0)
    expected: float = 0.0


class Account:
    """Time and energy of one run."""

    def __init__(self, home: Home, ledger: Ledger, meter: Meter | None, price: Pricing) -> None:
        self.home, self.ledger, self.meter, self.price = home, ledger, meter, price
        self.run = uuid.uuid4().hex[:8]
        self.hands: list[Hand] = []
        self.nodes = Nodes()
        self.lost = Counter[str]()  # how many workers each step has outlived, by its id

    def beat(self, nodes: Mapping[str, str]) -> None:
        """Leave a sign of life, see which machines are there, and read the meter before one of its
        counters wraps.
        """
        now = self._now
        self.nodes.see(nodes, now)
        Heartbeat(time.time(), self.run, now).write(self.home.heartbeat)
        if self.meter:
            self.meter.sample()

    def provision(self, executor: Executor, greets: Callable[[], object]) -> None:
        """Start the workers, which holds whole machines; those elsewhere are known once they are
        there, and accounted for then.
        """
        self.nodes.see(executor.nodes, Decimal(0))
        self.beat(executor.nodes)
        if not executor.nodes:
            self.meter = None  # what this machine uses is not what the work uses
            executor.ready(greets)
            self.nodes.see(executor.nodes, Decimal(0))
            self.nodes.started(self.ledger, self.run, self.price, self._now)
            return
        device, run, kind = machine.device(), self.run, PROVISION
        price = self.price(device)
        with self.ledger.recording(kind, kind=kind, device=device, price=price, run=run) as it:
            if self.meter:
                self.meter.hold(PROVISION, Decimal(1))
            executor.ready(greets)
            if self.meter:
                it.energy = self.meter.record(self.meter.release(PROVISION))

    def begin(
        self, some: Sequence[Missing], jobs: Sequence[Job], place: Place, loading: float = 0.0
    ) -> Hand:
        """Open the intervals of what one worker takes in hand, after `loading` seconds if they are
        as expected.
        """
        name = self.interval(jobs[0].step)
        group = ""
        if len(jobs) > 1:
            group = name + (IN_TURN if in_turn([job.step for job in jobs]) else AT_ONCE)
        now = self._now
        expected = loading + sum(one.seconds for one in some)
        hand = Hand(list(jobs), len(jobs) > 1, group or name, now, now, place, expected=expected)
        for missing, job in zip(some, jobs, strict=True):
            self.ledger.start(
                self.interval(job.step),
                step=job.step.name,
                kind=job.step.kind,
                why=missing.why,
                address=job.step.address,
                sort=job.step.sort,
                group=group,
                **self._place(job.step, hand),
            )
        if self.meter:
            self.meter.hold(hand.name, hand.place.share)
        self.hands.append(hand)
        return hand

    def end(
        self, hand: Hand, job: Job, status: str, facts: Mapping[str, Any], error: str
    ) -> Decimal:
        """End a step's interval and return its seconds; what its worker took to load the model has
        an interval of its own.

        Of several that are done at once, each gets the seconds that its facts say, or an equal part
        where they say nothing, and the last one what is left. The energy of all together was read;
        between them it is divided by time.
        """
        hand.jobs.remove(job)
        name = self.interval(job.step)
        saving = None
        if status != "done":
            saving = saved(Store(self.home.folder), job.step.id, name)
        if saving:
            facts = {**facts, "tokens": saving.tokens, "units": saving.units}
        left = self._now - hand.upto
        load = min(left, _milliseconds(facts.get("load_seconds", 0)))
        seconds = left - load
        if hand.jobs:
            equal = seconds / (1 + len(hand.jobs))
            seconds = min(seconds, _milliseconds(facts.get("seconds", equal)))
        loaded, own = self._energy(hand, facts, load, seconds, left)
        if load:  # before the end of the step, without which nobody would miss it
            place = self._place(job.step, hand)
            self.ledger.loaded(name, load, energy=loaded, **place)
        hand.upto += load + seconds
        self.ledger.end(
            name,
            status=status,
            seconds=seconds,
            tokens=facts.get("tokens", 0),
            units=facts.get("units", 0),
            energy=own,
            error=error,
            at=hand.upto,
            lost=saving.lost(seconds, self._now - hand.began) if saving else None,
        )
        if not hand.jobs:
            self.hands.remove(hand)
        return seconds

    def left(self, hand: Hand) -> float:
        """Seconds until its worker will be free; who is late is taken to be as late again."""
        return abs(hand.expected - float(self._now - hand.began))

    def open(self) -> list[tuple[Hand, Job]]:
        """What is in hand: intervals that have no end yet."""
        return [(hand, job) for hand in self.hands for job in hand.jobs]

    def close(self) -> None:
        """Account for the machine time in which a worker had nothing to do."""
        if self.meter:
            self.meter.sample()
        now = self._now
        energy = self.meter.record(self.meter.idle) if self.meter else {}
        for device, count in self.nodes.counted(now).items():
            self.ledger.close_run(
                self.run,
                now,
                device=device,
                price=self.price(device),
                energy=energy,
                machines=count,
            )

    def _energy(
        self,
        hand: Hand,
        facts: Mapping[str, Any],
        load: Decimal,
        seconds: Decimal,
        left: Decimal,
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Of loading and of the step, out of what was read in the time that is left of the hand's;
        whoever still goes on gets the rest.
        """
        if self.meter is not None:
            record: Callable[[Decimal], dict[str, str]] = self.meter.record
            joules = hand.joules + self.meter.release(hand.name)
            if hand.jobs:
                self.meter.hold(hand.name, hand.place.share)
        elif "energy" in facts:  # read by the worker, of all of its machine since the hand began
            record = partial(recorded, source=facts["energy"]["source"])
            told = Decimal(facts["energy"]["joules"]) * hand.place.share
            joules, hand.told = max(Decimal(0), hand.joules + told - hand.told), told
        else:
            return {}, {}
        loading = joules * load / left if left else Decimal(0)
        own = joules - loading
        if hand.jobs:
            own = joules * seconds / left if left else Decimal(0)
            hand.joules = joules - loading - own
        return record(loading), record(own)

    @property
    def _now(self) -> Decimal:
        return self.ledger.at(self.run)

    def interval(self, step: Step) -> str:
        """What the ledger calls this run's work on a step, which is another one after a loss."""
        lost = self.lost[step.id]
        return f"{self.run}-{short(step.id)}" + (f"-{lost + 1}" if lost else "")

    def _place(self, step: Step, hand: Hand) -> dict[str, Any]:
        """What the intervals of a step and of loading its model have in common."""
        return {
            "run": self.run,
            "artifact": step.id,
            "device": hand.place.device,
            "share": f"{hand.place.share.normalize():f}",
            "price": self.price(hand.place.device),
            "at": hand.upto,
        }


def _milliseconds(seconds: float | Decimal) -> Decimal:
    return Decimal(str(seconds)).quantize(MILLISECOND)

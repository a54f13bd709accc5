"""An interval, and the sums over intervals: two clocks, money and energy, all in decimals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property

from koinize.ledger.address import Address, alike, from_record, read_address

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MILLISECOND = Decimal("0.001")
AT_ONCE, IN_TURN = "-group", "-turn"
"""How the name of a group ends: its steps shared the worker's time, or had it one after another."""

IDLE, LOAD, PROVISION, GATE = "idle", "load", "provision", "gate"
"""The kinds that are no step of the graph: a run's unused machine time, loading the model into a
worker, starting the workers, and the comparison that decides on a release."""


@dataclass(frozen=True)
class Interval:
    """One stretch of work on a share of a machine.

    `started` is UTC; within a run it follows the monotonic clock, so that a wall clock that is set
    back moves nothing. `seconds` is wall time; `share` the part of the machine it held (1/2: one of
    two workers); `units` the amount of work by which durations are predicted (see `pipeline`),
    `tokens` the tokens that went through the model. `status` is done, failed, interrupted or open.
    `energy` has `joules` and `source` where energy could be read, and is empty elsewhere. `why` is
    the reason for the work, as `plan` gave it. `fields` are those of the step's address, and `sort`
    says which work it is like: both empty in the lines of an older koinize. `group` is the same for
    all that one worker took in hand at once, and empty for what it took alone: within a group the
    intervals lie one after the other. `lost` stands where an
    interrupted training was saved, for another interval to go on: its seconds after the saving.
    """

    id: str
    run: str
    step: str
    kind: str
    artifact: str
    started: datetime
    seconds: Decimal
    share: Decimal
    device: str
    status: str
    tokens: int
    units: int
    error: str
    price: Mapping[str, str]
    energy: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    sort: str = ""
    group: str = ""
    lost: Decimal | None = None

    @cached_property
    def address(self) -> Address:
        """Which step it was work on."""
        return from_record(self.fields) if self.fields else read_address(self.step, self.kind)

    @property
    def is_share(self) -> bool:
        """Whether its seconds are a share of what several took at once, and not its own."""
        return bool(self.group) and not self.group.endswith(IN_TURN)

    @property
    def alike(self) -> str:
        """What a rate of its kind is learnt apart for; empty for what is always the same work."""
        return self.sort or alike(self.address)

    @property
    def machine_seconds(self) -> Decimal:
        """Wall seconds times the share of the machine."""
        return self.seconds * self.share

    @property
    def cost(self) -> Decimal:
        """Machine time at the recorded price, in its currency; 0 where no price was given."""
        return self.machine_seconds * Decimal(self.price.get("per_hour", "0")) / 3600

    @property
    def joules(self) -> Decimal | None:
        """The energy that was read; None where it could not be read."""
        return Decimal(self.energy["joules"]) if "joules" in self.energy else None

    @property
    def begin(self) -> Decimal:
        """When it started, in seconds since 1970."""
        return unix(self.started)

    @property
    def end(self) -> Decimal:
        """When it ended, in seconds since 1970."""
        return self.begin + self.seconds


@dataclass(frozen=True)
class Saved:
    """What an attempt had saved when it was ended: the seconds from its start until then, and the
    tokens and units of its own. Another attempt goes on from there.
    """

    seconds: float
    tokens: int
    units: int

    def lost(self, seconds: Decimal, wall: Decimal) -> Decimal:
        """How many of an attempt's seconds were after the saving; it took `wall` of its worker's,
        of which it has a share where others were done at once.
        """
        after = max(Decimal(0), wall - Decimal(self.seconds))
        return (seconds * after / wall if wall else after).quantize(MILLISECOND)


def unix(when: datetime) -> Decimal:
    """Seconds since 1970, exact to the microsecond."""
    return Decimal((when - EPOCH) // MICROSECOND) / 1_000_000


def moment(seconds: Decimal) -> datetime:
    """The other way round."""
    return EPOCH + int(seconds * 1_000_000) * MICROSECOND


def total(intervals: Iterable[Interval]) -> tuple[Decimal, Decimal]:
    """Machine seconds and cost of these intervals."""
    chosen = list(intervals)
    seconds = sum((interval.machine_seconds for interval in chosen), Decimal(0))
    return seconds, sum((interval.cost for interval in chosen), Decimal(0))


def covered(intervals: Iterable[Interval]) -> Decimal:
    """Seconds during which at least one of these ran: their wall time. Idle time is no running.

    One run comes after another, whatever the clock on the wall says, which may have been set back.
    """
    seconds, reached = Decimal(0), dict[str, Decimal]()
    busy = (one for one in intervals if one.kind != IDLE)
    for interval in sorted(busy, key=lambda one: one.begin):
        until = reached.get(interval.run, interval.begin)
        seconds += max(Decimal(0), interval.end - max(interval.begin, until))
        reached[interval.run] = max(until, interval.end)
    return seconds


def elapsed(run: Iterable[Interval]) -> Decimal:
    """Wall seconds of one run, from its first start to its last end; 0 of an empty one."""
    work = list(run)
    if not work:
        return Decimal(0)
    return max(one.end for one in work) - min(one.begin for one in work)


def idle(run: Iterable[Interval]) -> Decimal:
    """Machine seconds of one run in which a worker had nothing to do.

    As the ledger recorded it; for a run that recorded none (one of an older koinize, or one still
    going on), its elapsed time on the whole machine less the machine time of its steps.
    """
    work = list(run)
    recorded = [one for one in work if one.kind == IDLE]
    if recorded:
        return total(recorded)[0]
    return max(Decimal(0), elapsed(work) - total(work)[0])


def unused(run: Iterable[Interval]) -> Decimal:
    """Wall seconds of one run during which nothing ran."""
    work = list(run)
    return elapsed(work) - covered(work)


def held(run: Iterable[Interval]) -> dict[str, Decimal]:
    """How many machines of each device a run started with; one where it does not say."""
    work = list(run)
    counts = dict.fromkeys((one.device for one in work), Decimal(0))
    for one in work:
        counts[one.device] += one.share if one.kind == PROVISION else 0
    return {device: count or Decimal(1) for device, count in counts.items()}


def joules(intervals: Iterable[Interval]) -> Decimal | None:
    """The energy of those intervals that had it read; None when none had."""
    read = [one.joules for one in intervals if one.joules is not None]
    return sum(read, Decimal(0)) if read else None


def money(intervals: Iterable[Interval]) -> dict[str, Decimal]:
    """Cost by currency, of the intervals that have a price."""
    amounts: dict[str, Decimal] = {}
    for one in intervals:
        if one.price:
            currency = one.price.get("currency", "")
            amounts[currency] = amounts.get(currency, Decimal(0)) + one.cost
    return dict(sorted(amounts.items()))


def by_run(intervals: Iterable[Interval]) -> dict[str, list[Interval]]:
    """The intervals of each run, the runs in the order in which they began."""
    runs: dict[str, list[Interval]] = {}
    for one in intervals:
        runs.setdefault(one.run, []).append(one)
    return runs


def left_of(one: Interval, intervals: Iterable[Interval]) -> tuple[Decimal, int]:
    """From when on (in Unix seconds) the time of an open interval is not accounted for yet, and
    among how many intervals, this one among them, it is to be shared out.
    """
    group = [other for other in intervals if one.group and other.group == one.group] or [one]
    begin = max(one.begin, *(other.end for other in group))
    return begin, max(1, sum(other.status == "open" for other in group))

"""The machines that a run works on: asked before, greeted, and counted for the ledger."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

from koinize import __version__
from koinize.errors import InputError
from koinize.executors import Executor, executors, nothing
from koinize.ledger import PROVISION, Ledger
from koinize.spec import Spec
from koinize.store import Home
from koinize.store.durable import own_folder, write_briefly

Pricing = Callable[[str], Mapping[str, str]]
"""The price of a machine, as the ledger keeps it, by its device; empty where there is none."""
SEEN_SECONDS = 10.0  # after which a shared folder shows on one machine what another wrote


def pricing(spec: Spec) -> Pricing:
    """What the machines of a project cost."""
    price = spec.price
    return lambda device: price.of(device).record() if price else {}


def average(prices: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """What one of these machines costs: their price where it is one, else the mean of them."""
    first, *_ = prices
    if all(one == first for one in prices):
        return first
    mean = sum((Decimal(one["per_hour"]) for one in prices), Decimal(0)) / len(prices)
    source = f"the mean of {len(prices)} machines"
    date = max(one["date"] for one in prices)
    return {**first, "per_hour": f"{mean.normalize():f}", "source": source, "date": date}


def executor_of(spec: Spec) -> Executor:
    """What does the steps. Raises InputError where a package for it is not installed."""
    said = spec.machine
    return executors.get(said.executor)(said.workers, said.threads, **said.cluster)


@contextmanager
def greeting(spec: Spec, home: Path) -> Iterator[Callable[[], object]]:
    """What each machine of a cluster does first: it looks whether it sees the project's folder.

    While this lasts, there is a file in it that no copy of the folder has.
    """
    if not spec.machine.address:
        yield nothing
        return
    marker = own_folder(Home(home).progress) / f"seen-{uuid.uuid4().hex}"
    write_briefly(marker, "")
    try:
        yield partial(_greet, marker.absolute(), __version__)
    finally:
        marker.unlink(missing_ok=True)


def _greet(marker: Path, version: str) -> None:
    """Raises InputError on a machine that cannot do a step of this project."""
    where, home = f"the node {socket.gethostname()}", marker.parent.parent
    if version != __version__:
        raise InputError(
            f"has koinize {__version__}, and the run has {version}",
            where=where,
            remedy="install the same koinize on every node",
        )
    if not _sees(marker):
        raise InputError(
            f"does not see {home} as it is here",
            where=where,
            expected="a folder that all nodes share, by the same path",
            remedy="put the project on a file system that they share, such as NFS",
        )
    if not os.access(home, os.W_OK):
        raise InputError(
            f"may not write into {home}", where=where, remedy="let the user of its Ray write there"
        )


def _sees(marker: Path) -> bool:
    until = time.monotonic() + SEEN_SECONDS
    while not marker.exists():
        if not marker.parent.parent.is_dir() or time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


class Nodes:
    """Which machines were there for a run, from when until when (in seconds since it began)."""

    def __init__(self) -> None:
        self._devices: dict[str, str] = {}
        self._since: dict[str, Decimal] = {}
        self._until: dict[str, Decimal] = {}
        self._there: set[str] = set()

    def see(self, nodes: Mapping[str, str], now: Decimal) -> None:
        """These are there now."""
        self._there = set(nodes)
        for node, device in nodes.items():
            self._devices[node] = device
            self._since.setdefault(node, now)
            self._until[node] = now

    def counted(self, now: Decimal) -> dict[str, Decimal]:
        """How many of each device there were, on average over a run that ends now."""
        found: dict[str, Decimal] = {}
        for node, device in self._devices.items():
            until = now if node in self._there else self._until[node]
            count = (until - self._since[node]) / now if now else Decimal(1)
            found[device] = found.get(device, Decimal(0)) + count
        return found

    def started(self, ledger: Ledger, run: str, price: Pricing, now: Decimal) -> None:
        """Record afterwards that machines elsewhere were held until now, for the workers' start."""
        for number, (device, count) in enumerate(self.counted(now).items()):
            interval = f"{run}-{PROVISION}-{number}"
            share = f"{count.normalize():f}"
            ledger.start(
                interval,
                run=run,
                step=PROVISION,
                kind=PROVISION,
                artifact="",
                device=device,
                share=share,
                price=price(device),
                at=Decimal(0),
            )
            ledger.end(interval, status="done", seconds=now, at=now)

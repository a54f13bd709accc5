"""How far a step is, kept beside its draft: a JSON record and one file of tensors that it names.

Both carry digests, and neither is needed: whoever finds a checkpoint broken, or of another format,
says so and begins anew. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from koinize.digest import file_digest
from koinize.files import read_bytes
from koinize.store.durable import own_folder, remove, sync, temporary_folder
from koinize.store.record import read_record, write_record
from koinize.store.typed import Count, Identity, Seconds, fitting

RECORD = "state.json"
ENDING = ".safetensors"

logger = logging.getLogger(__name__)


class Attempt(TypedDict):
    """The work that wrote a checkpoint: its interval in the ledger, the seconds from its start to
    the writing, and the steps and tokens that earlier attempts had done.
    """

    interval: str
    seconds: Seconds
    steps: Count
    tokens: Count


class State(TypedDict):
    """How far a training is, without its tensors. `tokens` were seen, padding left out; `units`
    are the amount of work of the whole step.
    """

    steps: Count
    planned: Count
    epoch: Count
    kept_epoch: Count
    tokens: Count
    units: Count
    losses: list[float]
    dev_losses: list[float]
    dev_loss_before: NotRequired[float | None]  # not kept by 0.1.0
    attempt: Attempt


class Reached(State):
    """The same as it is written: whose it is, and the digest and size of its tensors."""

    format: Literal[1]
    name: str
    tensors: Identity
    bytes: Count


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one step, called `name`: it may be there or not."""

    folder: Path
    temporary: Path
    name: str = ""

    def recorded(self) -> Reached | None:
        """What the record says; None without a whole one. Its tensors are not looked at."""
        return fitting(Reached, read_record(self.folder / RECORD))

    def read(self) -> Reached | None:
        """The record, every byte of its tensors checked; None, and a word, for a broken one."""
        if not (self.folder / RECORD).exists():
            return None
        found = self.recorded()
        if found is None:
            self.ignore("its record cannot be read")
            return None
        path = self._tensors(found["tensors"])
        try:
            whole = file_digest(path) == found["tensors"]
        except OSError:
            whole = False
        if not whole:
            self.ignore("its tensors are missing or have changed")
        return found if whole else None

    def content(self, reached: Reached) -> bytes:
        """The bytes of its tensors. Raises OSError."""
        return read_bytes(self._tensors(reached["tensors"]), reached["bytes"])

    def ignore(self, why: str) -> None:
        """Say that it is of no use, and remove it."""
        logger.warning("the checkpoint of %s is ignored: %s; it begins anew", self.name, why)
        self.discard()

    def write(self, state: State, fill: Callable[[Path], None]) -> None:
        """Keep a state and the file of tensors that `fill` writes. Raises OSError.

        Until the record is in place, which is a rename, the checkpoint before it stands.
        """
        own_folder(self.folder)
        with temporary_folder(self.temporary) as draft:
            written = draft / f"tensors{ENDING}"
            fill(written)
            sync(written)
            identity, size = file_digest(written), written.stat().st_size
            written.rename(self._tensors(identity))
        whole = {"format": 1, "name": self.name, "tensors": identity, "bytes": size}
        write_record(self.folder / RECORD, {**state, **whole})
        for path in self.folder.glob(f"*{ENDING}"):
            if path.stem != identity:
                path.unlink()

    def discard(self) -> None:
        """Remove it, if it is there."""
        remove(self.folder)

    def _tensors(self, identity: str) -> Path:
        return self.folder / f"{identity}{ENDING}"

"""A program of somebody else: in a process group of its own, ended in time, its output kept.

Between it and us stands a small guard. It reads from a pipe that we hold, and when that ends, since
we had enough or were killed, it kills the whole group: no trainer goes on for nobody.
"""

from __future__ import annotations

import codecs
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from koinize import machine
from koinize.files import MEGABYTE
from koinize.shown import escaped
from koinize.store.durable import own_folder, refuse_link

LARGEST_LOG = 64 * MEGABYTE
TAIL = 4000  # characters at the end of the output that are remembered
POLL_SECONDS = 0.2
NOT_STARTED = 127

GUARD = """
import os, signal, subprocess, sys, threading
try:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
except OSError as error:
    print(f"{sys.argv[1]}: {error.strerror}", flush=True)
    os._exit(127)
def end():
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
def watch():
    os.read(0, 1)
    end()
threading.Thread(target=watch, daemon=True).start()
code = child.wait()
end()
os._exit(code if code >= 0 else 128 - code)
"""


class Ended:
    """How a program ended: its exit `code` (above 128 by a signal), None where it was `late`; and
    the end of what it printed, control characters escaped.
    """

    def __init__(self, code: int | None, tail: str) -> None:
        self.code, self.tail = code, tail

    def last_lines(self, number: int) -> str:
        """The last lines that say something."""
        lines = [line.strip() for line in self.tail.split("\n") if line.strip()]
        return "\n".join(lines[-number:])


def ended(
    arguments: Sequence[str], folder: Path, extra: Mapping[str, str], log: Path, seconds: float
) -> Ended:
    """Run a program in a folder, with `extra` in its environment, never through a shell.

    What it prints goes into `log`, at most LARGEST_LOG of it. Raises OSError where that cannot be
    written, and KeyboardInterrupt where we are asked to stop.
    """
    environment = {**os.environ, **extra}
    environment.pop("PYTHONSAFEPATH", None)  # ours: a script may import what lies beside it
    own_folder(log.parent)
    refuse_link(log)
    with log.open("w", encoding="utf-8") as kept:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert guard.stdin  # noqa: S101
        assert guard.stdout  # noqa: S101
        output = _Output(guard.stdout, kept)
        limit = time.monotonic() + seconds
        try:
            while guard.poll() is None and time.monotonic() < limit:
                machine.stop_if_asked()
                output.read(POLL_SECONDS)
            late = guard.poll() is None
        finally:
            guard.stdin.close()  # which ends the group, if it is not gone
            code = guard.wait()
        while output.read(0):
            pass
        guard.stdout.close()
    return Ended(None if late else code, output.tail)


class _Output:
    """What a program prints, as it comes."""

    def __init__(self, source: IO[bytes], kept: IO[str]) -> None:
        self._handle, self._kept, self._left = source.fileno(), kept, LARGEST_LOG
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._handle, selectors.EVENT_READ)
        self.tail = ""

    def read(self, seconds: float) -> bool:
        """Take what is there within so many seconds; whether there was anything."""
        if not self._ready.select(seconds):
            return False
        found = os.read(self._handle, 1 << 16)
        if not found:
            time.sleep(seconds)  # it closed its output, and may go on without
            return False
        # Bars that go back to the beginning of their line are lines here.
        text = escaped(self._decode(found).replace("\r", "\n"))
        self.tail = (self.tail + text)[-TAIL:]
        self._kept.write(text[: self._left])
        self._kept.flush()
        self._left -= min(self._left, len(text))
        return True

"""Programs of somebody else: their end, their output, and that none of them outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.pipeline import process
from koinize.pipeline.process import Ended, ended

LONG = 60.0
"""Seconds that nothing here should ever take; a test that waits so long fails."""

FAMILY = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
part = pathlib.Path("pids.part")
part.write_text(f"{os.getpid()} {child.pid}")
part.rename("pids")
time.sleep(600)
"""


def python(code: str, folder: Path, seconds: float = LONG, **extra: str) -> Ended:
    return ended([sys.executable, "-c", code], folder, extra, folder / "logs" / "log", seconds)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def wait_for(condition) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV),
    ],
)
def test_how_it_ended(tmp_path: Path, code: str, expected: int) -> None:
    assert python(code, tmp_path).code == expected


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    found = ended([str(tmp_path / "text")], tmp_path, {}, tmp_path / "log", LONG)
    assert found.code == process.NOT_STARTED
    assert found.last_lines(1) == f"{tmp_path}/text: Permission denied"


def test_it_works_in_its_folder_and_reads_its_environment(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['KOINIZE_OUT'], repr(sys.stdin.read()))"
    assert python(code, tmp_path, KOINIZE_OUT="/o").tail == f"{tmp_path} /o ''\n"


def test_what_it_prints_is_kept_as_text(tmp_path: Path) -> None:
    """Escapes as data, bars as lines, broken UTF-8, and both outputs."""
    written = "os.write(1, b'a\\x1b[2Jb\\r10%\\r20%\\n'); os.write(2, b'\\xff\\xc3\\xa9\\n')"
    code = f"import os; {written}"
    assert (
        python(code, tmp_path).tail == "a\\u001b[2Jb\n10%\n20%\n\N{REPLACEMENT CHARACTER}\u00e9\n"
    )
    assert (tmp_path / "logs" / "log").read_text(encoding="utf-8").startswith("a\\u001b[2Jb\n10%")


def test_a_flood_of_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LARGEST_LOG", 1000)
    found = python("print('x' * 1_000_000); print('last')", tmp_path)
    assert found.last_lines(1) == "last"
    assert len(found.tail) == process.TAIL
    assert (tmp_path / "logs" / "log").read_text() == "x" * 1000


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="is a link"):
        python("print('x')", tmp_path)
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.slow
def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    """The limit is long enough for a Python to start twice, or there would be nobody to end."""
    found = python(FAMILY, tmp_path, seconds=5.0)
    assert found.code is None
    pids = [int(one) for one in (tmp_path / "pids").read_text().split()]
    wait_for(lambda: all(map(gone, pids)))


def test_children_that_are_left_behind_are_ended(tmp_path: Path) -> None:
    code = FAMILY.rpartition("time.sleep(600)")[0]
    assert python(code, tmp_path).code == 0
    pids = [int(one) for one in (tmp_path / "pids").read_text().split()]
    wait_for(lambda: all(map(gone, pids)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_who_waits_is_killed_and_so_is_the_program(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from koinize.pipeline.process import ended; here = pathlib.Path('.');"
        f"ended([sys.executable, '-c', {FAMILY!r}], here, {{}}, here / 'log', 600)"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=os.environ)
    wait_for((tmp_path / "pids").exists)
    pids = [int(one) for one in (tmp_path / "pids").read_text().split()]
    assert not any(map(gone, pids))
    waiting.kill()
    waiting.wait()
    wait_for(lambda: all(map(gone, pids)))

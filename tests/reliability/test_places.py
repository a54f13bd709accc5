"""Places that are taken, full, or may not be written to."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from koinize.pipeline.run import locked
from koinize.store import Store
from koinize.store.folder import folder_bytes
from tests.reliability.arena import Arena
from tests.reliability.conditions import check_finished, digests, leftovers

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
KOINIZE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
    "from tests.reliability.arena import without_torch; without_torch()\n"
    "from koinize.cli import main; main()"
)
HOLD = (
    "import sys, time; from pathlib import Path; from koinize.pipeline.run import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
)


def mounted(script: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount; `koinize` in it is ours, with steps of no weight."""
    ours = f'koinize() {{ {sys.executable} -c "$OURS" {REPOSITORY} "$@"; }}'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{ours}\n{script}"],
        cwd=root,
        env={"OURS": KOINIZE, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"a mount of its own is not allowed here: {done.stderr.strip()}")
    return done


def test_a_second_run_says_who_works_and_a_killed_one_holds_nothing(
    fake: Arena, finished: Path
) -> None:
    home = finished / ".koinize"
    command = [sys.executable, "-c", HOLD, str(home)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    ended = fake.koinize("run", cwd=finished)
    assert ended.code == 2
    assert ended.output.startswith("koinize: .koinize another koinize works here since ")
    assert ended.output.endswith(f" (process {holder.pid}); wait for it or stop it\n")
    assert fake.koinize("plan", cwd=finished).code == 0
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    ended = fake.koinize("run", cwd=finished)
    assert (ended.code, ended.output) == (0, "nothing to do; the report is report.html\n")
    check_finished(finished)


def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(fake: Arena, new: Path) -> None:
    """A small file system of its own; what was done on it is carried to a larger one."""
    saved = new.with_name("saved")
    script = (
        f"mkdir disk && mount -t tmpfs -o size=500k tmpfs disk && cp -r {new}/. disk && cd disk\n"
        f"koinize run; code=$?; cp -r . {saved}; exit $code"
    )
    done = mounted(script, new.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(saved) == []
    ended = fake.koinize("run", cwd=saved)
    assert ended.code == 0, ended.output
    check_finished(saved)


def test_a_project_that_may_only_be_read(finished: Path) -> None:
    script = (
        f"mount --bind {finished} {finished} && mount -o remount,ro,bind {finished} && "
        f"cd {finished} && koinize plan && koinize run"
    )
    done = mounted(script, finished.parent)
    assert done.returncode in (1, 2), done.stdout
    assert done.stdout.startswith("nothing is missing")
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr


def test_garbage_is_weighed_and_what_left_the_project_goes(fake: Arena, finished: Path) -> None:
    spec = finished / "koinize.yaml"
    before, text = digests(finished), spec.read_text()
    spec.write_text(text.replace("[en, de]", "[en]"))
    ended = fake.koinize("run", cwd=finished)
    assert ended.code == 0, ended.output
    home = finished / ".koinize"
    size = folder_bytes(home / "artifacts")
    shown = fake.koinize("gc", "--json", cwd=finished).output
    assert "train/mood/de" in shown
    assert folder_bytes(home / "artifacts") == size
    removed = fake.koinize("gc", "--delete", cwd=finished)
    freed = (size - folder_bytes(home / "artifacts")) / 1e6
    assert removed.output.splitlines()[-1].endswith(f"artifacts, {freed:.3f} MB, removed")
    assert freed > 0
    assert "train/mood/de" not in Store(home).names()
    assert fake.koinize("run", cwd=finished).output.startswith("nothing to do")
    spec.write_text(text)
    assert fake.koinize("run", cwd=finished).code == 0
    assert digests(finished) == before


def test_garbage_waits_for_nobody(finished: Path, fake: Arena) -> None:
    with locked(finished / ".koinize"):
        assert fake.koinize("gc", cwd=finished).code == 0
        ended = fake.koinize("gc", "--delete", cwd=finished)
    assert ended.code == 2
    assert "another koinize works here since" in ended.output

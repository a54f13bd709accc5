"""Steps on a Ray cluster of three simulated nodes: the same as here, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from koinize import __version__, machine
from koinize.errors import InputError
from koinize.executors import executors
from koinize.ledger import IDLE, PROVISION, Interval, Ledger, elapsed, total
from koinize.pipeline import nodes
from koinize.pipeline import run as running
from koinize.pipeline.run import Outcome
from koinize.spec import load
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small, done_by
from tests.pipeline.test_run import Recorder, absent

ray = pytest.importorskip("ray", reason="koinize[ray] is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")

from koinize.executors import _ray_cluster as looking  # noqa: E402
from koinize.executors import ray as module  # noqa: E402
from tests.pipeline.cluster_steps import LONG, perform, tried  # noqa: E402

# Four nodes on one host, which die on purpose: what Ray says of them, and when, is not always the
# same. So one test may be done again; koinize's own part of it is tested without Ray in test_run.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=2)]

ROOT = Path(__file__).parents[2]
STORE_BYTES = 80 * 2**20
STEP = "train/mood/en"

DRIVER = """
import sys
from pathlib import Path
from koinize.pipeline import run as running
from koinize.spec import load
from tests.pipeline.cluster_steps import perform
from tests.pipeline.conftest import Small
from tests.pipeline.test_run import Recorder, absent

if __name__ == "__main__":
    small = Small.__new__(Small)
    small.root = Path(sys.argv[1])
    running.perform = perform
    spec = load(small.root / "koinize.yaml")
    running.run(absent(small), spec, small.root, small.root / ".koinize", Recorder())
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head that works for nobody, and three nodes of one CPU each."""
    port = free_port()
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "ray_client_server_port": port,
    }
    with pytest.MonkeyPatch.context() as patch:  # what workers run is in a module of the tests
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(3):
                made.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            made.client = f"ray://127.0.0.1:{port}"
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def far(small: Small, cluster: object) -> Small:
    """The small project, to be done there."""
    (small.root / "trouble").mkdir()
    there = f"machine: {{executor: ray, address: '{cluster.address}', threads: 1}}"
    small.spec(SPEC.replace("machine: {executor: inline}", there))
    return small


@pytest.fixture
def go(far: Small, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Outcome]:
    def once() -> Outcome:
        done_by(monkeypatch, perform)
        spec, home = load(far.root / "koinize.yaml"), far.root / ".koinize"
        return running.run(absent(far), spec, far.root, home, Recorder())

    return once


def intervals(small: Small) -> list[Interval]:
    return Ledger(small.root / ".koinize" / "ledger.jsonl").intervals()


def of_step(small: Small, name: str = STEP) -> list[Interval]:
    return [one for one in intervals(small) if one.step == name]


def results(small: Small) -> dict[str, str]:
    store = Store(small.root / ".koinize")
    return {one: store.open(one).path("result").read_text() for one in store.ids()}


def befalls(small: Small, what: str, name: str = STEP) -> None:
    (small.root / "trouble" / name.replace("/", ".")).write_text(what)


def wait_for(path: Path) -> str:
    until = time.monotonic() + LONG
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < until, "it never began"
        time.sleep(0.05)
    return path.read_text().split()[1]


def tries(small: Small, name: str = STEP) -> list[str]:
    return tried(small.root, name).read_text().splitlines()


def expected(small: Small) -> dict[str, str]:
    steps = small.steps().values()
    return {one.id: f"{one.name} {sorted(one.identity.items())}" for one in steps}


def test_the_same_steps_as_here_and_every_second_of_three_machines(
    far: Small, go: Callable[[], Outcome]
) -> None:
    outcome = go()
    assert set(outcome.done) == set(far.steps())
    assert results(far) == expected(far)
    found = intervals(far)
    assert {one.device for one in found} == {machine.device()}, "they are all on this one"
    assert {one.share for one in found if one.kind not in (PROVISION, IDLE)} == {Decimal(1)}
    [provision] = [one for one in found if one.kind == PROVISION]
    assert provision.share == 3
    assert total(found)[0] == pytest.approx(3 * elapsed(found), abs=Decimal("0.01"))
    assert go() == Outcome(), "nothing is left"


def test_workers_that_die_or_stand_still_cost_their_own_time_and_steps_are_done_again(
    far: Small, go: Callable[[], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step is taken to be at fault itself, as it costs one worker after the other."""
    monkeypatch.setattr(module, "PULSE_SECONDS", 0.5)
    monkeypatch.setattr(module, "SILENT_SECONDS", 5.0)
    dies, freezes, always = "train/mood/en", "train/mood/de", "train/mood/comb"
    for name, what in ((dies, "kill"), (freezes, "freeze"), (always, "always kill")):
        befalls(far, what, name)
    try:
        outcome = go()
    finally:
        with suppress(ProcessLookupError):  # Ray may have ended it by now
            os.kill(int(tries(far, freezes)[0].split()[0]), signal.SIGKILL)
    ended = "its worker ended (ActorDiedError)"
    assert outcome.failed == {always: f"{always} ended with its worker process: {ended}"}
    assert [one.status for one in of_step(far, always)] == ["failed"] * 3
    assert len(tries(far, always)) == len({one.id for one in of_step(far, always)}) == 3
    waits = {name for name, step in far.steps().items() if far.steps()[always].id in step.needs}
    assert set(outcome.done) == set(far.steps()) - waits - {always}
    assert results(far).items() < expected(far).items()
    for name, why in ((dies, ended), (freezes, "its worker did not answer for 5 s")):
        assert len(of_step(far, name)) == 2, (name, of_step(far, name), tries(far, name))
        lost, done = of_step(far, name)
        assert (lost.status, done.status) == ("failed", "done")
        assert lost.error == f"{name} is tried again: {why}"
        assert (done.why, done.artifact) == ("its worker was lost", lost.artifact)


def test_a_node_that_goes_is_done_without(
    far: Small, go: Callable[[], Outcome], cluster: object
) -> None:
    befalls(far, "wait")
    more = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    there = {one.node_id: one for one in cluster.worker_nodes}

    def remove() -> None:
        node = there[wait_for(tried(far.root, STEP))]
        cluster.remove_node(node, allow_graceful=False)

    remover = threading.Thread(target=remove)
    remover.start()
    outcome = go()
    remover.join()
    assert more.node_id in there
    assert not outcome.failed
    assert results(far) == expected(far)
    first, second = tries(far)
    assert first.split()[1] != second.split()[1], "another node"
    lost, done = of_step(far)
    ways = "is gone with its node", "cannot be reached"  # Ray tells the one, then the other
    assert lost.error in {f"{STEP} is tried again: its worker {one}" for one in ways}
    assert done.status == "done"


def test_a_driver_that_is_killed_is_run_again(far: Small, go: Callable[[], Outcome]) -> None:
    befalls(far, "wait")
    script = far.root / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, script, far.root])
    try:
        wait_for(tried(far.root, STEP))
    finally:
        driver.kill()
        driver.wait()
    done = {one.step for one in intervals(far) if one.status == "done"}
    outcome = go()
    assert not outcome.failed
    assert not done & set(outcome.done), "what was done is kept"
    assert results(far) == expected(far)
    lost, again = of_step(far)
    assert (lost.status, again.status) == ("interrupted", "done")
    assert lost.error == "the run was killed; closed at its last heartbeat"
    assert all(one.status != "open" for one in intervals(far))
    assert sum(one.kind == IDLE for one in intervals(far)) == 2


def test_the_driver_may_be_a_laptop(far: Small, go: Callable[[], Outcome], cluster: object) -> None:
    """It speaks to the cluster's client server, one port."""
    text = (far.root / "koinize.yaml").read_text()
    far.spec(text.replace(f"'{cluster.address}'", f"'{cluster.client}'"))
    befalls(far, "kill")
    assert not go().failed
    assert results(far) == expected(far)
    assert [one.status for one in of_step(far)] == ["failed", "done"]


def asking(address: str, **more: object) -> object:
    return executors.get("ray")("auto", 1, address=address, **more)


def refused(address: str, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        asking(address, **more).ask()
    return str(caught.value)


def test_a_gpu_that_no_node_has_is_missed_before_anything_starts(cluster: object) -> None:
    assert refused(cluster.address, gpus=1).startswith(
        f"{cluster.address} no node of the cluster has room for a worker; there are "
    )
    assert refused(cluster.address, gpus=1).endswith(
        "expected a node with 1 CPU, 1 GPU; ask for less under `machine`, or add such a node "
        "before the run"
    )
    assert "1 CPU, 100000 GiB of memory;" in refused(cluster.address, memory=1e5)


def test_a_node_that_does_not_share_the_folder_is_told(cluster: object, tmp_path: Path) -> None:
    marker = tmp_path / "elsewhere" / "progress" / "seen"
    with pytest.raises(InputError) as caught:
        asking(cluster.address).ask(partial(nodes._greet, marker, __version__))
    assert str(caught.value) == (
        f"the node {socket.gethostname()} does not see {tmp_path}/elsewhere as it is here; "
        "expected a folder that all nodes share, by the same path; put the project on a file "
        "system that they share, such as NFS"
    )


NOBODY = (
    "machine.address: {} no Ray cluster answers there; start one (`ray start --head`), mend the "
    "address, or leave it out: koinize then starts one on this machine"
)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_out_of_reach(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    assert refused(address) == NOBODY.format(address)


def test_an_address_that_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "CONNECT_SECONDS", 4.0)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"127.0.0.1:{server.server_port}"
        assert refused(address) == NOBODY.format(address)
    finally:
        server.shutdown()
        server.server_close()

"""Whole projects on several machines: what one makes no other makes again, whoever is killed."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from koinize.ledger import Ledger
from koinize.pipeline import Project
from tests.reliability.arena import Arena
from tests.reliability.conditions import digests, leftovers
from tests.reliability.conftest import write_project
from tests.store.servers import refusing


@pytest.fixture
def arena(shared) -> Iterator[Arena]:
    """Processes for which S3 is the server of this test, in steps that need no torch."""
    with Arena(fake=True) as arena:
        yield arena


def machine(shared, name: str, store: str | None = "") -> Path:
    """The project as it is checked out there."""
    folder = shared.folder / name
    write_project(folder)
    file = folder / "koinize.yaml"
    if store is not None:
        file.write_text(f"{file.read_text()}store: {store or shared.url}\n")
    return folder


def made(root: Path) -> Counter[str]:
    """What was done there, by artifact."""
    kinds = {step.kind for step in Project.at(root / "koinize.yaml").steps}
    intervals = Ledger(root / ".koinize/ledger.jsonl").intervals()
    return Counter(one.artifact for one in intervals if one.status == "done" and one.kind in kinds)


def unsent(root: Path) -> list[Path]:
    return list((root / ".koinize" / "artifacts").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["moto"], indirect=True)
def test_what_one_machine_made_the_other_only_reads(shared, arena):
    a, b = machine(shared, "a"), machine(shared, "b")
    alone = machine(shared, "alone", store=None)
    for root in (a, alone):
        ended = arena.koinize("run", cwd=root)
        assert ended.code == 0, ended.output
    assert json.loads(arena.koinize("plan", "--json", cwd=b).output)["missing"] == []
    ended = arena.koinize("run", cwd=b)
    assert (ended.code, ended.output) == (0, "nothing to do; the report is report.html\n")
    assert digests(a) == digests(b) == digests(alone)
    assert (made(b), unsent(a), unsent(b)) == (Counter(), [], [])
    assert len(made(a)) == len(Project.at(a / "koinize.yaml").steps)
    commands = ("report --json", "promote", "history", "gc --delete", "doctor", "ledger show")
    for command in (*commands, "ledger verify"):
        ended = arena.koinize(*command.split(), cwd=a)
        assert ended.code == 0, (command, ended.output)
    assert arena.koinize("plan", "--json", cwd=b).code == 0
    assert digests(b) == digests(alone)


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["moto"], indirect=True)
def test_a_change_on_one_machine_is_told_by_its_reason_on_the_other(shared, arena):
    a, b = machine(shared, "a"), machine(shared, "b")
    assert arena.koinize("run", cwd=a).code == 0
    rows = b / "data" / "de.train.jsonl"
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines[1:], lines[0].replace('"text": "', '"text": "more ')]) + "\n")
    missing = json.loads(arena.koinize("plan", "--json", cwd=b).output)["missing"]
    why = {one["step"]: one["why"] for one in missing}
    assert why["train/mood/de"] == "train rows de changed"
    assert "train/mood/en" not in why


@pytest.mark.parametrize("shared", ["moto"], indirect=True)  # SeaweedFS calls it AccessDenied
def test_a_bucket_that_is_not_there(shared, arena):
    a = machine(shared, "a", "s3://nobody/x")
    said = "s3://nobody/x there is no such bucket; create it, or mend the URL"
    for command in ("plan", "run", "report", "gc", "promote"):
        ended = arena.koinize(command, cwd=a)
        assert (ended.code, ended.output) == (2, f"koinize: {said}\n"), command
    (a / ".koinize").mkdir(exist_ok=True)
    ended = arena.koinize("doctor", cwd=a)
    assert ended.code == 1
    assert said in ended.output


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["moto"], indirect=True)
def test_a_run_that_is_killed_is_finished_on_another_machine(shared, arena):
    """And then the first machine, if it comes back, finds nothing to do and leaves nothing."""
    expected = None
    for operation in (90, 450):
        url = f"{shared.url}/{operation}"
        a, b = (machine(shared, f"{name}{operation}", url) for name in "ab")
        assert arena.koinize("run", cwd=a, operation=operation).killed
        ended = arena.koinize("run", cwd=b)
        assert ended.code == 0, ended.output
        ended = arena.koinize("run", cwd=a)
        assert ended.code == 0, ended.output
        expected = expected or digests(b)
        assert digests(a) == digests(b) == expected, operation
        assert (unsent(a), unsent(b), leftovers(a), leftovers(b)) == ([], [], [], [])
        assert arena.koinize("ledger", "verify", cwd=a).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["moto"], indirect=True)
def test_a_store_that_refuses_in_the_middle_of_a_run(shared, arena):
    """What can go on goes on, nothing is lost, and the next run sends it all."""
    a, b = machine(shared, "a"), machine(shared, "b")
    refuse = refusing(403, "AccessDenied", only="PUT POST", target=shared.port, after=9)
    with refuse as port:
        shared.connect(port)
        with Arena(fake=True) as refused:
            ended = refused.koinize("run", cwd=a)
    assert ended.code == 2
    assert f"{shared.url} refused the request (AccessDenied)" in ended.output
    assert "Traceback" not in ended.output
    assert len(unsent(a)) > 10
    shared.connect(shared.port)
    before = made(a)
    assert arena.koinize("run", cwd=a).code == 0
    assert unsent(a) == []
    assert all(made(a)[one] == 1 for one in before), "nothing was done twice"
    assert arena.koinize("run", cwd=b).code == 0
    assert (made(b), digests(b)) == (Counter(), digests(a))


@pytest.mark.slow
def test_two_machines_that_run_at_once_agree(shared, arena):
    a, b = machine(shared, "a"), machine(shared, "b")
    codes = {}
    with Arena(fake=True) as other:

        def run(where: Arena, root: Path) -> None:
            codes[root] = where.koinize("run", cwd=root).code

        threads = [threading.Thread(target=run, args=pair) for pair in ((arena, a), (other, b))]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert codes == {a: 0, b: 0}
    assert digests(a) == digests(b)
    names = {step.name: step.id for step in Project.at(a / "koinize.yaml").steps}
    assert Project.at(a / "koinize.yaml").store.written_names() == names
    assert (unsent(a), unsent(b)) == ([], [])
    shutil.rmtree(a / ".koinize" / "cache")
    assert digests(a) == digests(b)

"""`koinize export mlflow`: into MLflow itself over sqlite, and to servers that refuse."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from collections import UserList
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from koinize.ledger import Ledger
from koinize.release import promote, rollback
from koinize.tracking.measured import Record
from koinize.tracking.mlflow import KEY, PROJECT, SENT, _Sender
from tests.cli.conftest import Call
from tests.pipeline.conftest import Small
from tests.release.releasing import finish, retrain
from tests.tracking.test_prometheus import PRICE

CHOSEN = "knots-ties density 1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("koinize.pipeline.report_input.interference", lambda *_: None)
    known = {name: one for name, one in os.environ.items() if "MLFLOW" in name}
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    assert {name: one for name, one in os.environ.items() if "MLFLOW" in name} == known
    assert (root.handlers, root.level) == (handlers, level)


@pytest.fixture
def installed() -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")


@pytest.fixture
def uri(installed: None, tmp_path: Path) -> str:
    """Of a database of this test alone; MLflow keeps a store by its address."""
    pytest.importorskip("alembic", reason="MLflow's database needs alembic")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def spend(small: Small, run: str, *, ends: bool = True) -> None:
    ledger = Ledger(small.root / ".koinize" / "ledger.jsonl")
    what = {"run": run, "device": "d", "price": PRICE, "kind": "train", "share": "0.5"}
    ledger.start(f"{run}-a", **what, step="train/mood/de", artifact="a", at=Decimal(100))
    ledger.end(f"{run}-a", seconds=Decimal(4), status="done", at=Decimal(104))
    ledger.start(f"{run}-b", **what, step="train/mood/en", artifact="b", at=Decimal(104))
    if ends:
        end(small, run)


def end(small: Small, run: str) -> None:
    ledger = Ledger(small.root / ".koinize" / "ledger.jsonl")
    ledger.end(f"{run}-b", seconds=Decimal(6), status="failed", error="no", at=Decimal(110))


def sent(koinize: Call, uri: str) -> dict[str, Any]:
    code, out, err = koinize("export", "mlflow", "small", "--uri", uri, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_everything_is_sent_once_and_aliases_follow_channels(
    koinize: Call, small: Small, uri: str
) -> None:
    from mlflow.tracking import MlflowClient

    spend(small, "first")
    nothing = sent(koinize, uri)
    assert (nothing["new"], nothing["known"], nothing["releases"]) == (1, 0, [])
    (note,) = nothing["notes"]
    missing = "25 of 25 steps are missing, first 'base'; run `koinize run` first"
    assert note == f"no scores were sent: {missing}"

    project = finish(small, {"de": 4})
    promote(project, "mood", "production")
    spend(small, "second", ends=False)
    first = sent(koinize, uri)
    # A run, a release, and BASE, INDV, SINGLE, COMB, MEAN and the merge; the first run was there.
    assert (first["known"], first["releases"]) == (1, ["small.mood v1"])
    assert first["aliases"] == {"small.mood@production": "1"}
    again = sent(koinize, uri)
    assert (again["new"], again["known"], again["releases"]) == (0, first["new"] + 1, [])

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("small").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == first["new"] + 1
    by_kind: dict[str, list[Any]] = {}
    for one in runs:
        by_kind.setdefault(one.data.tags["koinize.kind"], []).append(one.data)
    (spent,) = (one for one in by_kind["run"] if one.metrics["wall_seconds"] == 10)
    assert spent.metrics["machine_seconds"] == 5
    assert spent.metrics["cost_EUR"] == 0.005
    assert spent.metrics["cost_EUR/train"] == 0.002
    assert spent.metrics["cost_EUR/train failed"] == 0.003
    (merged,) = (one for one in by_kind["system"] if one.tags["koinize.system"] == CHOSEN)
    (released,) = by_kind["release"]
    for one in (merged, released):
        assert one.metrics["test/accuracy/de"] == 99  # 396 of 400
        assert one.metrics["test/accuracy/de_n"] == 400
        assert one.metrics["test/accuracy/de_low"] < 99 < one.metrics["test/accuracy/de_high"]
    assert merged.metrics["test/accuracy/mean"] == 99.5
    assert (merged.params["recipe"], merged.tags["koinize.chosen"]) == ("knots-ties", "true")

    version = client.get_model_version_by_alias("small.mood", "production")
    card = Path(version.source) / "README.md"
    assert card.read_text().startswith("# Merged adapter")
    assert client.get_run(version.run_id).data.tags["koinize.release"] == "v1"

    # The run that went on has ended, and there is a second release.
    end(small, "second")
    retrain(small, "de", 6)
    project = finish(small)
    promote(project, "mood", "production")
    second = sent(koinize, uri)
    assert second["releases"] == ["small.mood v2"]
    assert second["aliases"] == {"small.mood@production": "2"}
    ended = [one for one in client.search_runs([experiment]) if "first" not in one.data.tags]
    walls = [
        one.data.metrics["wall_seconds"] for one in ended if one.data.tags["koinize.kind"] == "run"
    ]
    assert sorted(walls)[-2:] == [10, 10]
    rollback(project, "mood", "production")
    assert sent(koinize, uri)["aliases"] == {"small.mood@production": "1"}
    assert client.get_model_version_by_alias("small.mood", "production").version == version.version

    # What was cut short is sent again, under the same run.
    cut = client.search_runs([experiment])[0].info.run_id
    client.delete_tag(cut, "koinize.sent")
    before = len(client.search_runs([experiment]))
    assert sent(koinize, uri)["new"] == 1
    assert len(client.search_runs([experiment])) == before


class Runs:
    """MLflow's client as far as one run is concerned."""

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags
        data, info = SimpleNamespace(tags=tags), SimpleNamespace(run_id="r")
        self.found = SimpleNamespace(data=data, info=info)

    def get_experiment_by_name(self, _: str) -> Any:
        return SimpleNamespace(experiment_id="1")

    def search_runs(self, *_: object, **__: object) -> Any:
        runs = UserList([self.found])
        runs.token = None  # type: ignore[attr-defined]
        return runs

    def set_tag(self, _: str, name: str, text: str) -> None:
        self.tags[name] = text

    def log_batch(self, *_: object, **__: object) -> None: ...

    def set_terminated(self, *_: object) -> None: ...


@pytest.mark.slow
def test_what_is_no_longer_chosen_says_so(small: Small, installed: None) -> None:
    tags = {KEY: "system/a", PROJECT: "small", SENT: "before", "koinize.chosen": "true"}
    client, now = Runs(tags), {"koinize.chosen": "false"}
    sender = _Sender(small.real(), client, "small")
    sender._run(Record("system/a", "a", Decimal(1), Decimal(2), {}, tags=now))
    assert tags["koinize.chosen"] == "false"


@pytest.mark.slow
def test_a_registered_model_of_somebody_else(koinize: Call, small: Small, uri: str) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(uri, uri).create_registered_model("small.mood")
    promote(finish(small), "mood", "production")
    code, out, err = koinize("export", "mlflow", "small", "--uri", uri)
    assert (code, out, err.splitlines()[-1]) == (
        2,
        "",
        "koinize: MLflow has a registered model 'small.mood' that koinize did not make; rename it "
        "there, or the project in koinize.yaml",
    )


@contextmanager
def refusing(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything in this way."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_refuses(koinize: Call, small: Small, installed: None) -> None:
    said = {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}
    with refusing(403, json.dumps(said).encode()) as place:
        uri = f"http://me:secret@{place}"
        code, out, err = koinize("export", "mlflow", "small", "--uri", uri)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"koinize: http://***@{place} MLflow refused: ")
    assert "Permission denied" in err
    assert err.endswith("is not sent twice: run the same command again\n")


def test_a_server_that_is_something_else(koinize: Call, small: Small, installed: None) -> None:
    with refusing(200, b"<html>") as place:
        code, out, err = koinize("export", "mlflow", "small", "--uri", f"http://{place}")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_a_server_that_is_down(koinize: Call, small: Small, installed: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}"
        code, out, err = koinize("export", "mlflow", "small", "--uri", uri)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "MLflow refused: " in err
    assert "secret" not in err


def test_without_an_address_or_without_mlflow(
    koinize: Call, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert koinize("export", "mlflow", "small") == (
        2,
        "",
        "koinize: there is no address of MLflow; expected --uri, or MLFLOW_TRACKING_URI\n",
    )
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    code, out, err = koinize("export", "mlflow", "small", "--uri", "sqlite:///x.db")
    assert (code, out) == (2, "")
    assert err.startswith("koinize: MLflow needs the package mlflow")
    assert err.endswith("pip install 'koinize[mlflow]', or mlflow itself for a database\n")

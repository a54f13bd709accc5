"""Two real S3 servers on ports of their own, and a wire to them that can be cut."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DEADLINE = 120  # seconds for a server to be ready on a machine that is busy with other things
BUCKET = "shared"


def endpoint(port: int) -> dict[str, str]:
    """The environment in which S3 is this server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def moto() -> Iterator[int]:
    """moto's server in threads; its port.

    S3 decides conditional writes of one name one after the other. moto looks first and writes then,
    so that two threads may both be told that they were the first; here they wait for one another.
    """
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    answer, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def atomic(environ: dict[str, Any], start_response: Any) -> Any:
        conditional = environ.keys() & {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"}
        with one_at_a_time if conditional else nullcontext():
            return answer(environ, start_response)

    server = make_server("127.0.0.1", 0, atomic, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _make_bucket(server.port)
        yield server.port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def weed() -> str | None:
    """The program of SeaweedFS, where its package is installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def seaweed(folder: Path) -> Iterator[int]:
    """SeaweedFS with its files in this folder; the port of its S3 gateway."""
    names = [
        *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
        *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"),
    ]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                *(weed(), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *("-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-master.telemetry=false",),
                *("-master.volumeSizeLimitMB=64", "-volume.max=20"),
                *(f"-{name}={port}" for name, port in ports.items()),
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _make_bucket(ports["s3.port"])
            yield ports["s3.port"]
        finally:
            server.kill()
            server.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _make_bucket(port: int) -> None:
    """Create the bucket, and an object in it, as soon as the server does both."""
    until = time.monotonic() + DEADLINE
    for path in (BUCKET, f"{BUCKET}/ready"):
        while True:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", b"", method="PUT")
            try:
                urllib.request.urlopen(request, timeout=DEADLINE).close()  # noqa: S310
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise TimeoutError(f"no server at {port}") from error
                time.sleep(0.1)


class Wire:
    """A TCP proxy in front of a port, which counts exchanges and cuts every `cut`-th of them.

    By turns the request never arrives, and the request arrives and its answer never does.
    """

    def __init__(self, target: int) -> None:
        self.target, self.cut, self.exchanges, self.cuts = target, 0, 0, 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which `_accept` notices
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._socket.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.target))
                connection = _Connection(self, near, far)
                threading.Thread(target=connection.there, daemon=True).start()
                threading.Thread(target=connection.back, daemon=True).start()

    def fate(self) -> str:
        """What becomes of the next exchange."""
        with self._lock:
            self.exchanges += 1
            if not self.cut or self.exchanges % self.cut:
                return "passes"
            self.cuts += 1
            return "no request" if self.cuts % 2 else "no answer"


class _Connection:
    """One connection. HTTP/1.1 without pipelining: after an answer comes a request, and so on."""

    def __init__(self, wire: Wire, near: socket.socket, far: socket.socket) -> None:
        self.wire, self.near, self.far = wire, near, far
        self.answered, self.fate = True, ""

    def there(self) -> None:
        with suppress(OSError):
            while data := self.near.recv(1 << 16):
                if self.answered:
                    self.answered, self.fate = False, self.wire.fate()
                if self.fate == "no request":
                    break
                self.far.sendall(data)
        self._end()

    def back(self) -> None:
        with suppress(OSError):
            while data := self.far.recv(1 << 16):
                if self.fate == "no answer":
                    break
                self.answered = True
                self.near.sendall(data)
        self._end()

    def _end(self) -> None:
        for one in (self.near, self.far):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def refusing(
    status: int, code: str, *, only: str = "", target: int = 0, after: int = 0
) -> Iterator[int]:
    """A server that answers with this error, or only these methods so, and passes on the others.

    The first `after` of them are passed on, too.
    """
    room = iter(range(after))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if only and (self.command not in only.split() or next(room, None) is not None):
                found = _passed_on(self, body, target)
            else:
                text = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
                found = status, {}, text.encode()
            self.send_response(found[0])
            for name, value in found[1].items():
                if name.lower() not in {"content-length", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(found[2])))
            self.end_headers()
            self.wfile.write(found[2])

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _passed_on(
    handler: BaseHTTPRequestHandler, body: bytes, target: int
) -> tuple[int, dict[str, str], bytes]:
    url = f"http://127.0.0.1:{target}{handler.path}"
    headers = {"content-type": "application/octet-stream", **handler.headers}  # else it is a form
    request = urllib.request.Request(url, body or None, headers, method=handler.command)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:  # noqa: S310
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()

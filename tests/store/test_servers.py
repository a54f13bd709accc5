"""The servers that the tests of shared stores run, beside one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.conftest import SEAWEED
from tests.store.servers import seaweed, weed


@pytest.mark.slow
@pytest.mark.skipif(weed() is None, reason=SEAWEED)
def test_two_at_once_share_no_port(tmp_path: Path) -> None:
    """Each has made its bucket; a port that is the same for all would end the second."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with seaweed(tmp_path / "one") as first, seaweed(tmp_path / "two") as second:
        assert first != second

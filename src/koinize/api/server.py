"""A running server that follows what is promoted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from koinize.pipeline import Project

if TYPE_CHECKING:
    from koinize.release import Serve


@dataclass(frozen=True)
class Server:
    """A running vLLM or SGLang: its address, such as `http://localhost:8000/v1`, what it calls the
    adapter (by default the task's name), its key, and the seconds that one answer may take.
    """

    url: str
    model: str | None = None
    api_key: str = ""
    timeout: float = 60.0


def follower(project: Project, task: str, server: Server | str | None) -> Serve:
    """Lets the server follow a channel; None is none. Raises InputError for one that cannot."""
    from koinize import release

    if server is None:
        return release.not_served
    from koinize import serving  # which needs torch, and a promotion alone does not

    one = Server(server) if isinstance(server, str) else server
    client = serving.Client(serving.address(one.url), serving.check_key(one.api_key), one.timeout)
    return serving.follower(project, task, client, one.model)

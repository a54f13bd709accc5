"""A running server that follows a release: it loads it, is asked whether it serves it, and only
then gives it the name that users ask for.

The release is loaded beside what the server has, under a name of its own (`sentiment-v4`), and
checked there, where a failure concerns nobody. Then the name is put on it and checked again: until
whoever asked for all this is done, whatever fails puts the former adapter back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from koinize import machine
from koinize.errors import GateError, InputError, KoinizeError, StepError
from koinize.pipeline import Project
from koinize.release import Release, Serve
from koinize.serving.check import Progress, Request, check_serving
from koinize.serving.client import Client, RefusedError
from koinize.serving.subject import Subject, of_project
from koinize.serving.text import verdict
from koinize.shown import line

NO_ROUTE = "Not Found"
"""What both servers' framework says where there is no such address."""
NOTHING = "nothing was promoted or rolled back"


@dataclass(frozen=True)
class Listing:
    """What a server has: the name of its base model, and the folder of each adapter by name."""

    owner: str
    base: str
    folders: Mapping[str, str]


class Dialect(Protocol):
    """How a kind of server is told of adapters while it runs."""

    def load(self, client: Client, name: str, folder: str, listing: Listing) -> None:
        """Let this name be the adapter in a folder that the server sees. Raises InputError."""

    def unload(self, client: Client, name: str) -> None:
        """Forget this name. Raises InputError."""

    def asked(self, name: str, listing: Listing) -> str:
        """The model that a request names for this adapter."""


class VLLM:
    """vLLM, as of 0.32: a name may be given to another folder at once."""

    def load(self, client: Client, name: str, folder: str, _: Listing) -> None:
        """As of every dialect."""
        body = {"lora_name": name, "lora_path": folder, "load_inplace": True}
        client.tell("/load_lora_adapter", body)

    def unload(self, client: Client, name: str) -> None:
        """As of every dialect."""
        client.tell("/unload_lora_adapter", {"lora_name": name})

    def asked(self, name: str, _: Listing) -> str:
        """As of every dialect."""
        return name


class SGLang:
    """SGLang, as of 0.5: a name has to be given up before it is given to another folder, and a
    request names the base as well, or gets the base.
    """

    def load(self, client: Client, name: str, folder: str, listing: Listing) -> None:
        """As of every dialect."""
        if name in listing.folders:
            self.unload(client, name)
        _root(client).tell("/load_lora_adapter", {"lora_name": name, "lora_path": folder})

    def unload(self, client: Client, name: str) -> None:
        """As of every dialect."""
        _root(client).tell("/unload_lora_adapter", {"lora_name": name})

    def asked(self, name: str, listing: Listing) -> str:
        """As of every dialect."""
        return f"{listing.base}:{name}"


def _root(client: Client) -> Client:
    """The server above OpenAI's API, whose address ends as `client.address` has it."""
    return replace(client, url=client.url[: -len("/v1")])


DIALECTS: Mapping[str, Dialect] = {"vllm": VLLM(), "sglang": SGLang()}
"""By the owner that a server names in its list of models."""


@dataclass(frozen=True)
class Follower:
    """A server, what its users call the adapter, and how many prompts a language it is asked."""

    client: Client
    name: str
    prompts: int = 20

    def require(self) -> None:
        """Raise InputError for a server that could not follow at all."""
        self._dialect()
        if self.name == self._listing().base:
            raise InputError(
                f"'{self.name}' is the base model of the server",
                where=self.client.url,
                remedy="give what it is to call the adapter by --model",
            )

    @contextmanager
    def serves(
        self, subject: Subject, release: str, former: Path | None, progress: Progress | None = None
    ) -> Iterator[None]:
        """The server serves this release from the beginning of the block on, and for good where the
        block raises nothing.

        `former` is what it goes back to where it cannot say what it had, None for no adapter.
        Raises InputError for a server that cannot be asked or does not load it, GateError for one
        that then serves something else, StepError where the former adapter could not be put back.
        """
        self.require()
        before = self._listing()
        folder, trial = str(subject.adapter.resolve()), f"{self.name}-{release}"
        was = before.folders.get(self.name, "")
        if was == folder:
            was = str(former.resolve()) if former else ""
        try:
            try:
                self._load(trial, folder)
                self._prove(subject, trial, progress)
            except KoinizeError as error:
                raise _with(error, f"'{self.name}' was not touched, and {NOTHING}") from None
            try:
                self._load(self.name, folder)
                self._prove(subject, self.name, progress)
                yield
            except BaseException as error:
                with machine.undisturbed():
                    self._put_back(was, error)
                if isinstance(error, KoinizeError):
                    has = f"has {was} again" if was else "is no longer served"
                    raise _with(error, f"'{self.name}' {has}, and {NOTHING}") from None
                raise
        finally:
            # It costs room and nothing else; a server that is gone needs no tidying.
            with suppress(KoinizeError):
                self._dialect().unload(self.client, trial)

    def _listing(self) -> Listing:
        try:
            return _read(self.client.get("/models"), self.client)
        except RefusedError as error:
            raise InputError(f"does not list its models: {error.said}", where=error.where) from None

    def _dialect(self) -> Dialect:
        found = self._listing()
        if found.owner not in DIALECTS:
            raise InputError(
                f"says that it is '{found.owner}', which koinize cannot give another adapter to",
                where=self.client.url,
                expected=f"one of {', '.join(DIALECTS)}",
                remedy="export the release, start the server with it, and run check-serving",
            )
        return DIALECTS[found.owner]

    def _load(self, name: str, folder: str) -> None:
        dialect, listing = self._dialect(), self._listing()
        try:
            dialect.load(self.client, name, folder, listing)
        except RefusedError as error:
            if error.said == NO_ROUTE:
                raise InputError(
                    "takes no adapters while it runs",
                    where=self.client.url,
                    remedy="start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 "
                    "in its environment, or SGLang with --enable-lora",
                ) from None
            raise InputError(
                f"does not load '{name}': {error.said}",
                where=self.client.url,
                expected=f"a server that sees the folder {folder}",
            ) from None

    def _prove(self, subject: Subject, name: str, progress: Progress | None) -> None:
        asked = self._dialect().asked(name, self._listing())
        found = check_serving(subject, Request(self.client, asked, prompts=self.prompts), progress)
        if not found.is_right:
            raise GateError(verdict(found), where=f"{self.client.url} as '{asked}'")

    def _put_back(self, was: str, error: BaseException) -> None:
        """Give the name to what it had. Raises StepError where the server does not."""
        try:
            if was:
                self._load(self.name, was)
            elif self.name in self._listing().folders:
                self._dialect().unload(self.client, self.name)
            found = self._listing().folders.get(self.name, "")
            if found != was:
                raise InputError(f"lists '{found}' for '{self.name}'", where=self.client.url)
        except KoinizeError as again:
            had = was or "no adapter"
            raise StepError(
                f"{error}; and '{self.name}' could not be given {had} again: {again}",
                remedy=f"{NOTHING}: look what the server serves, and start it anew",
            ) from None


def follower(
    project: Project,
    task: str,
    client: Client,
    model: str | None = None,
    progress: Progress | None = None,
) -> Serve:
    """Lets a running server follow a channel of this task (a `koinize.release.Serve`).

    `model` is what it calls the adapter, by default the task's name. Raises InputError for a server
    that could not.
    """
    server = Follower(client, model or task)
    server.require()

    def serve(found: Release, former: Release | None) -> AbstractContextManager[None]:
        subject = of_project(project, task=task, release=found.name)
        return server.serves(subject, found.name, former.folder if former else None, progress)

    return serve


def _read(found: Any, client: Client) -> Listing:  # noqa: ANN401 - JSON
    listed = found.get("data") if isinstance(found, dict) else None
    entries = [one for one in listed or [] if isinstance(one, dict)]
    named = [one for one in entries if isinstance(one.get("id"), str)]
    bases = [one for one in named if not one.get("parent")]
    if not bases:
        raise InputError("lists no base model", where=f"{client.url}/models")
    folders = {one["id"]: str(one.get("root") or "") for one in named if one.get("parent")}
    owner = line(client.quoted(str(bases[0].get("owned_by") or "")))
    return Listing(owner, bases[0]["id"], folders)


def _with(error: KoinizeError, remedy: str) -> KoinizeError:
    """The same error, which says what became of the server."""
    kind = next(one for one in (GateError, InputError, KoinizeError) if isinstance(error, one))
    said = f"{error.remedy}; {remedy}" if error.remedy else remedy
    return kind(error.what, where=error.where, expected=error.expected, remedy=said)

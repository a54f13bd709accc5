"""What an OpenAI-compatible server says of the token that comes after a prompt.

Servers differ in how they name tokens. vLLM says their ids where it is asked to, llama.cpp always,
both give a token's bytes besides; SGLang and others give a text. All of it is read, and a server
that does not know an option of the request is asked again without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from koinize.errors import InputError, did_you_mean
from koinize.serving.client import Client, RefusedError
from koinize.shown import line

Way = Literal["tokens", "text", "chat"]
"""How a prompt is sent: as token ids, as text, or as messages for the server's template."""

Prompt = str | list[int] | list[dict[str, str]]

PATHS: Mapping[Way, str] = {
    "tokens": "/completions",
    "text": "/completions",
    "chat": "/chat/completions",
}
FIELDS: Mapping[Way, str] = {"tokens": "prompt", "text": "prompt", "chat": "messages"}
MOST_TOKENS = (20, 5, 1)  # that a server is asked to name; some allow no more than five, or one
REFUSES_FORM = (400, 404, 405, 415, 422, 500, 501)
TOKEN_ID = re.compile(r"token_id:([0-9]{1,9})")
SEEDS = 8  # by which a token is drawn, until one shows its log-probabilities
LEAST = -1000.0  # of a log-probability; servers write -9999 for what a filter left out


@dataclass(frozen=True, slots=True)
class Named:
    """One token as a server names it: any of id, bytes and text."""

    text: str
    id: int | None = None
    bytes: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Natural log-probabilities of tokens that may come next; the server's count of the prompt."""

    logprobs: Mapping[Named, float]
    prompt_tokens: int | None


@dataclass
class Server:
    """One model of a server. `arguments` are those of its chat template; `refused` is what it said
    to the ways in which it is not asked.
    """

    client: Client
    model: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    refused: dict[Way, str] = field(default_factory=dict)
    _form: dict[Way, tuple[int, bool]] = field(default_factory=dict)

    def next_token(self, way: Way, prompt: Prompt) -> Answer | None:
        """What may come after this prompt; None from a server that is not asked in this way.

        The token that a server draws hides the others where it is no whole character, or ends the
        text, from llama.cpp: then it is asked to draw another one. Raises InputError where it does
        not answer.
        """
        found = None
        for seed in range(SEEDS):
            reply = self._reply(way, prompt, seed)
            if reply is None:
                return None
            found = self._read(way, reply)
            if found.logprobs:
                break
        return found

    def _reply(self, way: Way, prompt: Prompt, seed: int) -> Any:  # noqa: ANN401 - JSON
        """The server's JSON, asked in the first form that it takes; None where it takes none."""
        if way in self._form:
            return self._post(way, prompt, seed, *self._form[way])
        for form in product(MOST_TOKENS, (True, False)):
            try:
                found = self._post(way, prompt, seed, *form)
            except RefusedError as error:
                if error.status not in REFUSES_FORM:
                    raise
                self.refused[way] = error.said
                continue
            self._form[way] = form
            self.refused.pop(way, None)
            return found
        return None

    def _post(self, way: Way, prompt: Prompt, seed: int, most: int, ids: bool) -> Any:  # noqa: ANN401 - JSON
        body: dict[str, object] = {
            "model": self.model,
            FIELDS[way]: prompt,
            "max_tokens": 1,
            # Some servers divide by the temperature before they take the logarithm.
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": seed,
            "stream": False,
        }
        body |= {"logprobs": True, "top_logprobs": most} if way == "chat" else {"logprobs": most}
        if ids:
            body["return_tokens_as_token_ids"] = True
        if way == "chat" and self.arguments:
            body["chat_template_kwargs"] = dict(self.arguments)
        return self.client.post(PATHS[way], body)

    def _read(self, way: Way, found: Any) -> Answer:  # noqa: ANN401 - JSON
        where = self.client.url + PATHS[way]
        if isinstance(found, dict) and "choices" not in found and found.get("error"):
            said = self.client.quoted(str(found["error"]))
            raise InputError(f"refuses: {line(said)}", where=where)
        try:
            logprobs = _logprobs(found["choices"][0].get("logprobs"))
            usage = found.get("usage") or {}
            count = usage.get("prompt_tokens")
        except (LookupError, TypeError, AttributeError, ValueError):
            raise InputError(
                "answers in a form that OpenAI's API does not have",
                where=where,
                expected="choices with logprobs",
            ) from None
        return Answer(logprobs, count if type(count) is int and count > 0 else None)


def models_of(client: Client) -> tuple[list[str], str]:
    """The models that a server lists, and who it says that it is; nothing where it has no list."""
    try:
        found = client.get("/models")
    except RefusedError:
        return [], ""
    listed = found.get("data") if isinstance(found, dict) else None
    entries = [one for one in listed or [] if isinstance(one, dict)]
    names = [one["id"] for one in entries if isinstance(one.get("id"), str)]
    owners = [one["owned_by"] for one in entries if isinstance(one.get("owned_by"), str)]
    return names, line(client.quoted(owners[0])) if owners else ""


def check_model(name: str, listed: Sequence[str], client: Client) -> None:
    """Raise InputError where a server lists its models, and this one is not among them.

    SGLang lists a base and its adapters, and is asked for `base:adapter`.
    """
    base, _, adapter = name.rpartition(":")
    if listed and name not in listed and not {base, adapter} <= {*listed}:
        told = [line(client.quoted(one)) for one in listed]
        shown = ", ".join(f"'{one}'" for one in told[:20])
        raise InputError(
            f"serves no model '{line(name)}'",
            where=client.url,
            expected=f"one of {shown}",
            remedy=did_you_mean(name, told) if len(told) > 1 else "",
        )


def _logprobs(found: Any) -> dict[Named, float]:  # noqa: ANN401 - JSON
    """The first position's tokens, in the form of completions or in that of chats."""
    if not isinstance(found, dict):
        return {}
    if found.get("content"):
        first = found["content"][0]
        tops = [first, *(first.get("top_logprobs") or [])]
        entries = [(_named(one), one["logprob"]) for one in tops]
    else:
        top = found.get("top_logprobs") or []
        pairs = ((top[0] if top else None) or {}).items()
        entries = [(_named({"token": token}), value) for token, value in pairs]
    return {
        named: float(value)
        for named, value in entries
        if isinstance(value, int | float) and LEAST < value <= 0.01 and math.isfinite(value)
    }


def _named(entry: Mapping[str, Any]) -> Named:
    text = str(entry["token"])
    stated, written = entry.get("id"), entry.get("bytes")
    if said := TOKEN_ID.fullmatch(text):
        stated, written = int(said[1]), None  # vLLM then has the bytes of these words
    is_bytes = isinstance(written, list) and all(
        type(one) is int and 0 <= one < 256 for one in written
    )
    return Named(
        text,
        stated if type(stated) is int and stated >= 0 else None,
        bytes(written) if is_bytes and written else None,
    )

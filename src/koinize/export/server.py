"""How a server is started that serves an adapter: vLLM's and SGLang's flags, in a script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from koinize.adapter import AdapterHeader
from koinize.engine import vllm_flags
from koinize.errors import InputError
from koinize.model.base import BaseSpec

SCRIPT = "serve.sh"
CHAT_TEMPLATE = "chat_template.jinja"
HERE, BASE = "{here}", "{base}"
"""Stand in a command for the export's folder and for the base model."""


@dataclass(frozen=True)
class Served:
    """An adapter by its name, and whether a chat template lies beside the script."""

    name: str
    spec: BaseSpec
    header: AdapterHeader
    has_template: bool


def vllm(one: Served) -> list[str]:
    """vLLM's command. Raises InputError for a rank that it does not take."""
    flags = vllm_flags(rank_of(one.header))
    if not flags:
        raise InputError(
            f"has rank {rank_of(one.header)}, which is above vLLM's limit",
            where=str(one.header.folder),
            remedy="export with --to fused, or make its rank smaller by `koinize resize`",
        )
    command = ["vllm", "serve", BASE, *_as_trained(one), *flags.split()]
    command += ["--lora-modules", f"{one.name}={HERE}/{one.name}", *_template(one)]
    return [*command, *_arguments(one.spec)]


def vllm_of(model: str, spec: BaseSpec) -> list[str]:
    """vLLM's command for a whole model that was made of the base; without a dtype vLLM would serve
    one of float32 in 16 bits.
    """
    return ["vllm", "serve", model, *_dtype(spec), *_arguments(spec)]


def sglang(one: Served) -> list[str]:
    """SGLang's command. It has no flag for a template's arguments: who asks has to send them."""
    command = ["python", "-m", "sglang.launch_server", "--model-path", BASE, *_as_trained(one)]
    # All modules that SGLang can adapt: a later release may adapt others than this one.
    command += ["--enable-lora", "--max-lora-rank", str(rank_of(one.header))]
    command += ["--lora-target-modules", "all"]
    return [*command, "--lora-paths", f"{one.name}={HERE}/{one.name}", *_template(one)]


COMMANDS: Mapping[str, Callable[[Served], list[str]]] = {"vllm": vllm, "sglang": sglang}


def rank_of(header: AdapterHeader) -> int:
    """The largest rank of its modules."""
    return max(one.rank for one in header.modules.values())


def shown(command: Sequence[str], here: Path, base: str) -> str:
    """A command as a shell takes it, from anywhere."""
    return shlex.join(
        base if word == BASE else word.replace(HERE, str(here.absolute())) for word in command
    )


def script(command: Sequence[str], base: str, about: str) -> str:
    """serve.sh: the command, wherever its folder lies."""
    lines = [
        "#!/bin/sh",
        f"# {about}",
        "# BASE=FOLDER takes another copy of the base model, and arguments go to the server:",
        f"# sh {SCRIPT} --port 8000",
        f'[ -n "$BASE" ] || BASE={shlex.quote(base)}',
        'here=$(CDPATH="" cd -- "$(dirname -- "$0")" && pwd) || exit',
        f'exec {" ".join(map(_word, command))} "$@"',
    ]
    return "\n".join(lines) + "\n"


def _word(word: str) -> str:
    """A word of a command in the script, where the two variables are known."""
    if word == BASE:
        return '"$BASE"'
    if HERE not in word:
        return shlex.quote(word)
    before, after = word.split(HERE)
    return f'{shlex.quote(before) if before else ""}"$here"{shlex.quote(after)}'


def _as_trained(one: Served) -> list[str]:
    """The base model's revision and dtype."""
    revision = ["--revision", one.spec.revision] if one.spec.revision else []
    return [*revision, *_dtype(one.spec)]


def _dtype(spec: BaseSpec) -> list[str]:
    return [] if spec.dtype == "auto" else ["--dtype", spec.dtype]


def _arguments(spec: BaseSpec) -> list[str]:
    """Of the chat template."""
    if not spec.template:
        return []
    return ["--default-chat-template-kwargs", json.dumps(dict(spec.template))]


def _template(one: Served) -> list[str]:
    return ["--chat-template", f"{HERE}/{CHAT_TEMPLATE}"] if one.has_template else []

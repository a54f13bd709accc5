"""Whether texts fit into a model's limits, token for token as training and scoring count them.

Counting imports torch, with the tokenizer's library, and a chat template is a stranger's program
that may never end. So a process of its own counts, this module as a program.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.errors import InputError, KoinizeError
from koinize.files import parse_json

if TYPE_CHECKING:
    from koinize.model.encoding import Encoder

SECONDS, CHARACTERS_A_SECOND = 300.0, 10_000  # a library counts a hundred times as many

FITS, CUT = "", "cut"
"""What is said of a text; anything else is why it is refused."""


@dataclass(frozen=True, slots=True)
class Text:
    """The arguments of `Encoder.encode`."""

    prompt: str
    targets: Sequence[str]
    turns: Sequence[tuple[str, str]]
    max_length: int
    end: bool = False
    reserve: int = 0
    further: int = 0


def fitted(folder: Path, arguments: Mapping[str, object], texts: Sequence[Text]) -> list[str]:
    """FITS for each text, CUT where its prompt loses tokens, or why it cannot be encoded.

    `folder` has the tokenizer, `arguments` are those of its chat template. Raises InputError where
    it cannot be loaded, or comes to no end.
    """
    asked = json.dumps([str(folder), dict(arguments), [asdict(text) for text in texts]])
    seconds = SECONDS + len(asked) / CHARACTERS_A_SECOND
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=asked,
            capture_output=True,
            check=False,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        what = f"its tokenizer or chat template takes more than {seconds:.0f} s for the rows"
        raise InputError(what, where=str(folder), remedy="choose another base model") from None
    if child.returncode:
        last = (child.stderr.splitlines() or [""])[-1]
        what = f"its tokenizer ended the process with code {child.returncode}: {last}"
        raise InputError(what, where=str(folder), remedy="choose another base model")
    answer = parse_json(child.stdout.splitlines()[-1])
    if isinstance(answer, str):
        raise InputError(answer)
    return list(answer)


def _answer(asked: str) -> list[str] | str:
    """What is said of each text; a text, where it can be said of none."""
    from koinize.model.encoding import Encoder
    from koinize.model.loading import load_tokenizer

    folder, arguments, texts = json.loads(asked)
    try:
        encoder = Encoder(*load_tokenizer(Path(folder)), arguments)
    except KoinizeError as error:
        return str(error)
    return [_said(encoder, Text(**text)) for text in texts]


def _said(encoder: Encoder, text: Text) -> str:
    try:
        tokens = encoder.encode(**asdict(text))
    except InputError as error:
        return error.what
    return CUT if tokens.truncated else FITS


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(json.dumps(_answer(sys.stdin.read())))  # noqa: T201 - to the process that asked

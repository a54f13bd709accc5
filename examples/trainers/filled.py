"""Fill configuration files in with what koinize asks for, and run a trainer on them.

    python filled.py SETTINGS CONFIG... -- PROGRAM [ARGUMENT...]

In each CONFIG, `${out}` and `${lora.r}` stand for values of the JSON file SETTINGS, and `${folder}`
for the folder in which that lies. The filled files are written there, under their own names; an
ARGUMENT `@NAME` is the path of one of them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any


def filled(text: str, values: dict[str, Any]) -> str:
    """The text with a value for each `${name}`; a KeyError for a name that there is not."""

    def value(found: re.Match[str]) -> str:
        here: Any = values
        for part in found[1].split("."):
            here = here[part]
        return here if isinstance(here, str) else json.dumps(here)

    return re.sub(r"\$\{([\w.]+)\}", value, text)


def main(arguments: list[str]) -> None:
    """Become the program, so that its exit code is ours."""
    border = arguments.index("--")
    (file, *configurations), command = arguments[:border], arguments[border + 1 :]
    folder = Path(file).parent
    values = {**json.loads(Path(file).read_text(encoding="utf-8")), "folder": str(folder)}
    for one in map(Path, configurations):
        text = filled(one.read_text(encoding="utf-8"), values)
        (folder / one.name).write_text(text, encoding="utf-8")
    program = [str(folder / one[1:]) if one.startswith("@") else one for one in command]
    os.execvp(program[0], program)  # noqa: S606 - what the user named


if __name__ == "__main__":
    main(sys.argv[1:])

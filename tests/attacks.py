"""`make attacks`: run every attack of a folder of them against an installed koinize, a line each.

An attack is a folder with a `repro.sh`, which prints what koinize did. It went right where koinize
said what was wrong and nobody else had to: no traceback, no signal, no time limit reached. Of the
attacks that are known by name it is also told what has to be said, and what must not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 600
NEVER = {
    "a traceback": r"Traceback \(most recent call last\)",
    "an error of Python's own": r"(?m)^(?:\S+: )?[A-Z]\w*Error\b",
    "a process that aborted": r"core dumped|exit 13[4-9]|memory allocation of",
    "no end": r"exit 124\b",
}
"""What no attack may bring about, and how that shows."""

SAID = {
    "01": (["same step identity: True   same rows: True"], ["WRONG"]),
    "02": (["left in victim: [sub\nthesis.txt]", "is a link, and koinize"], []),
    "04": (["exit 3 (must be 3)", "exit 0 for an untouched merge"], ["<script>"]),
    "05": (["this says too much", "exit 2 "], []),
    "06": (["the tag '!!set' means nothing", "nested too deeply", "is no !!bool"], []),
    "07": (["holds half a character"], []),
    "09": (["its field 'events'", "its field 'price'", "another koinize works here"], []),
    "10": (["it is no regular file but a pipe or a device", "exit 2"], []),
    "11": (["a shape or offset that is no count"], []),
    "15": (["\\u001b]0;PWN"], ["^["]),
    "16": (["https://***@host/m"], ["report.html", "ledger.jsonl"]),
    "17": (["'=HYPERLINK"], [",=HYPERLINK"]),
    "18": (["each follows from the one before it", "koinize: 1"], ["<!doctype html>"]),
    "19": (["the number is too large", "names no package", "cannot be read"], []),
    "20": (["languages ('de', 'en', 'no') r 17", "expected a date such as"], ["1970", "1969"]),
    "22": (["characters; expected at most", "exit 2"], []),
    "26": (["-rw-------"], ["-rw-r--r--"]),
    "27": (["base changed"], ["5 steps done"]),
}
"""By the number of an attack: what its output has to hold, and what it must not hold."""

ALLOWED = {"20": r"koinize\.errors\.InputError"}
"""An attack that calls the library shows the error as Python does."""


def main(folder: Path, binaries: Path) -> int:
    """Run all attacks; the number of those that went wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        environment = {**os.environ, "KOINIZE_BIN": str(binaries.absolute()), "TMPDIR": work}
        for script in sorted(folder.glob("*/repro.sh")):
            name = script.parent.name
            found = judged(name, told(script, environment))
            wrong += bool(found)
            sys.stdout.write(f"{'WRONG' if found else 'right'}  {name}{found}\n")
            sys.stdout.flush()
    return wrong


def told(script: Path, environment: dict[str, str]) -> str:
    """What an attack prints."""
    command = ["bash", str(script)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "exit 124 "
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def judged(name: str, output: str) -> str:
    """What went wrong; empty if nothing did."""
    number = name.partition("-")[0]
    allowed = ALLOWED.get(number)
    said, unsaid = SAID.get(number, ([], []))
    if not (allowed and re.search(allowed, output)):
        for what, pattern in NEVER.items():
            if found := re.search(pattern, output):
                return f": {what} ({found[0].strip()})"
    for text in said:
        if text not in output:
            return f": nothing says '{text}'"
    for text in unsaid:
        if text in output:
            return f": the output holds '{text}'"
    return ""


if __name__ == "__main__":
    raise SystemExit(1 if main(Path(sys.argv[1]), Path(sys.argv[2])) else 0)

"""Runs inputs on which koinize once went wrong, one folder each, and says how each of them ends.

    python benchmarks/cases.py FOLDER BIN

FOLDER holds a folder for each case, with a `repro.py` or a `repro.sh` in it; BIN is where koinize
and python lie. One line a case: "ok" where the script ends with 0 and names nothing that failed.
Ends with 1 where a case does not end well, with 0 where FOLDER is not there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 900
# What a script prints of a fault, or of a program that broke.
FAULT = re.compile(
    r"\bWRONG\b|\bFAILED\b|^Traceback|^\w*Error\b|run: exit [1-9]|: \w+Error: ", re.MULTILINE
)


def main() -> None:
    """Run them all."""
    cases, programs = Path(sys.argv[1]), Path(sys.argv[2]).absolute()
    if not cases.is_dir():
        print(f"{cases} is not there: nothing to run")
        return
    scripts = sorted([*cases.glob("*/repro.py"), *cases.glob("*/repro.sh")])
    ended = [ends_well(script, programs) for script in scripts]
    print(f"{sum(ended)} of {len(ended)} cases end well")
    sys.exit(0 if all(ended) else 1)


def ends_well(script: Path, programs: Path) -> bool:
    """Run one script and print its line."""
    arguments = {".sh": ["sh", script, programs]}.get(
        script.suffix, [programs / "python", script, programs / "koinize"]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.monotonic()
    try:
        run = subprocess.run(
            arguments, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
        )
        said, code = run.stdout + run.stderr, run.returncode
    except subprocess.TimeoutExpired:
        said, code = f"no end after {SECONDS} s", 1
    fault = next((line for line in said.splitlines() if FAULT.search(line)), "")
    if code and not fault:
        fault = (said.strip().splitlines() or [f"exit {code}"])[-1]
    verdict = f"NOT WELL: {fault.strip()[:160]}" if fault else "ok"
    print(f"{script.parent.name:32} {time.monotonic() - began:5.0f} s  {verdict}", flush=True)
    return not fault


if __name__ == "__main__":
    main()

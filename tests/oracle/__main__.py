"""`python -m tests.oracle PROJECT`: whether a finished project's report and `ledger show` are what
its files say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.oracle.ledger import as_numbers, contradictions, shown
from tests.oracle.report import UNCHECKED, differences, disagreements, left

KOINIZE = "from koinize.cli import main; main()"


def said_by(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", KOINIZE, *arguments, "--json"]
    said: dict[str, Any] = json.loads(subprocess.check_output(command))
    return said


def check(project: Path) -> int:
    """0 if both agree, 1 with a line for each figure on which they do not."""
    home = project / ".koinize"
    try:
        said, spent = (said_by(*one, str(project)) for one in (("report",), ("ledger", "show")))
    except subprocess.CalledProcessError as ended:
        return ended.returncode
    wrong = disagreements(home, said)
    wrong += [f"ledger show: {one}" for one in differences(as_numbers(spent), shown(home))]
    wrong += contradictions(home)
    sys.stdout.writelines(f"{one}\n" for one in wrong)
    every, left_out = left(said)
    out = left_out.total()
    sys.stdout.write(f"{every - out} of {every} figures of {project}, {len(wrong)} disagree\n")
    sys.stdout.write(f"{out} not looked at:\n")
    for pattern, count in left_out.most_common():
        sys.stdout.write(f"{count:7,} {pattern}: {UNCHECKED[pattern]}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[1])))

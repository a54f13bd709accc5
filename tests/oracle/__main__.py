"""`python -m tests.oracle PROJECT`: whether a finished project's report is what its files say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.oracle.report import UNCHECKED, disagreements, left

REPORT = "from koinize.cli import main; main()"


def check(project: Path) -> int:
    """0 if both agree, 1 with a line for each figure on which they do not."""
    command = [sys.executable, "-c", REPORT, "report", "--json", str(project)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return done.returncode
    said = json.loads(done.stdout)
    wrong = disagreements(project / ".koinize", said)
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

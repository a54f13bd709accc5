"""`python -m tests.oracle PROJECT`: whether a finished project's report is what its files say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.oracle.report import disagreements, leaves, unchecked

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
    count = sum(not unchecked(place) for place, _ in leaves(said))
    sys.stdout.write(f"{count} figures of {project}, {len(wrong)} disagree\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[1])))

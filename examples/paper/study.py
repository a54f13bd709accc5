"""The studies of arXiv 2601.16127 on koinize: one command each, resumed where it was stopped.

    python examples/paper/study.py eight OUT                        # a generated base and rows
    python examples/paper/study.py eight OUT --base gemma --rows 100 --seeds 0 --tasks choice

Writes projects into OUT, runs what is missing of them, prints Markdown tables and writes them to
OUT/STUDY-BASE-ROWS.md after every seed and task that is finished. README.md says what each answers.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from projects import BASES, Bench
from studies import STUDIES

from koinize.errors import KoinizeError

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one study; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("out", type=Path, help="where the projects stand; made if missing")
    parser.add_argument("--base", choices=BASES, default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=60, help="training rows a language")
    parser.add_argument("--tasks", nargs="+", help="by default those of the study")
    parser.add_argument("--data", type=Path, default=HERE.parent / "debian" / "data")
    options = parser.parse_args(arguments)
    bench = Bench(options.out, options.base, options.rows, options.data)
    command = shlex.join(sys.argv if arguments is None else ["study.py", *arguments])
    file = options.out / f"{options.study}-{options.base}-{options.rows}.md"
    texts = [f"`{command}`\n"]
    study, tasks = STUDIES[options.study]
    try:
        for table in study(bench, options.seeds, options.tasks or tasks):
            texts.append(table.markdown())
            print(texts[-1], flush=True)
            file.write_text("\n".join(texts), encoding="utf-8")
    except KoinizeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

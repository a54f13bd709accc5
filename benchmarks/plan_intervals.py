"""How often the intervals of `koinize plan` hold, on the ledgers of real projects.

For every run of a ledger but the first, the work that it finished is predicted from the runs before
it, as a plan would have, and compared with what it took (the sum of its steps' seconds).

    python benchmarks/plan_intervals.py PROJECT/.koinize/ledger.jsonl ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from koinize.ledger import Interval, Ledger, by_run
from koinize.pipeline.estimate import Rates, together
from koinize.pipeline.experience import learn, subject
from koinize.pipeline.step import VERSIONS


def predict(past: list[Interval], done: list[Interval]) -> str:
    """One line: what these steps took, and what the past says of them."""
    rates = Rates(learn(past), done[0].device)
    known = [rates.of(one.kind, subject(one.kind, one.step)) for one in done]
    parts = [(rate, rate.seconds(one.units)) for rate, one in zip(known, done, strict=True)]
    found, took = together(parts), float(sum(one.seconds for one in done))
    verdict = "held" if found.low <= took <= found.high else "missed"
    interval = f"{found.value:.0f} s ({found.low:.0f} to {found.high:.0f})"
    return f"  {len(done):>4} steps took {took:.0f} s, expected {interval}: {verdict}"


def main() -> None:
    """Every ledger, every run."""
    for path in map(Path, sys.argv[1:]):
        print(path)
        past: list[Interval] = []
        for work in by_run(Ledger(path).intervals()).values():
            done = [one for one in work if one.status == "done" and one.kind in VERSIONS]
            if past and done:
                print(predict(past, done))
            past += work


if __name__ == "__main__":
    main()

"""What answering takes each system, from the seconds in which test was scored."""

from __future__ import annotations

from collections.abc import Iterator

from koinize.report.costs import Accounts
from koinize.report.figures import Inference
from koinize.report.input import TaskInput


def inference(task: TaskInput, accounts: Accounts) -> Iterator[Inference]:
    """One row for each system of which the ledger has every language's test."""
    work = {
        (step.system.title, step.language): one
        for step, one in accounts.of(task.name, "evaluate").items()
        if step.split == "test" and not step.role
    }
    for system in task.systems:
        rows = {
            one.language: one.rows
            for one in task.evaluations
            if (one.system, one.split) == (system.name, "test")
        }
        taken = [work[system.name, one] for one in rows if (system.name, one) in work]
        if rows and len(rows) == len(taken) == len(task.languages):
            answers = [row for some in rows.values() for row in some]
            writes = all("tokens" in row for row in answers)
            yield {
                "system": system.name,
                "rows": len(answers),
                "tokens": sum(row["tokens"] for row in answers) if writes else None,
                "seconds": float(sum(accounts.seconds(one) for one in taken)),
                "shared": any(one.is_share for one in taken),
            }

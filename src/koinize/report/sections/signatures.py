"""Under what each score was made: metric, prompt, decoding and data, as digests."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import Block, Table, pairs, plain
from koinize.report.figures import Task
from koinize.report.formats import count
from koinize.report.section import TaskSection

RULE = "Two scores compare only under the same signature; a reader can reproduce a score from it."


class Signatures(TaskSection):
    """Per task: the signatures of its metrics and of its evaluations."""

    title = "Signatures"
    order = 70
    rule = RULE

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where nothing was evaluated."""
        return [_metrics(task), _evaluations(task)] if task["signatures"] else []


def _metrics(task: Task) -> Table:
    single = [row for row in task["scores"] if row["language"] is not None]
    distinct = {(row["metric"], row["signature"]): None for row in single}
    compared = {
        (f"{row['metric']}, difference", row["signature"]): None for row in task["verdicts"]
    }
    return pairs(list(distinct | compared), "metrics", "metric", "signature")


def _evaluations(task: Task) -> Table:
    rows = tuple(
        (
            plain(row["split"]),
            plain(row["language"]),
            plain(count(len(row["systems"]), "system")),
            plain(row["signature"]),
        )
        for row in task["signatures"]
    )
    return Table(("split", "language", "scored", "signature"), rows, "evaluations")


section = Signatures()

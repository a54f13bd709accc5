"""Every answer of every system: one row for each, as CSV or as Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from koinize.errors import InputError
from koinize.metrics import MeanMetric
from koinize.pipeline import Project
from koinize.pipeline.results import Results, refuse_missing
from koinize.shown import csv_cell
from koinize.store import replaceable, write_atomically

COLUMNS = (
    *("task", "system", "chosen", "language", "split", "key", "gold", "prediction", "tokens"),
    *("option_scores", "option_tokens", "option_scores_alone"),
)
"""Of every task. After them come the metrics that score a row for itself, by name."""
OPTIONS = {
    "option_scores": "scores",
    "option_tokens": "lengths",
    "option_scores_alone": "unconditional",
}
PARQUET, MAGIC = ".parquet", "PAR1"
FREE = ("written", "answer")
"""Of a task with `free`, on test: the text, and the label that it is."""
NOTE = b"koinize"  # in the metadata of a Parquet file of ours: what it is

Row = dict[str, Any]


def write_rows(project: Project, tasks: Sequence[str], path: Path) -> int:
    """Write the answers of these tasks, whole or not at all, and return how many there are.

    The file's name decides: `.csv` or `.parquet`. Raises InputError for another name, for a file
    that koinize did not write, and while answers are missing.
    """
    writers: dict[str, Callable[[Path, list[Row], list[str]], None]] = {
        ".csv": _write_csv,
        PARQUET: _write_parquet,
    }
    if path.suffix not in writers:
        raise InputError(
            f"'{path}' is neither CSV nor Parquet", expected="a name that ends in .csv or .parquet"
        )
    found = [row for task in tasks for row in answers(Results(project, task))]
    metrics = dict.fromkeys(name for row in found for name in row if name not in COLUMNS)
    writers[path.suffix](path, found, [*COLUMNS, *metrics])
    return len(found)


def answers(results: Results) -> Iterator[Row]:
    """The answers of one task: a dict by column, without what its kind of task has not."""
    steps = results.evaluations
    refuse_missing(results.project, steps.values(), f"task '{results.task}' has no rows to export")
    chosen = results.chosen()
    scores = {name: one for name, one in results.metrics.items() if isinstance(one, MeanMetric)}
    for (system, language, split), step in steps.items():
        for row in results.rows(step):
            yield {
                "task": results.task,
                "system": system.title,
                "chosen": system == chosen,
                "language": language,
                "split": split,
                "key": row["key"],
                "gold": row[results.metric.truth],
                "prediction": row["prediction"],
                "tokens": row.get("tokens"),
                **{column: row.get(known) for column, known in OPTIONS.items()},
                **{column: row[column] for column in FREE if column in row},
                **{
                    name: 100.0 * one.row_score(row)
                    for name, one in scores.items()
                    if one.can_read(row)
                },
            }


def _write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    replaceable(path, ",".join(COLUMNS), "table of rows")
    table = StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    write_atomically(path, table.getvalue())


def _cell(value: object) -> str:
    """Lists and truth values as JSON, what is unknown empty; nothing begins a formula."""
    if value is None:
        return ""
    return csv_cell(value if isinstance(value, str) else json.dumps(value))


def _write_parquet(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    try:
        arrow, parquet = (import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise InputError(
            "writing Parquet needs pyarrow, which is not installed",
            remedy="pip install 'koinize[parquet]', or write .csv",
        ) from error
    replaceable(path, MAGIC, "table of rows")
    if path.exists():
        _refuse_foreign(path, parquet)
    schema = arrow.schema(
        [(column, _type(arrow, column)) for column in columns], metadata={NOTE: b"rows"}
    )
    lists: Mapping[str, list[Any]] = {
        column: [row.get(column) for row in rows] for column in columns
    }
    content = BytesIO()
    parquet.write_table(arrow.table(lists, schema=schema), content)
    write_atomically(path, content.getvalue())


def _type(arrow: Any, column: str) -> Any:  # noqa: ANN401 - pyarrow's
    known = {
        "chosen": arrow.bool_(),
        "tokens": arrow.int64(),
        "option_tokens": arrow.list_(arrow.int64()),
        "option_scores": arrow.list_(arrow.float64()),
        "option_scores_alone": arrow.list_(arrow.float64()),
    }
    is_text = column in (*COLUMNS, *FREE)
    return known.get(column, arrow.string() if is_text else arrow.float64())


def _refuse_foreign(path: Path, parquet: Any) -> None:  # noqa: ANN401 - pyarrow's
    """Raise InputError for a Parquet file of somebody else."""
    try:
        note = (parquet.read_schema(path).metadata or {}).get(NOTE)
    except (OSError, ValueError):
        note = None
    if note != b"rows":
        raise InputError(
            "is there already, and is no table of rows that koinize wrote",
            where=str(path),
            remedy="remove it or choose another name",
        )

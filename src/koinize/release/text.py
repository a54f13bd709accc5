"""Tables and messages about releases, as plain text for a terminal, a card or an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from koinize.release.judge import Judgement, Lost

SHOWN = 60  # characters of a text


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of columns, the first two flush left and the others flush right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(cell_len(line[n]) for line in lines) for n in range(len(head))]
    return ["  ".join(map(_padded, line, widths, range(len(widths)))).rstrip() for line in lines]


def _padded(cell: str, width: int, column: int) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if column > 1 else cell + space


def verdict_lines(judgement: Judgement) -> list[str]:
    """The table of verdicts: difference, interval and margin in points."""
    head = ["language", "metric", "difference", "interval", "margin", "rows", "verdict"]
    return aligned(
        head,
        (
            [
                one.language,
                one.metric,
                f"{one.verdict.difference:+.2f}",
                f"{one.verdict.low:+.2f} to {one.verdict.high:+.2f}",
                f"{one.verdict.margin:g}",
                str(one.verdict.n),
                one.verdict.verdict,
            ]
            for one in judgement.comparisons
        ),
    )


def refusal(task: str, channel: str, judgement: Judgement) -> str:
    """Why the gate said no: the table, what would decide, and the worst examples."""
    name = f"v{judgement.incumbent}"
    lines = [f"{task}: not shown to be as good as {name} ({channel}) in every language"]
    if judgement.comparisons:
        lines += [f"  {line}" for line in verdict_lines(judgement)]
    lines += [f"  {note}" for note in judgement.notes]
    lines += [
        f"  {language}: no test row was answered by both; missing are the answers of {name} to "
        "the rows of today, or its own rows among them"
        for language in judgement.unmatched
    ]
    if not judgement.comparisons and not judgement.unmatched:
        lines.append(f"  no language is in both the candidate and {name}")
    lines += [
        f"  {one.language} {one.metric}: about {one.verdict.rows_needed} rows would decide"
        for one in judgement.comparisons
        if one.verdict.rows_needed is not None
    ]
    lines += [f"  {_example(one, name)}" for one in judgement.lost]
    lines.append(f"{name} stays in use; improve those languages or add test rows, and run again")
    return "\n".join(lines)


def _example(one: Lost, incumbent: str) -> str:
    truth, before, now = (_brief(text) for text in (one.truth, one.incumbent, one.candidate))
    return (
        f"{one.language} {one.metric} row {one.key}: truth {truth}, {incumbent} said {before}, "
        f"the candidate says {now}; prompt {_brief_end(one.prompt)}"
    )


def _brief_end(text: str) -> str:
    """The end of a prompt: its beginning is the same in every row."""
    line = " ".join(text.split())
    return f"'...{line[3 - SHOWN :]}'" if len(line) > SHOWN else f"'{line}'"


def _brief(text: str) -> str:
    """A text in quotes on one line, cut where it is long."""
    line = " ".join(text.split())
    return f"'{line[: SHOWN - 3]}...'" if len(line) > SHOWN else f"'{line}'"

"""Tables and messages about releases, as plain text for a terminal, a card or an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from koinize.release.judge import Comparison, Judgement, Lost

SHOWN = 80  # characters of a text
LEAD = 20  # of them before the place where two answers part


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of columns, the first two flush left and the others flush right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(cell_len(line[n]) for line in lines) for n in range(len(head))]
    return ["  ".join(map(_padded, line, widths, range(len(widths)))).rstrip() for line in lines]


def _padded(cell: str, width: int, column: int) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if column > 1 else cell + space


def tables(judgement: Judgement) -> list[str]:
    """The comparison with the release in use, and with the anchor; figures in points."""
    if judgement.trial is None:
        return []
    trial, drift = judgement.trial, judgement.drift
    lines = [
        f"Compared with v{judgement.incumbent}, which is in use: test {trial.number} against it, "
        f"at a level of {percent(trial.level)}",
        *_verdict_lines([*judgement.comparisons, *judgement.means]),
    ]
    if drift:
        lines += ["", f"Drift since v{drift.anchor}, the anchor"]
        lines += _verdict_lines(drift.comparisons) or ["  no test row was answered by both"]
    return lines


def percent(share: float) -> str:
    """A level for people: `2.5 %`, `0.83 %`, `0.011 %`."""
    return f"{100 * share:.2g} %"


def _verdict_lines(comparisons: Iterable[Comparison]) -> list[str]:
    head = ["language", "metric", "difference", "interval", "margin", "rows", "p", "verdict"]
    cells = [
        [
            one.language,
            one.metric,
            f"{one.verdict.difference:+.2f}",
            f"{one.verdict.low:+.2f} to {one.verdict.high:+.2f}",
            f"{one.verdict.margin:g}",
            str(one.verdict.n),
            f"{one.verdict.p_value:.2g}",
            one.verdict.verdict if one.gated else f"({one.verdict.verdict})",
        ]
        for one in comparisons
    ]
    return [f"  {line}" for line in aligned(head, cells)] if cells else []


def refusal(task: str, channel: str, judgement: Judgement) -> str:
    """Why the gate said no: the tables, what would decide, and the worst examples."""
    name = f"v{judgement.incumbent}"
    lines = [f"{task}: not shown to be as good as {name} ({channel}) in every language"]
    if judgement.comparisons:
        lines += tables(judgement)
    lines += [f"  {note}" for note in judgement.notes]
    lines += [
        f"  {language}: no test row was answered by both; missing are the answers of {name} to "
        "the rows of today, or its own rows among them"
        for language in judgement.unmatched
    ]
    if not judgement.comparisons and not judgement.unmatched:
        lines.append(f"  no language is in both the candidate and {name}")
    lines += _drifted(judgement)
    lines += _undecided(judgement)
    lines += [line for some in _by_row(judgement.lost) for line in _example(some, name)]
    lines.append(f"{name} stays in use; improve those languages or add test rows, and run again")
    return "\n".join(lines)


def _drifted(judgement: Judgement) -> list[str]:
    if judgement.drift is None:
        return []
    return [
        f"  {language}: worse than v{judgement.drift.anchor}, the anchor, by what may be more than "
        "the margin; if that is meant, pin another one with `koinize anchor`"
        for language in judgement.drift.lost
    ]


def _undecided(judgement: Judgement) -> list[str]:
    """How many rows would decide, and what that number rests on."""
    lines = [
        f"  {one.language} {one.metric}: about {one.verdict.rows_needed:,} rows would decide"
        for one in judgement.gated
        if one.verdict.rows_needed is not None
    ]
    if not lines or judgement.trial is None:
        return []
    together = f"all {len(judgement.gated)} comparisons" if len(judgement.gated) > 1 else "it"
    level = percent(judgement.trial.next_level)
    return [
        *lines,
        f"  (in the next test, at a level of {level}: then {together} would be decided, one",
        "  way or the other, with a chance of 80 %, were the differences seen here the true ones)",
    ]


def _by_row(lost: Iterable[Lost]) -> list[list[Lost]]:
    """One example, by however many metrics it was lost."""
    rows: dict[tuple[str, str], list[Lost]] = {}
    for one in lost:
        rows.setdefault((one.language, one.key), []).append(one)
    return list(rows.values())


def _example(some: Sequence[Lost], incumbent: str) -> list[str]:
    """One row that was lost, in a line for each voice."""
    one = some[0]
    start = _difference(one.incumbent, one.candidate)
    lines = [
        ("prompt", _cut(one.prompt, len(one.prompt))),
        ("truth", _cut(one.truth, start)),
        (incumbent, _cut(one.incumbent, start)),
        ("candidate", _cut(one.candidate, start)),
    ]
    width = max(len(voice) for voice, _ in lines)
    metrics = ", ".join(one.metric for one in some)
    losses = " and ".join(dict.fromkeys(f"{one.loss:.0f}" for one in some))
    head = f"  {one.language} {metrics}: row {one.key} lost {losses} points"
    return [head, *(f"    {voice:<{width}}  {text}" for voice, text in lines)]


def _difference(one: str, other: str) -> int:
    """Where two long answers part, a little before it, so that a reader sees the place."""
    letters = zip(" ".join(one.split()), " ".join(other.split()), strict=False)
    return next((at for at, (a, b) in enumerate(letters) if a != b), 0) - LEAD


def _cut(text: str, start: int) -> str:
    """A text in quotes on one line; of a long one the part from `start` on, or as near as it has.

    The end of a prompt says more than its beginning, which is the same in every row.
    """
    line = " ".join(text.split())
    first = min(max(start, 0), max(len(line) - SHOWN, 0))
    before = "..." if first else ""
    after = "..." if first + SHOWN < len(line) else ""
    return f"'{before}{line[first : first + SHOWN]}{after}'"

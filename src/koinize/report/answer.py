"""The answer in a sentence or two, for whoever reads nothing else and knows no statistics: better
or worse than training on everything, by how much, how certain, and what the rows cannot show.
"""

from __future__ import annotations

from koinize.report.figures import FormerMargin, Margins, PooledRow, Power, Task
from koinize.report.formats import count, listing
from koinize.report.lookup import pooled, seeds_of


def the_answer(task: Task) -> str:
    """Of the chosen merge against the task's reference; empty where nothing was compared in every
    one of several languages.
    """
    metric, reference = task["metrics"][0], task["reference"]
    row = pooled(task, metric, task["chosen"], reference)
    if row is None:
        return ""
    mean = f"{task['chosen']}, in the mean of {count(len(task['languages']), 'language')},"
    since = listing(task["changed_since"])
    outdated = f" {reference} was trained before {since} changed." if since else ""
    return f"{mean} {_said(row)}{outdated}{_limits(task['power'])}"


def when_stated(task: Task) -> str:
    """Whether the margins were fixed before test was scored, and what the first ones would say."""
    stated = task["stated"]
    if stated is None:
        return "Nobody recorded the margins before test was scored."
    later = ""
    if stated["later"]:
        later = f" No margin of {listing(stated['later'])} was recorded then."
    return f"{_recorded(stated)}{later}"


def _recorded(stated: Margins) -> str:
    day = stated["utc"][:10]
    if not stated["beforehand"]:
        return f"The margins were first recorded on {day}, after test had been scored."
    if not stated["changed"]:
        return f"The margins were recorded on {day}, before test was first scored."
    changed = "; ".join(
        f"that of {one['metric']} was {one['margin']:g} points and is {one['now']:g} now: by the "
        f"first one, {_by_first(one)}"
        for one in stated["changed"]
    )
    return (
        f"The margins were recorded on {day}, before test was first scored, and changed since: "
        f"{changed}."
    )


def _by_first(one: FormerMargin) -> str:
    verdicts = [
        f"{verdict} {where}"
        for verdict, where in ((one["mean"], "in the mean"), (one["joint"], "over every language"))
        if verdict
    ]
    return " and ".join(verdicts) or "nothing was compared"


def _said(row: PooledRow) -> str:
    """The verdict in words, in points of the metric."""
    metric, rows, margin = row["metric"], count(row["n"], "row"), f"{row['margin']:g}"
    if (several := seeds_of(row)) > 1:
        rows += f" and over {several} seeds"
    who = row["reference"]
    nearer, farther = sorted((abs(row["low"]), abs(row["high"])))
    size = f"about {abs(row['difference']):.1f} points of {metric}"
    between = f"({nearer:.1f} to {farther:.1f}, on {rows})"
    span = f"{row['difference']:+.1f} points, from {row['low']:+.1f} to {row['high']:+.1f}"
    match row["verdict"]:
        case "better":
            return f"is {size} above {who} {between}: this is shown."
        case "worse":
            return f"is {size} below {who} {between}: a loss is shown."
        case "not worse":
            return (
                f"loses less than {margin} points of {metric} to {who}: this is shown (the "
                f"difference is {span}, on {rows})."
            )
    more = ""
    if row["rows_needed"] is not None:
        more = f"; about {row['rows_needed']:,} rows would decide, were this the true difference"
    return (
        f"may be better or worse than {who}: the difference in {metric} is {span}, on {rows}, and "
        f"a loss of {margin} points is neither shown nor excluded{more}."
    )


def _limits(power: Power | None) -> str:
    """Which languages have too few rows to show the margin even if all answers were equal."""
    if power is None:
        return ""
    few = [one for one in power["languages"] if one["smallest_margin"] > power["margin"]]
    if not few:
        return ""
    where = listing([one["language"] for one in few])
    fewest = min(one["n"] for one in few)
    return (
        f" In {where} alone, {fewest} rows would not show a loss below {power['margin']:g} points "
        f"even if all answers were equal; {power['fewest_rows']} rows would."
    )

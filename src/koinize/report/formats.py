"""Numbers as people read them. What is missing is a dash, never a zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

DASH = "–"
MINUS = "−"


def points(value: float | None) -> str:
    """A score of 0 to 100 with one decimal."""
    return DASH if value is None else f"{value:.1f}"


def difference(value: float | None) -> str:
    """A difference of scores with its sign."""
    return DASH if value is None else f"{value:+.1f}".replace("-", MINUS)


def interval(low: float, high: float, *, signed: bool = False) -> str:
    """The two ends of a 95 % interval."""
    number = difference if signed else points
    return f"[{number(low)}, {number(high)}]"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that leaves about three digits."""
    if seconds is None:
        return DASH
    if seconds == 0:
        return "0 s"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def signed(value: float | None, form: Callable[[float], str]) -> str:
    """A figure that may be below zero, in a form that is for amounts."""
    if value is None:
        return DASH
    return f"{MINUS}{form(-value)}" if value < 0 else form(value)


def money(amount: float | None, currency: str | None) -> str:
    """An amount in its currency: cents where there are some, three digits where there are none."""
    if amount is None or not currency:
        return DASH
    number = f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:#.3g}"
    if 0 < amount < 0.0001:
        number = "under 0.0001"
    return f"{currency} {number}"


def saving(percent: float | None) -> str:
    """A saving in percent, in words: nobody has to remember what a sign means."""
    if percent is None:
        return DASH
    if abs(percent) < 0.05:
        return "no difference"
    return f"{abs(percent):.1f} % {'less' if percent > 0 else 'more'}"


def saving_between(percent: float | None, ends: Sequence[float] | None) -> str:
    """The same with its interval, `62.0 % less (55 to 68)`, where there is one."""
    if percent is None or ends is None:
        return saving(percent)
    low, high = sorted(map(abs, ends)) if ends[0] * ends[1] > 0 else (0.0, 0.0)
    if high:
        return f"{saving(percent)} ({low:.0f} to {high:.0f})"
    return f"{saving(percent)} ({abs(ends[0]):.0f} % more to {abs(ends[1]):.0f} % less)"


def listing(words: Sequence[str]) -> str:
    """`de, fr and zh`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def count(number: int, noun: str) -> str:
    """`1 merge`, `6 merges`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def share(value: float | None) -> str:
    """A share of 0 to 1 as a percentage with two digits that count."""
    if value is None:
        return DASH
    return "0 %" if value == 0 else f"{100 * value:.2g} %"

"""Numbers and durations as people read them: on a terminal, in a log, in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["aligned", "counted", "duration", "format_duration", "number", "plain"]


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number in so many digits, a dash for none.

    Example:
        >>> number(0.553124), number(183880.0), number(None)
        ('0.5531', '183,880', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.{digits}g}"


def counted(n: int, what: str) -> str:
    """Returns how many of a thing there are.

    Example:
        >>> counted(1, "evaluation"), counted(2_500, "evaluation")
        ('1 evaluation', '2,500 evaluations')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Returns a duration as a person says it.

    Example:
        >>> format_duration(93)
        '1 min 33 s'
        >>> format_duration(400_000)
        '4 d 15 h'
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def duration(seconds: float) -> str:
    """Returns the same of a time that was measured, a short one with its decimals.

    Example:
        >>> duration(0.04917), duration(93)
        ('0.0492 s', '1 min 33 s')
        >>> duration(2e-5)
        'under 1 ms'
    """
    if 0.0 < seconds < 0.001:
        return "under 1 ms"
    return f"{seconds:.3g} s" if seconds < 59.95 else format_duration(seconds)


def aligned(values: Sequence[float | None]) -> list[str]:
    """Returns the numbers of a column, all with as many decimals as the longest needs.

    Example:
        >>> aligned([0.553, 0.56025, None])
        ['0.5530', '0.5603', '-']
        >>> aligned([21_780.0, 5_371.0])
        ['21,780', '5,371']
    """
    texts = [number(value) for value in values]
    if any("e" in text for text in texts):
        return texts
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return ["-" if value is None else f"{value:,.{decimals}f}" for value in values]


def plain(value: Any) -> Any:
    """Returns a value as strict JSON: NaN and the infinities, which are not, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value

"""Checks of arguments that several rooms take."""

from __future__ import annotations

from typing import Any

__all__ = ["check_int"]


def check_int(name: str, value: Any, *, minimum: int) -> None:
    """Refuses what is no int of at least `minimum`.

    Raises:
        TypeError: It is no int.
        ValueError: It is less.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")

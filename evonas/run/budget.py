"""When a search stops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Stop conditions; the first that is met ends the search. All may change between starts.

    Attributes:
        generations: Logbook rows (generation 0 included).
        max_evaluations: Trials, over all starts; reused duplicates and invalid points are free.
        max_seconds: Wall-clock seconds, over all starts; what is running then still finishes.
        patience: Logbook rows in a row without a better best.
        target_fitness: Stop as soon as the first objective is at least as good.

    Example:
        >>> Budget(generations=0)
        Traceback (most recent call last):
        ...
        ValueError: generations must be at least 1, got 0
    """

    generations: int | None = None
    max_evaluations: int | None = None
    max_seconds: float | None = None
    patience: int | None = None
    target_fitness: float | None = None

    def __post_init__(self) -> None:
        for name in ("generations", "max_evaluations", "patience"):
            _check(name, getattr(self, name), int, "an int", minimum=1)
        _check("max_seconds", self.max_seconds, (int, float), "a number", minimum=0)
        _check("target_fitness", self.target_fitness, (int, float), "a number", minimum=-math.inf)

    @property
    def is_bounded(self) -> bool:
        """Whether something is sure to end the search (a target may never be met)."""
        return any(
            limit is not None
            for limit in (self.generations, self.max_evaluations, self.max_seconds, self.patience)
        )


def _check(name: str, value: Any, kind: Any, expected: str, *, minimum: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {value!r} ({type(value).__name__})")
    if math.isnan(value) or value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")

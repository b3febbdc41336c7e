"""How the best of a run grew: by evaluations, and by seconds of searching."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evonas.objectives import Objective
from evonas.records import Evaluation, Status
from evonas.run.result import Result

__all__ = ["Trajectory", "round_numbers", "trajectory"]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The best of a run so far, by its first objective.

    Attributes:
        by_count: Entry i is the best after i + 1 evaluations, in ask order; None before the first
            fitness. Invalid points are not counted: they cost nothing.
        times: Seconds of searching (over all starts) after which an evaluation ended, ascending.
        by_time: The best at each of them.
        seconds: Seconds of searching in all.
        n_copied: Evaluations of earlier runs with which it began: the best includes them.
    """

    by_count: tuple[float | None, ...]
    times: tuple[float, ...]
    by_time: tuple[float | None, ...]
    seconds: float
    n_copied: int

    def after(self, n: int) -> float | None:
        """Returns the best after `n` evaluations, or None where it has not got so far."""
        return self.by_count[n - 1] if 0 < n <= len(self.by_count) else None

    def at(self, seconds: float) -> float | None:
        """Returns the best after so many seconds, or None where there is none (yet)."""
        if seconds > self.seconds:
            return None
        place = bisect_right(self.times, seconds)
        return self.by_time[place - 1] if place else None


def trajectory(result: Result) -> Trajectory:
    """Returns the course of a run."""
    n_copied = result.record.n_copied
    objective = result.objectives[0]
    copies = [entry for entry in result.evaluations if entry.number < n_copied]
    own = [
        entry
        for entry in result.evaluations
        if entry.number >= n_copied and entry.status is not Status.INVALID
    ]
    start = next(iter([*_best_so_far(copies, objective, None)][-1:]), None)
    clock = _Clock(result.sessions)
    ended = sorted(own, key=lambda entry: (clock.seconds(entry), entry.number))
    return Trajectory(
        by_count=tuple(_best_so_far(own, objective, start)),
        times=tuple(clock.seconds(entry) for entry in ended),
        by_time=tuple(_best_so_far(ended, objective, start)),
        seconds=result.seconds,
        n_copied=n_copied,
    )


def round_numbers(most: int) -> list[int]:
    """Returns 10, 20, 50, 100, 200, 500, … up to `most`, and `most` itself.

    Example:
        >>> round_numbers(130)
        [10, 20, 50, 100, 130]
    """
    numbers, power = [], 10
    while power < most:
        numbers += [digit * power for digit in (1, 2, 5) if digit * power < most]
        power *= 10
    return [*numbers, most] if most else []


def _best_so_far(
    entries: Sequence[Evaluation], objective: Objective, best: float | None
) -> Iterator[float | None]:
    for entry in entries:
        if entry.status is Status.OK:
            value = entry.values[0]
            best = value if best is None or objective.better(value, best) else best
        yield best


class _Clock:
    """Turns the time of day of an evaluation's end into seconds of searching."""

    def __init__(self, sessions: Sequence[dict[str, Any]]) -> None:
        self._starts: list[float] = [session["started_at"] for session in sessions]
        self._lengths: list[float] = [session["seconds"] for session in sessions]
        self._before: list[float] = [sum(self._lengths[:place]) for place in range(len(sessions))]

    def seconds(self, entry: Evaluation) -> float:
        end = entry.started_at + entry.seconds
        place = max(0, bisect_right(self._starts, end) - 1)
        if not self._starts:
            return entry.seconds
        # A start that was killed noted its length up to a second before its end.
        within = min(max(0.0, end - self._starts[place]), self._lengths[place])
        return self._before[place] + within

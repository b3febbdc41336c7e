"""How the best of a run grew: by evaluations, and by seconds of searching."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evonas.objectives import Objective
from evonas.records import Evaluation, Status
from evonas.run.result import Result
from evonas.strategies.hypervolume import hypervolume

__all__ = ["Box", "Trajectory", "box_of", "round_numbers", "trajectory"]


@dataclass(frozen=True, slots=True)
class Box:
    """The worst and the best values of several objectives, over all runs that are compared.

    Attributes:
        weights: 1 of an objective that is maximised, else -1.
        low: The worst of each, times its weight.
        high: The best of each, times its weight.
    """

    weights: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def share(self, front: Sequence[tuple[float, ...]]) -> float:
        """Returns which share of the box is no better than a point of the front."""
        return hypervolume(front, [0.0] * len(self.low))

    def scaled(self, values: Sequence[float]) -> tuple[float, ...]:
        """Returns a point in the box: 0 is the worst value, 1 the best, or the only one."""
        rows = zip(values, self.weights, self.low, self.high, strict=True)
        return tuple(
            (w * v - low) / (high - low) if high > low else 1.0 for v, w, low, high in rows
        )


def box_of(results: Sequence[Result]) -> Box | None:
    """Returns the box of runs with several objectives; None: they have one, or no fitness."""
    weights = tuple(objective.weight for objective in results[0].objectives)
    found = [
        tuple(w * v for w, v in zip(weights, entry.values, strict=True))
        for result in results
        for entry in result.evaluations
        if entry.status is Status.OK
    ]
    if len(weights) < 2 or not found:
        return None
    columns = list(zip(*found, strict=True))
    return Box(weights, tuple(map(min, columns)), tuple(map(max, columns)))


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The best of a run so far within its limits, by its first objective, or its front in a `Box`.

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


def trajectory(result: Result, box: Box | None = None) -> Trajectory:
    """Returns the course of a run.

    Args:
        result: Of the run.
        box: Makes it the share of the box that its front dominates. None: its first objective.
    """
    n_copied = result.record.n_copied
    limits, objectives = result.record.limits, result.objectives
    copies = [entry for entry in result.evaluations if entry.number < n_copied]
    own = [
        entry
        for entry in result.evaluations
        if entry.number >= n_copied and entry.status is not Status.INVALID
    ]

    def course(entries: Sequence[Evaluation]) -> tuple[float | None, ...]:
        """Returns the best after each entry, those that were copied in before them included."""
        both = [(entry, limits.allow(entry, objectives)) for entry in (*copies, *entries)]
        values = _best_so_far(both, objectives[0]) if box is None else _shares(both, box)
        return tuple(values)[len(copies) :]

    clock = _Clock(result.sessions)
    ended = sorted(own, key=lambda entry: (clock.seconds(entry), entry.number))
    return Trajectory(
        by_count=course(own),
        times=tuple(clock.seconds(entry) for entry in ended),
        by_time=course(ended),
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
    entries: Sequence[tuple[Evaluation, bool]], objective: Objective
) -> Iterator[float | None]:
    best = None
    for entry, is_allowed in entries:
        if is_allowed:
            value = entry.values[0]
            best = value if best is None or objective.better(value, best) else best
        yield best


def _shares(entries: Sequence[tuple[Evaluation, bool]], box: Box) -> Iterator[float | None]:
    front = np.empty((0, len(box.low)))
    share = None
    for entry, is_allowed in entries:
        if is_allowed:
            point = box.scaled(entry.values)
            if not (front >= point).all(axis=1).any():  # of equals the first is enough
                front = np.vstack((front[~(front <= point).all(axis=1)], point))
                share = box.share(list(map(tuple, front)))
        yield share


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

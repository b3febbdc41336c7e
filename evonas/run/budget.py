"""When a search stops: the budget, and how much of it is spent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evonas.arguments import check_int, check_number
from evonas.objectives import Limits, Objective
from evonas.records import Evaluation
from evonas.report.formats import counted

__all__ = ["Budget", "Spent", "bounded"]

_DEFAULT_GENERATIONS = 25
_MAX_REUSED_IN_A_ROW = 2_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Stop conditions; the first that is met ends the search. All may change between starts.

    Attributes:
        generations: Logbook rows (generation 0 included).
        max_evaluations: Trials, over all starts; reused duplicates and invalid points are free.
        max_seconds: Wall-clock seconds, over all starts; what is running then still finishes.
        patience: Logbook rows in a row without a better best.
        target_fitness: Stop as soon as the first objective is at least as good, within the limits.
        max_consecutive_failures: Failures in a row that stop the search.
        is_default: Whether the user gave none of them, and `bounded` had to.

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
    max_consecutive_failures: int = 10
    is_default: bool = False

    def __post_init__(self) -> None:
        check_int("max_consecutive_failures", self.max_consecutive_failures, minimum=1)
        for name in ("generations", "max_evaluations", "patience"):
            if (value := getattr(self, name)) is not None:
                check_int(name, value, minimum=1)
        if self.max_seconds is not None:
            check_number("max_seconds", self.max_seconds, minimum=0)
        if self.target_fitness is not None:
            check_number("target_fitness", self.target_fitness)

    @property
    def is_bounded(self) -> bool:
        """Whether something is sure to end the search (a target may never be met)."""
        return any(
            limit is not None
            for limit in (self.generations, self.max_evaluations, self.max_seconds, self.patience)
        )


def bounded(budget: Budget) -> Budget:
    """Returns a budget that is sure to end: 25 generations where the user gave none."""
    if budget.is_bounded:
        return budget
    return replace(budget, generations=_DEFAULT_GENERATIONS, is_default=True)


class Spent:
    """How much of the budget a start has used; begins to count time when it is made.

    Args:
        budget: Of this start.
        objectives: The first is what `target_fitness` is about.
        limits: What an evaluation that reaches it must keep to.
        cardinality: Points of the space.
        seconds_before: Of earlier starts.
        reused_in_a_row: Latest proposals in a row that were on record already.

    Attributes:
        target_met: Whether an evaluation has reached `target_fitness`.
        reused_in_a_row: Counted by the driver.
    """

    def __init__(
        self,
        budget: Budget,
        objectives: Sequence[Objective],
        limits: Limits,
        cardinality: float,
        *,
        seconds_before: float = 0.0,
        reused_in_a_row: int = 0,
    ) -> None:
        self._budget = budget
        self._objectives, self._limits = objectives, limits
        self._cardinality = cardinality
        self._seconds_before = seconds_before
        self._began = time.monotonic()
        self.target_met = False
        self.reused_in_a_row = reused_in_a_row

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this start."""
        return time.monotonic() - self._began

    def judge(self, evaluation: Evaluation | None) -> None:
        """Looks whether an evaluation reaches the target."""
        target = self._budget.target_fitness
        if target is None or evaluation is None:
            return
        if self._limits.allow(evaluation, self._objectives):
            reached = not self._objectives[0].better(target, evaluation.values[0])
            self.target_met = self.target_met or reached

    def stop_reason(
        self, logbook: Sequence[Mapping[str, Any]], n_known: int, n_begun: int
    ) -> str | None:
        """Returns why nothing more may be asked between two generations.

        Args:
            logbook: Rows so far.
            n_known: Points on record.
            n_begun: Trials that have begun, over all starts.
        """
        budget = self._budget
        if budget.generations is not None and len(logbook) >= budget.generations:
            are = "is" if budget.generations == 1 else "are"
            return f"{counted(budget.generations, 'generation')} {are} done"
        if budget.patience is not None and _rows_without_progress(logbook) >= budget.patience:
            return f"{budget.patience} generations without a better best"
        if n_known >= self._cardinality:
            return "every point of the space has been evaluated"
        if self.reused_in_a_row >= _MAX_REUSED_IN_A_ROW:
            return f"the last {_MAX_REUSED_IN_A_ROW} proposals were all evaluated before"
        return self.exhausted(n_begun)

    def exhausted(self, n_begun: int) -> str | None:
        """Returns why no further trial may begin, even within a generation."""
        budget = self._budget
        if budget.max_evaluations is not None and n_begun >= budget.max_evaluations:
            return f"max_evaluations {budget.max_evaluations} is used up"
        seconds = self._seconds_before + self.seconds
        if budget.max_seconds is not None and seconds >= budget.max_seconds:
            return f"max_seconds {budget.max_seconds} are used up"
        return None


def _rows_without_progress(logbook: Sequence[Mapping[str, Any]]) -> int:
    best = [row["best"] for row in logbook]
    return len(best) - 1 - best.index(best[-1]) if best and best[-1] is not None else 0

"""The best evaluation of a running search, and the files that follow it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evonas.objectives import Limits, Objective
from evonas.records import Evaluation, Status
from evonas.run.artifacts import Artifacts

__all__ = ["Champion"]


class Champion:
    """Keeps the best evaluation, and takes back what `confirm` chose when new results come.

    Args:
        best: The best evaluation on record.
        confirmed: The champion that `confirm` chose, if it did and no result has come since.
        objectives: What is optimised.
        limits: What the champion must keep to; if nothing qualifies, the smallest violation.
        artifacts: Files of the run, which follow the champion.
    """

    def __init__(
        self,
        best: Evaluation | None,
        confirmed: Evaluation | None,
        objectives: Sequence[Objective],
        limits: Limits,
        artifacts: Artifacts,
    ) -> None:
        self.best = best
        self.confirmed = confirmed
        self._objectives = objectives
        self._limits = limits
        self._artifacts = artifacts

    def restore_files(self, evaluations: Sequence[Evaluation]) -> None:
        """Writes the files that a crash left missing, and removes those of no record."""
        self._artifacts.restore(evaluations, self.best, confirmed_champion=self.confirmed)

    def observe(self, evaluation: Evaluation) -> None:
        """Takes a committed evaluation: writes its files, and makes it the best if it is."""
        if self.confirmed is not None:
            self._artifacts.clear_confirmed_champion(self.best)
            self.confirmed = None
        best = self.best
        # Of equals the one asked for first, so that the champion does not depend on who was faster.
        if evaluation.status is Status.OK and (
            best is None or self._rank(evaluation) < self._rank(best)
        ):
            self.best = evaluation
        self._artifacts.add(evaluation, is_best=self.best is evaluation)

    @property
    def unmet(self) -> str:
        """The sentence that no evaluation is within the limits; empty where one is."""
        return self._limits.unmet(self.best, self._objectives)

    def to_beat(self) -> float | None:
        """Returns the value that a trial must exceed to be the best, None: any may."""
        if self.best is None or self.unmet:
            return None
        value = self.best.values[0]
        if len(self._objectives) == 1 and self._limits.tie_breaker is None:
            return value
        # One that equals it may be better in the next objective, or break the tie.
        return math.nextafter(value, -self._objectives[0].weight * math.inf)

    def _rank(self, evaluation: Evaluation) -> tuple[float, ...]:
        return self._limits.rank(evaluation, self._objectives)

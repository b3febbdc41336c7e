"""Random search without replacement: the baseline, and the strategy that never waits."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from evonas.records import Evaluation
from evonas.strategies.base import Proposal
from evonas.strategies.steady import Point, SteadyState

__all__ = ["RandomSearch"]


class RandomSearch(SteadyState):
    """Random points, none of them twice, until the budget or the space is used up.

    Asynchronous: a point is proposed whenever a slot is free. Which points are proposed, and in
    which order, depends on the seed alone; with more than one worker they end in another order,
    and so rows of the logbook may hold other points than with one.

    Serves several objectives too; the logbook and the hall of fame then follow the first.

    Args:
        row_every: Evaluations to a row of the logbook ("generation").
        hall_of_fame: How many of the best to keep.

    Source:
        Bergstra and Bengio (2012), "Random search for hyper-parameter optimization", JMLR 13, with
        replacement; ours without.

    Example:
        >>> RandomSearch(row_every=20).most_evaluations(generations=5)
        100
    """

    def __init__(self, *, row_every: int = 50, hall_of_fame: int = 10) -> None:
        super().__init__(row_every=row_every, hall_of_fame=hall_of_fame)

    def _choose(self, rng: random.Random) -> Point | None:
        return self._random_point(rng)

    def _observe(self, proposal: Proposal, evaluation: Evaluation) -> None:
        """Learns nothing."""

    def _own_state(self) -> dict[str, Any]:
        return {}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        """There is none."""

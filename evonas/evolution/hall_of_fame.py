"""DEAP's hall of fame with an order among equals that does not depend on how it came about."""

from __future__ import annotations

from bisect import bisect_left
from copy import deepcopy
from typing import Any

from deap import tools

__all__ = ["StableHallOfFame", "same_key"]


def same_key(first: Any, second: Any) -> bool:
    """Returns whether two individuals are the same point."""
    return bool(first.key == second.key)


class StableHallOfFame(tools.HallOfFame):  # type: ignore[misc]
    """`tools.HallOfFame`, in which the first of equals comes first and is the last to leave.

    DEAP puts the later one first and drops the earlier one first, so that its order among equals
    depends on all that ever passed through, and reverses when the hall is filled again from its own
    items. Here it is a stable sort: the same as `Result.hall_of_fame`, and as after a resume.

    Example:
        >>> from evonas.evolution.individual import Fitness, Individual
        >>> hall = StableHallOfFame(2)
        >>> for number, value in enumerate((5, 5, 5, 6)):
        ...     hall.update([Individual([number], Fitness((1.0,), (value,)))])
        >>> list(hall)
        [[3], [0]]
    """

    def insert(self, item: Any) -> None:
        """Inserts a copy behind those that are as good."""
        item = deepcopy(item)
        place = bisect_left(self.keys, item.fitness)
        self.items.insert(len(self) - place, item)
        self.keys.insert(place, item.fitness)

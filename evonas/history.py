"""What a search knows about points: which were evaluated, which build nothing."""

from __future__ import annotations

from evonas.problem import Problem
from evonas.records import Genes, Status
from evonas.storage import KnownPoint

__all__ = ["History"]


class History:
    """Answers a strategy's questions about points (see `strategies.History`).

    Attributes:
        known: Key to the evaluation on record.
        found_invalid: Points found to build nothing since the last checkpoint, by key.
    """

    def __init__(self, problem: Problem, known: dict[str, KnownPoint]) -> None:
        self._problem = problem
        self.known = known
        self.found_invalid: dict[str, tuple[Genes, str]] = {}
        self.key = problem.key

    def seen(self, key: str) -> bool:
        """Whether the record has an evaluation of this key."""
        return key in self.known

    def is_invalid(self, key: str, genes: Genes) -> bool:
        """Whether the genes build nothing; a new finding goes on record at the next checkpoint."""
        if key in self.found_invalid:
            return True
        point = self.known.get(key)
        if point is not None:
            return point.status is Status.INVALID
        reason = self._problem.invalid_reason(genes)
        if reason is None:
            return False
        self.found_invalid[key] = (genes, reason)
        return True

"""Limits on objectives and recorded metrics, which come before all objectives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evonas.exceptions import FitnessError
from evonas.objectives import Objective
from evonas.records import Evaluation

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What evaluations must keep to, as a strategy was told and its run's settings keep it.

    Args:
        at_most: Name of an objective or recorded metric to its largest allowed value.
        at_least: The same for smallest allowed values.

    Example:
        >>> from evonas.records import Status
        >>> small = Evaluation(0, "", {}, Status.OK, (0.8,), {"params": 900})
        >>> large = Evaluation(1, "", {}, Status.OK, (0.9,), {"params": 1500})
        >>> limits = Limits(at_most={"params": 1000})
        >>> [limits.excess(entry, [Objective("accuracy")]) for entry in (small, large)]
        [0.0, 0.5]
    """

    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Limits:
        """Returns the limits in the settings of a strategy; most have none."""
        return cls(settings.get("at_most") or {}, settings.get("at_least") or {})

    def __bool__(self) -> bool:
        return bool(self.at_most or self.at_least)

    def excess(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> float:
        """Returns how far an `ok` evaluation is out: the sum of relative excesses; 0.0: it is not.

        Infinite where what is limited is not on record.
        """
        if not self:  # as in most runs, for each of their evaluations
            return 0.0
        known = _known(evaluation, objectives)
        total = 0.0
        for limits, sign in ((self.at_most, 1.0), (self.at_least, -1.0)):
            for name, limit in limits.items():
                value = known.get(name, math.nan)
                if not _is_number(value):
                    return math.inf
                total += max(0.0, sign * (value - limit)) / (abs(limit) or 1.0)
        return total

    def check(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> None:
        """Refuses limits on what is not on record.

        Raises:
            FitnessError: A limit names neither an objective nor a number on record.
        """
        known = _known(evaluation, objectives)
        for name in (*self.at_most, *self.at_least):
            if not _is_number(known.get(name)):
                raise FitnessError(
                    f"the limit on {name!r} names no number that the fitness function returns "
                    f"or records; it has: {', '.join(known)}"
                )

    def ranked(
        self, evaluations: Iterable[Evaluation], objectives: Sequence[Objective]
    ) -> list[Evaluation]:
        """Returns those within the limits, best first.

        The first objective counts, the next one among equals; then the earliest. Where none is
        within the limits: all, the least far out first.
        """
        ranked = sorted(evaluations, key=lambda entry: self.rank(entry, objectives))
        if ranked and self.excess(ranked[0], objectives) == 0.0:
            return [entry for entry in ranked if self.excess(entry, objectives) == 0.0]
        return ranked

    def rank(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Returns what is smaller for the better one of two `ok` evaluations, never equal."""
        values = zip(objectives, evaluation.values, strict=True)
        costs = (-objective.weight * value for objective, value in values)
        return (self.excess(evaluation, objectives), *costs, evaluation.number)

    def nearest(
        self, evaluations: Iterable[Evaluation], objectives: Sequence[Objective]
    ) -> list[Evaluation]:
        """Returns those within the limits; where none is, those that are least far out."""
        entries = [(self.excess(entry, objectives), entry) for entry in evaluations]
        least = min((excess for excess, _ in entries), default=0.0)
        return [entry for excess, entry in entries if excess == least]


def _known(evaluation: Evaluation, objectives: Sequence[Objective]) -> dict[str, Any]:
    names = (objective.name for objective in objectives)
    return {**evaluation.metrics, **dict(zip(names, evaluation.values, strict=True))}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)

"""What a search has heard so far, in an order that does not depend on how it was heard."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.objectives import Objective
from evonas.records import Evaluation, Status
from evonas.space import SearchSpace

__all__ = ["Observation", "Observations", "scalarised"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation:
    """One evaluation.

    Attributes:
        number: The evaluation's.
        values: One per gene (see `SearchSpace.values`).
        fitness: One per objective, the larger the better; empty where there is none.
    """

    number: int
    values: list[Any]
    fitness: tuple[float, ...]


class Observations:
    """The evaluations that a model learns from, by number, each point once.

    Args:
        space: What they are points of.
        objectives: What their values are.
    """

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective]) -> None:
        self._space = space
        self._weights = tuple(objective.weight for objective in objectives)
        self._by_key: dict[str, Observation] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, evaluation: Evaluation) -> None:
        """Takes an evaluation, unless it is `invalid`; of `ok` ones the values count."""
        if evaluation.status is Status.INVALID:
            return
        fitness: tuple[float, ...] = ()
        if evaluation.status is Status.OK:
            pairs = zip(self._weights, evaluation.values, strict=True)
            fitness = tuple(weight * value for weight, value in pairs)
        values = self._space.values(evaluation.genes, random.Random(evaluation.number))
        self._by_key[evaluation.key] = Observation(evaluation.number, values, fitness)

    def recall(self, evaluations: Iterable[Evaluation], besides: Collection[str]) -> None:
        """Forgets all, and takes the evaluations on record, those of some keys left out."""
        self._by_key.clear()
        for evaluation in evaluations:
            if evaluation.key not in besides:
                self.add(evaluation)

    def in_order(self) -> tuple[list[Observation], list[Observation]]:
        """Returns those with a fitness and those without, each by number.

        With several workers results come in another order each time, and a sum of floats depends
        on its order: a model must not.
        """
        ordered = sorted(self._by_key.values(), key=_number)
        return [each for each in ordered if each.fitness], [e for e in ordered if not e.fitness]


def scalarised(fitness: Floats, rng: random.Random) -> Floats:
    """Returns one value for several, (n,): a random direction towards the Pareto front.

    Args:
        fitness: (n, n_objectives), the larger the better.
        rng: Draws the weights; not used with one objective.

    Source:
        The augmented Chebyshev function of ParEGO (Knowles 2006), section III, without its fixed
        set of weights.
    """
    if fitness.shape[1] == 1:
        return fitness[:, 0]
    weights = np.array([rng.expovariate(1.0) for _ in range(fitness.shape[1])])
    weights /= weights.sum()
    low, high = fitness.min(axis=0), fitness.max(axis=0)
    lack = weights * (high - fitness) / np.where(high > low, high - low, 1.0)
    return np.asarray(-lack.max(axis=1) - 0.05 * lack.sum(axis=1))


def _number(observation: Observation) -> int:
    return observation.number

"""Local search: from neighbour to better neighbour, again and again from a random point."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from evonas.arguments import check_int
from evonas.evolution.individual import Individual, individual_from_json, individual_to_json
from evonas.evolution.random_state import derive_seed
from evonas.records import Evaluation, Genes, Status
from evonas.strategies.base import Proposal, SearchContext
from evonas.strategies.single import require_one_objective
from evonas.strategies.steady import (
    Point,
    SteadyState,
)

__all__ = ["LocalSearch"]


class LocalSearch(SteadyState):
    """Climbs by first improvement in the one-gene neighbourhood, and starts again at random.

    From the best of `n_starts` random points it tries the neighbours in random order
    (`SearchSpace.neighbours`: every other choice, a step up and down of a number) and moves to the
    first that is better. Where none is, it starts again from a random point. Nothing is evaluated
    twice: neighbours known from an earlier climb are passed over.

    Args:
        n_starts: Random points (with those of `initial`) of which the best is climbed from.
        row_every: Evaluations to a row of the logbook ("generation").
        hall_of_fame: How many of the best to keep.

    Source:
        White, Nolen and Savani (2021), "Exploring the loss landscape in neural architecture
        search", UAI; theirs evaluates the whole neighbourhood before it moves.

    Example:
        >>> LocalSearch().settings()["n_starts"]
        10
    """

    def __init__(self, n_starts: int = 10, *, row_every: int = 50, hall_of_fame: int = 10) -> None:
        check_int("n_starts", n_starts, minimum=1)
        super().__init__(row_every=row_every, hall_of_fame=hall_of_fame)
        self._n_starts = n_starts
        self._n_heard = 0  # of the present climb's starts
        self._here: Individual | None = None
        self._neighbours: Iterator[Genes] | None = None  # of `here`, not yet tried

    def _own_settings(self) -> dict[str, Any]:
        return {"n_starts": self._n_starts}

    @property
    def initial_size(self) -> int:
        """The random points that it begins with."""
        return self._n_starts

    def bind(self, context: SearchContext) -> None:
        """Takes the space; see `Strategy.bind`."""
        require_one_objective(self, context)
        super().bind(context)

    def _choose(self, rng: random.Random) -> Point | None:
        if self._here is None or self._n_heard < self._n_starts:
            return self._random_point(rng)
        parents = () if self._here.number is None else (self._here.number,)
        if self._neighbours is None:
            self._neighbours = self._shuffled_neighbours(self._here)
        for genes in self._neighbours:
            point = self._new_point(genes, parents)
            if point is not None:
                return point
        if not self._open:
            self._here, self._n_heard = None, self._n_starts - 1
        # With a neighbour still out this is no new start yet, but better than an idle slot.
        return self._random_point(rng)

    def _shuffled_neighbours(self, here: Individual) -> Iterator[Genes]:
        # The order follows from the point: a later start passes over what this one takes.
        rng = random.Random(derive_seed(self._context.seed, "neighbours", here.key or ""))
        points = list(self._space.neighbours(self._space.genes(here), rng))
        rng.shuffle(points)
        return iter(points)

    def _observe(self, proposal: Proposal, evaluation: Evaluation) -> None:
        self._n_heard += 1
        if evaluation.status is not Status.OK:
            return
        individual = self._individual(proposal, evaluation)
        if self._here is None or individual.fitness > self._here.fitness:
            self._here, self._neighbours = individual, None

    def _own_state(self) -> dict[str, Any]:
        here = None if self._here is None else individual_to_json(self._here)
        return {"here": here, "n_heard": self._n_heard}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self._n_heard, self._here, self._neighbours = state["n_heard"], None, None
        if state["here"] is not None:
            self._here = individual_from_json(state["here"], (self._objective.weight,))

"""Aging (regularized) evolution: the oldest dies, not the worst."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import compress
from typing import Any

from evonas.arguments import check_int
from evonas.evolution.individual import Individual, individual_from_json, individual_to_json
from evonas.records import Evaluation, Status
from evonas.strategies.base import Proposal, SearchContext
from evonas.strategies.single import require_one_objective
from evonas.strategies.steady import (
    Point,
    SteadyState,
)

__all__ = ["AgingEvolution"]


class AgingEvolution(SteadyState):
    """Mutates the best of a random sample of the population, whose oldest member then dies.

    The population is filled with `initial` and random points. Then each proposal is a child: of
    `sample` members drawn with replacement the best takes another value in one of its active genes.
    A child seen before is drawn again up to `novelty_tries` times, and has one gene more mutated
    each quarter of them; then a random new point takes its place. Nothing is evaluated twice. Only
    members with a fitness count: a failed or pruned point never enters the population, and nobody
    dies for it.

    Args:
        population: Members alive at a time.
        sample: Members drawn for each child.
        novelty_tries: How often a child seen before is drawn again.
        row_every: Evaluations to a row of the logbook. None: as many as the population.
        hall_of_fame: How many of the best to keep.

    Source:
        Real, Aggarwal, Huang and Le (2019), "Regularized evolution for image classifier
        architecture search", algorithm 1. Ours differs in that duplicates are drawn again.

    Example:
        >>> AgingEvolution(population=10, sample=5).settings()["sample"]
        5
    """

    def __init__(
        self,
        population: int = 20,
        sample: int = 10,
        *,
        novelty_tries: int = 40,
        row_every: int | None = None,
        hall_of_fame: int = 10,
    ) -> None:
        check_int("population", population, minimum=1)
        check_int("sample", sample, minimum=1)
        check_int("novelty_tries", novelty_tries, minimum=0)
        super().__init__(
            row_every=population if row_every is None else row_every, hall_of_fame=hall_of_fame
        )
        self.population_size = population
        self.sample_size = sample
        self._novelty_tries = novelty_tries
        self.population: list[Individual] = []  # the oldest first

    def _own_settings(self) -> dict[str, Any]:
        return {
            "population": self.population_size,
            "sample": self.sample_size,
            "novelty_tries": self._novelty_tries,
        }

    @property
    def initial_size(self) -> int:
        """The population."""
        return self.population_size

    def bind(self, context: SearchContext) -> None:
        """Takes the space; see `Strategy.bind`."""
        require_one_objective(self, context)
        super().bind(context)

    def _choose(self, rng: random.Random) -> Point | None:
        n_expected = len(self.population) + len(self._open)
        if not self.population or n_expected < self.population_size:
            return self._random_point(rng)
        for n_tried in range(self._novelty_tries + 1):
            drawn = [self._draw(rng) for _ in range(self.sample_size)]
            parent = max(drawn, key=_fitness)
            child = self._mutated(parent, 1 + 4 * n_tried // (self._novelty_tries + 1), rng)
            if child is not None:
                return child
        return self._random_point(rng)

    def _draw(self, rng: random.Random) -> Individual:
        return self.population[int(rng.random() * len(self.population))]

    def _mutated(self, parent: Individual, n_genes: int, rng: random.Random) -> Point | None:
        """Returns a child with so many active genes changed, if it is new and allowed."""
        space, values = self._space, list(parent)
        for _ in range(n_genes):
            active = list(compress(range(len(values)), space.active(values)))
            index = active[int(rng.random() * len(active))]
            values[index] = space.gene_types[index].mutate(values[index], rng)
        genes = space.genes(values)
        if space.violated(genes):
            return None
        parents = () if parent.number is None else (parent.number,)
        return self._new_point(genes, parents)

    def _observe(self, proposal: Proposal, evaluation: Evaluation) -> None:
        if evaluation.status is Status.OK:
            self.population.append(self._individual(proposal, evaluation))
            del self.population[: -self.population_size]

    def _own_state(self) -> dict[str, Any]:
        return {"population": [individual_to_json(member) for member in self.population]}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        weight = self._objective.weight
        self.population = [individual_from_json(entry, (weight,)) for entry in state["population"]]


def _fitness(individual: Individual) -> Any:
    return individual.fitness

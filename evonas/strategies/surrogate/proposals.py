"""Offspring in numbers: neighbours, mutants and crossings of the best, and random points."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import compress
from typing import Any

from evonas.space import SearchSpace

__all__ = ["Breeder"]

Values = list[Any]

_N_MUTANTS, _N_CROSSINGS, _N_STRANGERS = 200, 200, 100
_SIGMAS = (0.03, 0.1, 0.3)  # of a number's mutations: fine, usual and coarse steps
_N_WOKEN = 4  # draws of the genes that a change makes active


class Breeder:
    """Makes lists of values that satisfy the constraints.

    Args:
        space: What they are points of.
        rng: Source of all randomness.
    """

    def __init__(self, space: SearchSpace, rng: random.Random) -> None:
        self._space = space
        self._genes = space.gene_types
        self._rng = rng
        self._conditional = bool(space.conditions)

    def offspring(self, parents: Sequence[Values]) -> list[Values]:
        """Returns neighbours, mutants and crossings of the parents, and random points."""
        found = [near for parent in parents for near in self.neighbours(parent)]
        mutants = [
            self._changed(list(self._pick(parents)), 2 + (self._rng.random() < 0.3))
            for _ in range(_N_MUTANTS)
        ]
        found += self._allowed(mutants + self._crossings(parents))
        return found + [self._space.sample_values(self._rng) for _ in range(_N_STRANGERS)]

    def neighbours(self, parent: Values) -> list[Values]:
        """Returns the points that differ in one active gene.

        Every other choice; for a number a step up and down, and a few mutations of it. Where that
        makes genes active, they come as they were and in a few random draws.
        """
        found = []
        before = self._space.active(parent)
        for index in compress(range(len(parent)), before):
            gene, here = self._genes[index], parent[index]
            near = list(gene.neighbours(here))
            if len(near) < gene.cardinality - 1:
                near += [gene.mutate(here, self._rng, sigma) for sigma in _SIGMAS]
            found += [[*parent[:index], value, *parent[index + 1 :]] for value in near]
        if self._conditional:
            found += [woken for values in found for woken in self._woken(values, before)]
        return self._allowed(found)

    def _woken(self, values: Values, before: Sequence[bool]) -> list[Values]:
        """Returns copies with new draws of the active genes that were not active before."""
        woken = [
            index
            for index, active in enumerate(self._space.active(values))
            if active and not before[index]
        ]
        if not woken:
            return []
        found = []
        for _ in range(_N_WOKEN):
            copy = list(values)
            for index in woken:
                copy[index] = self._genes[index].sample(self._rng)
            found.append(copy)
        return found

    def _crossings(self, parents: Sequence[Values]) -> list[Values]:
        """Returns points with each gene from one of two parents, half of them mutated once."""
        found = []
        for number in range(_N_CROSSINGS):
            pairs = zip(self._pick(parents), self._pick(parents), strict=True)
            child = [a if self._rng.random() < 0.5 else b for a, b in pairs]
            found.append(self._changed(child, number % 2))
        return found

    def _changed(self, values: Values, n_genes: int) -> Values:
        """Mutates so many active genes in place."""
        for _ in range(n_genes):
            active = list(compress(range(len(values)), self._space.active(values)))
            index = active[int(self._rng.random() * len(active))]
            values[index] = self._genes[index].mutate(values[index], self._rng)
        return values

    def _allowed(self, points: list[Values]) -> list[Values]:
        if not self._space.constraints:
            return points
        return [values for values in points if self._space.satisfied(values)]

    def _pick(self, parents: Sequence[Values]) -> Values:
        return parents[int(self._rng.random() * len(parents))]

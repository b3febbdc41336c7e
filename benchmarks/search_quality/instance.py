"""What a search is judged on: a space, a value that it sees, and the truth behind it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import evonas as en

__all__ = ["Genes", "Instance", "renumbered"]

Genes = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """One search problem of one seed; everything is maximised.

    Attributes:
        space: The search space, its choices in a random order.
        value: What the search sees of a point, the same at every call.
        scores: Name to the score that regret is measured on.
        optimum: Name to the best score there is.
        tolerance: Regret up to which the optimum counts as found.
    """

    space: en.SearchSpace
    value: Callable[[Genes], float]
    scores: Mapping[str, Callable[[Genes], float]]
    optimum: Mapping[str, float]
    tolerance: float = 1e-9


def renumbered(space: en.SearchSpace, rng: random.Random) -> en.SearchSpace:
    """Returns the space with the choices of its categorical genes in a random order.

    The order of choices leaks: in many tables the last one is the largest. A peer that codes them
    as integers and begins in the middle would profit from it.
    """
    genes: dict[str, Any] = {}
    for name, gene in space.items():
        if isinstance(gene, en.Categorical):
            choices = list(gene.choices)
            rng.shuffle(choices)
            gene = en.Categorical(choices)
        genes[name] = gene
    return en.SearchSpace(genes, conditions=space.conditions, constraints=space.constraints)

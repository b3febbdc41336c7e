"""Crossover, mutation and selection on typed genes, in DEAP's calling convention.

Crossover and mutation work in place: `mate_*` return both individuals, `mutate_typed` a tuple of
one. Their fitness stays as it is (DEAP's algorithms delete it, and so must you).

`rng=None` means the global `random`, as in DEAP.

Constraints: with a `space` that has some, an operator whose result violates one starts again from
the parents with other random draws, up to 50 times, and then leaves the parents unchanged.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from deap import tools

from evonas.evolution.random_state import borrowed_global_rng
from evonas.space import SearchSpace

__all__ = [
    "mate_blend",
    "mate_one_point",
    "mate_two_point",
    "mate_uniform",
    "mutate_typed",
    "select_best",
    "select_roulette",
    "select_tournament",
]

VARIATION_TRIES = 50
"""How many draws an operator tries before it leaves the parents unchanged."""

Rng = random.Random


def mate_one_point(
    first: Any, second: Any, *, space: SearchSpace | None = None, rng: Rng | None = None
) -> tuple[Any, Any]:
    """Swaps all genes from a random point on; a single gene is swapped with probability 0.5.

    Args:
        first: An individual, changed in place.
        second: Another of the same length, changed in place.
        space: Its constraints are respected. None: there are none.
        rng: Source of randomness.

    Source:
        As DEAP's `cxOnePoint`, without its failure on a single gene.
    """
    return _mated(_one_point, first, second, space, rng)


def mate_two_point(
    first: Any, second: Any, *, space: SearchSpace | None = None, rng: Rng | None = None
) -> tuple[Any, Any]:
    """Swaps the genes between two random points; a single gene with probability 0.5.

    Args: See `mate_one_point`.

    Source:
        As DEAP's `cxTwoPoint` (the first gene stays), without its failure on a single gene.
    """
    return _mated(_two_point, first, second, space, rng)


def mate_uniform(
    first: Any,
    second: Any,
    *,
    indpb: float = 0.5,
    space: SearchSpace | None = None,
    rng: Rng | None = None,
) -> tuple[Any, Any]:
    """Swaps each gene with probability `indpb`.

    Args: See `mate_one_point`.
    """

    def swap(a: Any, b: Any, source: Any) -> None:
        for index in range(len(a)):
            if source.random() < indpb:
                a[index], b[index] = b[index], a[index]

    return _mated(swap, first, second, space, rng)


def mate_blend(
    first: Any, second: Any, space: SearchSpace, *, alpha: float = 0.5, rng: Rng | None = None
) -> tuple[Any, Any]:
    """Blends each number around the parents' and swaps each other gene with probability 0.5.

    Args:
        first: An individual, changed in place.
        second: Another of the same length, changed in place.
        space: Knows the types of the genes; its constraints are respected.
        alpha: How far beyond the parents' interval a child may lie, as a fraction of it; the
            result is clipped into the bounds.
        rng: Source of randomness.

    Source:
        BLX-alpha: Eshelman and Schaffer (1993); see `Gene.blend`.
    """

    def blend(a: Any, b: Any, source: Any) -> None:
        for index, gene in enumerate(space.gene_types):
            a[index], b[index] = gene.blend(a[index], b[index], source, alpha)

    return _mated(blend, first, second, space, rng)


def mutate_typed(
    individual: Any,
    space: SearchSpace,
    indpb: float = 0.15,
    *,
    sigma: float = 0.1,
    rng: Rng | None = None,
) -> tuple[Any]:
    """Mutates each gene to another value with probability `indpb`.

    Args:
        individual: Changed in place.
        space: Knows the types of the genes; its constraints are respected.
        indpb: Probability for each gene, active or not.
        sigma: Standard deviation of a number's step, as a fraction of its (log) range.
        rng: Source of randomness.
    """
    source: Any = random if rng is None else rng
    draw = source.random
    before = individual[:] if space.constraints else None
    for _ in range(VARIATION_TRIES):
        for index, gene in enumerate(space.gene_types):
            if draw() < indpb:
                individual[index] = gene.mutate(individual[index], source, sigma)
        if before is None or space.satisfied(individual):
            return (individual,)
        individual[:] = before
    return (individual,)


def select_tournament(
    individuals: Sequence[Any], k: int, tournsize: int = 3, *, rng: Rng | None = None
) -> list[Any]:
    """Returns the winners of k tournaments among `tournsize` random individuals each.

    Individuals without a fitness lose against all that have one.

    Source:
        DEAP's `selTournament`.
    """
    return _selected(tools.selTournament, individuals, k, rng, tournsize=tournsize)


def select_roulette(individuals: Sequence[Any], k: int, *, rng: Rng | None = None) -> list[Any]:
    """Returns k individuals, each drawn in proportion to its first fitness value.

    Where every value is 0, all are equally likely.

    Raises:
        ValueError: The first objective is minimised, or a fitness is missing, negative or not
            finite: proportions need maximised values from 0 on.

    Source:
        DEAP's `selRoulette`.
    """
    values = [_roulette_value(individual) for individual in individuals]
    total = sum(values)
    if math.isinf(total):
        raise ValueError(f"select_roulette: the sum of the fitness values overflows ({total})")
    if total == 0.0:
        return _selected(tools.selRandom, individuals, k, rng)
    chosen: list[Any] = []
    while len(chosen) < k:  # rounding can make DEAP return a few less
        chosen += _selected(tools.selRoulette, individuals, k - len(chosen), rng)
    return chosen


def select_best(individuals: Sequence[Any], k: int, *, rng: Rng | None = None) -> list[Any]:
    """Returns the k best individuals, the best first; `rng` is not used.

    Source:
        DEAP's `selBest`.
    """
    return _selected(tools.selBest, individuals, k, None)


def _mated(
    mate: Callable[[Any, Any, Any], None],
    first: Any,
    second: Any,
    space: SearchSpace | None,
    rng: Rng | None,
) -> tuple[Any, Any]:
    source: Any = random if rng is None else rng
    if space is None or not space.constraints:
        mate(first, second, source)
        return first, second
    before = first[:], second[:]
    for _ in range(VARIATION_TRIES):
        mate(first, second, source)
        if space.satisfied(first) and space.satisfied(second):
            break
        first[:], second[:] = before
    return first, second


def _one_point(first: Any, second: Any, rng: Any) -> None:
    size = min(len(first), len(second))
    if size < 2:
        _swap_single(first, second, rng)
        return
    # Not DEAP's cxOnePoint: its randint takes longer than all else here.
    point = 1 + int(rng.random() * (size - 1))
    first[point:], second[point:] = second[point:], first[point:]


def _two_point(first: Any, second: Any, rng: Any) -> None:
    size = min(len(first), len(second))
    if size < 2:
        _swap_single(first, second, rng)
        return
    start = 1 + int(rng.random() * size)
    end = 1 + int(rng.random() * (size - 1))
    if end >= start:
        end += 1
    else:
        start, end = end, start
    first[start:end], second[start:end] = second[start:end], first[start:end]


def _swap_single(first: Any, second: Any, rng: Any) -> None:
    if rng.random() < 0.5:
        first[:], second[:] = second[:], first[:]


def _selected(
    select: Callable[..., list[Any]],
    individuals: Sequence[Any],
    k: int,
    rng: Rng | None,
    **settings: Any,
) -> list[Any]:
    if not individuals:
        raise ValueError("selection needs at least one individual, got none")
    source: Any = random if rng is None else rng
    if source is random:
        return select(individuals, k, **settings)
    with borrowed_global_rng(source):
        return select(individuals, k, **settings)


def _roulette_value(individual: Any) -> float:
    fitness = individual.fitness
    if fitness.weights[0] < 0:
        raise ValueError(
            "select_roulette needs a maximised objective (selection='tournament' minimises too):"
            f" got the weight {fitness.weights[0]}"
        )
    if not fitness.valid:
        raise ValueError(f"select_roulette: {individual!r} has no fitness; evaluate it first")
    value = float(fitness.values[0])
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(
            f"select_roulette needs finite fitness values from 0 on, got {value!r}"
            " (selection='tournament' takes any)"
        )
    return value

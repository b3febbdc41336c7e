"""A DEAP toolbox for a search space: everything registered, everything replaceable."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from deap.base import Toolbox

from evonas.arguments import check_callable, check_choice, check_int, check_number
from evonas.evolution.individual import Fitness, Individual, clone
from evonas.evolution.operators import (
    mate_blend,
    mate_one_point,
    mate_two_point,
    mate_uniform,
    mutate_typed,
    select_best,
    select_roulette,
    select_tournament,
)
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import FitnessError
from evonas.execution.trial import Trial, TrialSettings
from evonas.objectives import Objective, as_objectives, fitness_values
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Gene

__all__ = ["Crossover", "Selection", "make_toolbox"]

Crossover = Literal["one_point", "two_point", "uniform", "blend"]
Selection = Literal["tournament", "roulette", "best"]

_CROSSOVERS: dict[str, Callable[..., Any]] = {
    "one_point": mate_one_point,
    "two_point": mate_two_point,
    "uniform": mate_uniform,
    "blend": mate_blend,
}
_SELECTIONS: dict[str, Callable[..., Any]] = {
    "tournament": select_tournament,
    "roulette": select_roulette,
    "best": select_best,
}


def make_toolbox(
    space: SearchSpace,
    *,
    fitness: Callable[[Genes, Trial], Any] | None = None,
    objectives: Objective | Sequence[Objective] | None = None,
    individual_class: Callable[[list[Any]], Any] | None = None,
    crossover: Crossover = "one_point",
    gene_mutation_prob: float = 0.15,
    mutation_sigma: float = 0.1,
    selection: Selection = "tournament",
    tournament_size: int = 3,
    rng: random.Random | None = None,
    seed: int = 0,
) -> Toolbox:
    """Returns a DEAP toolbox that DEAP's own algorithms run unchanged.

    Registered: `attr_<gene>()` for each gene, `individual()`, `population(n)`, `mate`, `mutate`,
    `select`, `clone`, `map`, and with `fitness` also `evaluate(individual)`. Register any of them
    anew to replace it: `individual` calls the `attr_*` that are registered when it is called, and
    `population` the `individual`. What replaced `attr_*` return is checked.

    Constraints: individuals satisfy them (see `SearchSpace.sample_values`), and so do children of
    the registered `mate` and `mutate` (see `evonas.evolution.operators`).

    Pickling: everything registered pickles as long as space and fitness do; `evaluate` carries
    neither the toolbox nor the constraints, so it can go through a process pool's `map`.

    Args:
        space: What individuals are points of.
        fitness: Called as `fitness(genes, trial)`; see `evonas.objectives.fitness_values` for what
            it may return.
        objectives: What `fitness` returns. None: as the weights of `individual_class`, or one
            called `fitness`, maximised.
        individual_class: Called with a list of values; what it returns must be a list with a
            DEAP fitness as `.fitness` (a class made by `deap.creator`, say). None: `Individual`.
        crossover: Which of the `mate_*` operators.
        gene_mutation_prob: Probability for each gene to be mutated to another value.
        mutation_sigma: Standard deviation of a number's step, as a fraction of its (log) range.
        selection: Which of the `select_*` operators.
        tournament_size: Individuals per tournament.
        rng: Source of randomness. None: the global `random`, as in DEAP.
        seed: What the seeds of trials are derived from, with the key of the point.

    Raises:
        ValueError: An unknown crossover or selection, a probability outside [0, 1], a negative
            sigma, a tournament of none, or weights that do not fit the objectives.
        TypeError: `space` is not a `SearchSpace`, or `fitness` is not callable.

    Example:
        >>> import random
        >>> from deap import algorithms
        >>> space = SearchSpace({"x": [1, 2, 3, 4], "y": [1, 2, 3, 4]})
        >>> toolbox = make_toolbox(space, fitness=lambda genes, trial: genes["x"] * genes["y"])
        >>> random.seed(1)
        >>> population, logbook = algorithms.eaSimple(
        ...     toolbox.population(n=20), toolbox, cxpb=0.7, mutpb=0.5, ngen=5, verbose=False
        ... )
        >>> max(individual.fitness.values[0] for individual in population)
        16.0
    """
    if not isinstance(space, SearchSpace):
        raise TypeError(f"space must be a SearchSpace, got {space!r} ({type(space).__name__})")
    _check_settings(crossover, selection, gene_mutation_prob, mutation_sigma, tournament_size)
    check_int("seed", seed, minimum=0, maximum=None)
    if rng is not None:
        for name in ("random", "gauss"):
            check_callable(f"rng.{name}", getattr(rng, name, None))
    if individual_class is not None:
        check_callable("individual_class", individual_class)
    found = _objectives(space, objectives, individual_class)
    weights = tuple(objective.weight for objective in found)
    toolbox = Toolbox()
    for name, gene in space.items():
        toolbox.register(f"attr_{name}", _create_value, gene, rng)
    originals = {name: getattr(toolbox, f"attr_{name}") for name in space}
    create = partial(_create, weights) if individual_class is None else individual_class
    toolbox.register("individual", _create_individual, toolbox, space, create, originals, rng)
    toolbox.register("population", _create_population, toolbox)
    toolbox.register("mate", _CROSSOVERS[crossover], space=space, rng=rng)
    toolbox.register(
        "mutate", mutate_typed, space=space, indpb=gene_mutation_prob, sigma=mutation_sigma, rng=rng
    )
    sizes = {"tournsize": tournament_size} if selection == "tournament" else {}
    toolbox.register("select", _SELECTIONS[selection], rng=rng, **sizes)
    toolbox.register("clone", clone)
    toolbox.register("map", map)
    if fitness is not None:
        if not callable(fitness):
            raise TypeError(
                f"fitness must be callable as fitness(genes, trial), got {type(fitness).__name__}"
            )
        toolbox.register("evaluate", _evaluate, space.unconstrained(), fitness, found, seed)
    return toolbox


def _create_value(gene: Gene, rng: random.Random | None) -> Any:
    source: Any = random if rng is None else rng
    return gene.sample(source)


def _create(weights: tuple[float, ...], values: list[Any]) -> Individual:
    return Individual(values, Fitness(weights))


def _create_individual(
    toolbox: Toolbox,
    space: SearchSpace,
    create: Callable[[list[Any]], Any],
    originals: Mapping[str, Any],
    rng: random.Random | None,
) -> Any:
    creators = {name: getattr(toolbox, f"attr_{name}") for name in space}
    if all(creators[name] is originals[name] for name in creators):
        return create(space.sample_values(rng))

    def draw() -> list[Any]:
        return space.validate_values([creator() for creator in creators.values()])

    # No enumeration here: it would find points that the user's creators never return.
    return create(space.resample(draw))


def _create_population(toolbox: Toolbox, n: int) -> list[Any]:
    return [toolbox.individual() for _ in range(n)]


def _evaluate(
    space: SearchSpace,
    fitness: Callable[[Genes, Trial], Any],
    objectives: tuple[Objective, ...],
    seed: int,
    individual: Any,
) -> tuple[float, ...]:
    genes = space.genes(individual)
    key = space.key(genes)
    trial = Trial(TrialSettings(key=key, seed=derive_seed(seed, "trial", key)))
    values, _ = fitness_values(fitness(genes, trial), objectives)
    if any(math.isnan(value) for value in values):
        # DEAP has no status beside the fitness, and NaN would break its comparisons unseen.
        raise FitnessError(
            f"the fitness function returned NaN for {genes!r}: expected numbers; evonas.evolve"
            " puts such points on record as diverged and goes on"
        )
    return values


def _objectives(
    space: SearchSpace,
    objectives: Objective | Sequence[Objective] | None,
    individual_class: Callable[[list[Any]], Any] | None,
) -> tuple[Objective, ...]:
    """Returns the objectives, checked against (or read from) the weights of the user's class."""
    if individual_class is None:
        return as_objectives(objectives)
    example = individual_class([gene.first for gene in space.gene_types])
    if not isinstance(example, list):
        raise TypeError(
            "individual_class must make lists (creator.create('Mine', list, fitness=...)), got"
            f" {type(example).__name__}"
        )
    weights = getattr(getattr(example, "fitness", None), "weights", None)
    if not weights:
        raise ValueError(
            "individual_class must make individuals with a DEAP fitness, whose weights it knows, as"
            f" .fitness; {type(example).__name__} has none"
        )
    directions = ["max" if weight > 0 else "min" for weight in weights]
    if objectives is None:
        names = ["fitness"] if len(weights) == 1 else [f"fitness{i}" for i in range(len(weights))]
        return tuple(
            Objective(name, "max" if weight > 0 else "min")
            for name, weight in zip(names, weights, strict=True)
        )
    found = as_objectives(objectives)
    if [objective.direction for objective in found] != directions:
        raise ValueError(
            f"individual_class has the fitness weights {tuple(weights)}, which do not fit the"
            f" objectives: expected {tuple(objective.weight for objective in found)}"
        )
    return found


def _check_settings(
    crossover: str, selection: str, probability: Any, sigma: Any, tournament_size: Any
) -> None:
    check_choice("crossover", crossover, tuple(_CROSSOVERS))
    check_choice("selection", selection, tuple(_SELECTIONS))
    check_number("gene_mutation_prob", probability, minimum=0, maximum=1)
    check_number("mutation_sigma", sigma, minimum=0)
    check_int("tournament_size", tournament_size, minimum=1)

"""The searches that are compared: ours, and those of other libraries where they are installed."""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from deap import algorithms

import evonas as en
from benchmarks.search_quality.instance import Genes
from benchmarks.search_quality.recorder import Recorder
from benchmarks.search_quality.smac_peer import smac_forest
from evonas.strategies import (
    AgingEvolution,
    LocalSearch,
    Proposal,
    RandomSearch,
    SearchContext,
    Strategy,
    SurrogateEvolution,
)

__all__ = ["OURS", "OUTSIDE", "Known", "Peer", "installed", "strategy_peer"]

Peer = Callable[[Recorder, int], None]
"""Takes the fitness function and a seed; returns when it is done or lets `Spent` through."""


class Known:
    """What a strategy may ask about points, without storage."""

    def __init__(self, space: en.SearchSpace) -> None:
        self.key = space.key
        self.known: dict[str, en.Evaluation] = {}

    def add(self, genes: Genes, value: float) -> en.Evaluation:
        """Puts an evaluation on record, or returns the one that is."""
        key = self.key(genes)
        if key not in self.known:
            number = len(self.known)
            self.known[key] = en.Evaluation(number, key, genes, en.Status.OK, (value,))
        return self.known[key]

    def seen(self, key: str) -> bool:
        """Whether it is on record."""
        return key in self.known

    def is_invalid(self, key: str, genes: Genes) -> bool:
        """Never: the benchmark's points all build something."""
        return False

    def evaluations(self) -> list[en.Evaluation]:
        """Returns what is on record."""
        return list(self.known.values())


def strategy_peer(make: Callable[[], Strategy], n_in_flight: int = 1) -> Peer:
    """Returns a strategy of ours as a peer, with so many evaluations under way at a time."""

    def search(fitness: Recorder, seed: int) -> None:
        space = fitness.instance.space
        history, strategy = Known(space), make()
        strategy.bind(SearchContext(space, (en.Objective("value"),), seed, history))
        in_flight: deque[Proposal] = deque()
        while True:
            while len(in_flight) < n_in_flight and (asked := strategy.ask(1)):
                in_flight.extend(asked)
            if not in_flight:
                return
            proposal = in_flight.popleft()
            reused = proposal.key in history.known
            evaluation = history.add(proposal.genes, fitness(proposal.genes))
            strategy.tell(proposal, evaluation, reused=reused)

    return search


def ea_simple(fitness: Recorder, seed: int) -> None:
    """DEAP's eaSimple: population 50, one-point crossover 0.7, mutation 0.5 of 0.15 per gene."""
    space = fitness.instance.space
    toolbox = en.make_toolbox(space, rng=random.Random(seed))
    toolbox.register("evaluate", lambda individual: (fitness(space.genes(individual)),))
    random.seed(seed)  # eaSimple draws from the global generator
    population = toolbox.population(n=50)
    algorithms.eaSimple(population, toolbox, 0.7, 0.5, ngen=10_000, verbose=False)


def optuna_tpe(fitness: Recorder, seed: int) -> None:
    """Optuna's TPE with its defaults."""
    import optuna

    _optuna(fitness, optuna.samplers.TPESampler(seed=seed))


def optuna_gp(fitness: Recorder, seed: int) -> None:
    """Optuna's GPSampler with its defaults."""
    import optuna

    _optuna(fitness, optuna.samplers.GPSampler(seed=seed))


def optuna_cma(fitness: Recorder, seed: int) -> None:
    """Optuna's CMA-ES with its defaults; it takes choices from a random search."""
    import optuna

    _optuna(fitness, optuna.samplers.CmaEsSampler(seed=seed))


def optuna_nsga2(fitness: Recorder, seed: int) -> None:
    """Optuna's NSGA-II with its defaults (population 50)."""
    import optuna

    _optuna(fitness, optuna.samplers.NSGAIISampler(seed=seed))


def _optuna(fitness: Recorder, sampler: Any) -> None:
    import optuna

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # it logs `Spent` with its traceback
    space = fitness.instance.space
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: fitness(suggested(space, trial)), n_trials=100_000)


def suggested(space: en.SearchSpace, trial: Any) -> Genes:
    """Returns the genes that a trial of Optuna suggests, only those that are active."""
    conditions = space.conditions
    genes: Genes = {}
    for name, gene in space.items():
        parents = conditions.get(name, {})
        if not all(genes.get(parent) in allowed for parent, allowed in parents.items()):
            continue
        if isinstance(gene, en.Float):
            genes[name] = trial.suggest_float(name, gene.low, gene.high, log=gene.log)
        elif isinstance(gene, en.Integer) and not gene.log:
            genes[name] = trial.suggest_int(name, gene.low, gene.high, step=gene.step)
        elif isinstance(gene, en.Integer):  # Optuna has no steps on a log scale
            place = trial.suggest_float(name, 0.0, 1.0)
            genes[name] = gene.decode([place])
        else:
            genes[name] = trial.suggest_categorical(name, list(gene.all_values()))
    return genes


def pymoo_ga(fitness: Recorder, seed: int) -> None:
    """Pymoo's GA for mixed variables (population 50, duplicates eliminated)."""
    from pymoo.core.mixed import MixedVariableGA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.core.variable import Choice, Integer, Real
    from pymoo.optimize import minimize

    space = fitness.instance.space

    class Task(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            variables: dict[str, Any] = {}
            for name, gene in space.items():
                if isinstance(gene, en.Float):
                    variables[name] = Real(bounds=(0.0, 1.0))
                elif isinstance(gene, en.Integer):
                    variables[name] = Integer(bounds=(0, int(gene.cardinality) - 1))
                else:
                    variables[name] = Choice(options=list(range(int(gene.cardinality))))
            super().__init__(vars=variables, n_obj=1)

        def _evaluate(self, x: Mapping[str, Any], out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = -fitness(_from_places(space, x))

    minimize(Task(), MixedVariableGA(pop_size=50), ("n_gen", 10_000), seed=seed, verbose=False)


def pygad_ga(fitness: Recorder, seed: int) -> None:
    """PyGAD with 50 solutions, 20 parents, elitism of 1 and a mutation of 15 % of the genes."""
    import logging

    import pygad

    quiet = logging.getLogger("pygad of the benchmark")  # it logs `Spent` with its traceback
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    space = fitness.instance.space
    names = list(space)
    gene_space: list[Any] = [
        {"low": 0.0, "high": 1.0}
        if isinstance(gene, en.Float)
        else list(range(int(gene.cardinality)))
        for gene in space.gene_types
    ]

    def value(ga: Any, solution: Any, index: int) -> float:
        return fitness(_from_places(space, dict(zip(names, solution, strict=True))))

    pygad.GA(
        num_generations=10_000,
        num_parents_mating=20,
        fitness_func=value,
        sol_per_pop=50,
        num_genes=len(names),
        gene_space=gene_space,
        mutation_percent_genes=15,
        random_seed=seed,
        suppress_warnings=True,
        logger=quiet,
    ).run()


def _from_places(space: en.SearchSpace, places: Mapping[str, Any]) -> Genes:
    """Returns the active genes of numbers: the place of a choice, [0, 1] for a Float."""
    values = []
    for name, gene in space.items():
        if isinstance(gene, en.Float):
            values.append(gene.decode([float(places[name])]))
        elif isinstance(gene, en.Integer):
            values.append(gene.low + gene.step * int(places[name]))
        else:
            values.append(list(gene.all_values())[int(places[name])])
    return space.genes(values)


def published_ga() -> Strategy:
    """The GA of `examples/cifar10_alexnet.py`: 50 individuals, one-point crossover."""
    return en.Generational(50, elite=5, crossover="one_point", tournament_size=3)


OURS: dict[str, Callable[[], Strategy]] = {
    "random, no repeats": RandomSearch,
    "LocalSearch": LocalSearch,
    "Generational": en.Generational,
    "Generational, as published": published_ga,
    "AgingEvolution": AgingEvolution,
    "AgingEvolution 10/10": lambda: AgingEvolution(10, 10),
    "AgingEvolution 50/25": lambda: AgingEvolution(50, 25),
    "SurrogateEvolution": SurrogateEvolution,
}

OUTSIDE: dict[str, tuple[str, Peer]] = {
    "DEAP eaSimple": ("deap", ea_simple),
    "Optuna TPE": ("optuna", optuna_tpe),
    "Optuna GP": ("optuna", optuna_gp),
    "Optuna CMA-ES": ("cmaes", optuna_cma),
    "Optuna NSGA-II": ("optuna", optuna_nsga2),
    "pymoo GA": ("pymoo", pymoo_ga),
    "PyGAD": ("pygad", pygad_ga),
    "SMAC": ("smac", smac_forest),
}
# HEBO is none of them: 0.3.6 needs numpy < 1.25, evonas numpy >= 2; 0.3.2, which pip takes beside
# it, imports `pymoo.factory`, which pymoo lost with 0.6.


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None

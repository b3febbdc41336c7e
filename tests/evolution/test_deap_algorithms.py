"""DEAP's own algorithms, run unchanged on our toolbox."""

from __future__ import annotations

import copy
import math
import os
import pickle
import random
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from deap import algorithms, base, tools

from evonas.evolution.individual import Fitness
from evonas.evolution.toolbox import make_toolbox
from evonas.exceptions import InvalidPoint
from evonas.execution.trial import Trial
from evonas.objectives import Objective
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Float, Integer

CROSSOVERS = ("one_point", "two_point", "uniform", "blend")


def narrows(genes: dict[str, Any]) -> bool:
    return bool(genes["width1"] >= genes.get("width2", 0))


def network(*, constrained: bool = True) -> SearchSpace:
    return SearchSpace(
        {
            "depth": Integer(1, 2),
            "width1": [16, 32, 64],
            "width2": [16, 32, 64],
            "lr": Float(1e-4, 1e-1, log=True),
            "norm": Boolean(),
        },
        conditions={"width2": {"depth": [2]}},
        constraints={"narrows": narrows} if constrained else None,
    )


def score(genes: dict[str, Any], trial: Trial) -> float:
    """Best (128) at two layers of width 64; checks that it is asked for allowed points only."""
    if not narrows(genes) or ("width2" in genes) != (genes["depth"] == 2):
        raise InvalidPoint(str(genes))
    return float(genes["width1"] + genes.get("width2", 0) - abs(math.log10(genes["lr"]) + 2.0))


def evaluated(toolbox: base.Toolbox, n: int) -> list[Any]:
    population = toolbox.population(n=n)
    for individual in population:
        individual.fitness.values = toolbox.evaluate(individual)
    return population


def run(algorithm: str, toolbox: base.Toolbox, n_generations: int = 8) -> tuple[Any, Any, Any]:
    hall = tools.HallOfFame(3)
    statistics = tools.Statistics(lambda one: one.fitness.values)
    statistics.register("max", np.max)
    statistics.register("mean", np.mean)
    settings: dict[str, Any] = {"stats": statistics, "halloffame": hall, "verbose": False}
    population = toolbox.population(n=20)
    if algorithm == "eaSimple":
        population, logbook = algorithms.eaSimple(
            population, toolbox, cxpb=0.6, mutpb=0.4, ngen=n_generations, **settings
        )
    else:
        population, logbook = getattr(algorithms, algorithm)(
            population, toolbox, mu=20, lambda_=30, cxpb=0.5, mutpb=0.4, ngen=n_generations,
            **settings,
        )  # fmt: skip
    return population, logbook, hall


class TestDeapAlgorithms:
    @pytest.mark.parametrize("algorithm", ["eaSimple", "eaMuPlusLambda", "eaMuCommaLambda"])
    @pytest.mark.parametrize("crossover", CROSSOVERS)
    def test_run_unchanged(self, algorithm: str, crossover: Any) -> None:
        # `score` raises where a point violates the constraint or the conditions.
        toolbox = make_toolbox(network(), fitness=score, crossover=crossover)
        random.seed(4)
        population, logbook, hall = run(algorithm, toolbox)
        assert isinstance(logbook, tools.Logbook)
        assert len(logbook) == 9
        assert logbook[-1]["mean"] > logbook[0]["mean"]
        assert hall[0].fitness.values[0] >= max(logbook.select("max"))
        assert hall[0].fitness.values[0] > 127.0
        for individual in population:
            assert network().validate_values(individual) == individual
            assert network().satisfied(individual)

    @pytest.mark.parametrize("selection", ["tournament", "roulette", "best"])
    def test_every_selection_runs(self, selection: Any) -> None:
        toolbox = make_toolbox(network(), fitness=score, selection=selection)
        random.seed(4)
        _, logbook, _ = run("eaSimple", toolbox)
        assert logbook[-1]["mean"] > logbook[0]["mean"]

    @pytest.mark.parametrize("algorithm", ["eaSimple", "eaMuPlusLambda"])
    def test_the_same_seed_gives_the_same_run(self, algorithm: str) -> None:
        runs = []
        for seed in (3, 3, 4):
            random.seed(seed)
            population, logbook, hall = run(algorithm, make_toolbox(network(), fitness=score))
            runs.append((population, list(logbook), list(hall)))
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]

    def test_var_and_leaves_the_parents_alone(self) -> None:
        toolbox = make_toolbox(network(), fitness=score)
        random.seed(0)
        population = evaluated(toolbox, 20)
        before = copy.deepcopy(population)
        children = algorithms.varAnd(population, toolbox, cxpb=1.0, mutpb=1.0)
        assert population == before
        assert [one.fitness.values for one in population] == [one.fitness.values for one in before]
        assert children != population
        assert not any(child.fitness.valid for child in children)
        assert all(network().satisfied(child) for child in children)

    def test_individuals_pickle_in_the_middle_of_a_run(self) -> None:
        toolbox = make_toolbox(network(), fitness=score)
        random.seed(0)
        population, logbook, hall = run("eaSimple", toolbox, 2)
        again, logbook_again, hall_again = pickle.loads(pickle.dumps((population, logbook, hall)))
        assert again == population
        assert [one.fitness for one in again] == [one.fitness for one in population]
        assert [one.fitness.weights for one in again] == [(1.0,)] * 20
        assert list(logbook_again) == list(logbook)
        assert hall_again[0] == hall[0]

    def test_nsga2_runs_on_two_objectives(self) -> None:
        toolbox = make_toolbox(
            network(),
            fitness=lambda genes, trial: (score(genes, trial), genes["width1"]),
            objectives=[Objective("score"), Objective("width", "min")],
        )
        toolbox.register("select", tools.selNSGA2)
        front = tools.ParetoFront()
        random.seed(0)
        algorithms.eaMuPlusLambda(
            toolbox.population(n=12), toolbox, 12, 12, 0.5, 0.5, 5, halloffame=front, verbose=False
        )
        assert {one.fitness.values[1] for one in front} == {16.0, 32.0, 64.0}

    def test_creator_and_globals_stay_as_they_were(self) -> None:
        code = """
            import random
            from deap import algorithms, creator
            from evonas.space import SearchSpace
            from evonas.evolution.toolbox import make_toolbox
            before = set(vars(creator))
            toolbox = make_toolbox(SearchSpace({"a": [1, 2], "b": [1, 2]}),
                                   fitness=lambda genes, trial: genes["a"])
            algorithms.eaSimple(toolbox.population(n=4), toolbox, 0.5, 0.5, 2, verbose=False)
            print(sorted(set(vars(creator)) - before))
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        printed = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=environment, capture_output=True, check=True, text=True,
        ).stdout  # fmt: skip
        assert printed.strip() == "[]"

    def test_fitness_weights_need_no_class_per_problem(self) -> None:
        up = make_toolbox(network(), objectives=Objective("a")).individual()
        down = make_toolbox(network(), objectives=Objective("a", "min")).individual()
        assert type(up.fitness) is type(down.fitness) is Fitness
        assert (up.fitness.weights, down.fitness.weights) == ((1.0,), (-1.0,))

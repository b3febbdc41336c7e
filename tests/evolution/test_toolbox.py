"""The DEAP toolbox: what is registered, what can be replaced, and DEAP's algorithms on it."""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from deap import algorithms, base, creator, tools

from evonas.evolution.individual import Individual
from evonas.evolution.toolbox import make_toolbox
from evonas.exceptions import FitnessError, InvalidPoint, UnsatisfiableSpaceError
from evonas.execution.trial import Trial
from evonas.objectives import Objective
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Integer

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


@pytest.fixture
def own_class() -> Iterator[type]:
    creator.create("OwnFitness", base.Fitness, weights=(-1.0,))
    creator.create("OwnIndividual", list, fitness=creator.OwnFitness)
    yield creator.OwnIndividual
    del creator.OwnIndividual, creator.OwnFitness


class TestRegistered:
    def test_everything_is_there(self) -> None:
        toolbox = make_toolbox(network(), fitness=score)
        for name in network():
            network()[name].validate(name, getattr(toolbox, f"attr_{name}")())
        individual = toolbox.individual()
        assert isinstance(individual, Individual)
        assert network().validate_values(individual) == individual
        assert len(toolbox.population(n=7)) == 7
        assert toolbox.clone(individual) == individual
        assert list(toolbox.map(abs, [-1])) == [1]
        assert len(toolbox.select(evaluated(toolbox, 5), 3)) == 3
        assert not hasattr(make_toolbox(network()), "evaluate")

    def test_individuals_satisfy_constraints(self) -> None:
        toolbox = make_toolbox(network(), rng=random.Random(0))
        assert all(network().satisfied(individual) for individual in toolbox.population(n=200))

    def test_objectives_become_weights(self) -> None:
        objectives = [Objective("accuracy"), Objective("params", "min")]
        toolbox = make_toolbox(network(), objectives=objectives)
        assert toolbox.individual().fitness.weights == (1.0, -1.0)
        assert make_toolbox(network()).individual().fitness.weights == (1.0,)

    @pytest.mark.parametrize("crossover", CROSSOVERS)
    def test_rng_replaces_the_global_one(self, crossover: Any) -> None:
        found = []
        for global_seed in (1, 2):
            random.seed(global_seed)
            before = random.getstate()
            toolbox = make_toolbox(
                network(), fitness=score, crossover=crossover, rng=random.Random(5)
            )
            population = evaluated(toolbox, 10)
            parents = [toolbox.clone(one) for one in toolbox.select(population, 2)]
            toolbox.mate(*parents)
            toolbox.mutate(parents[0])
            toolbox.attr_lr()
            assert random.getstate() == before
            found.append((population, parents))
        assert found[0] == found[1]

    def test_settings_reach_the_operators(self) -> None:
        toolbox = make_toolbox(
            network(), gene_mutation_prob=0.4, mutation_sigma=0.2, tournament_size=7
        )
        assert toolbox.mutate.keywords["indpb"] == 0.4
        assert toolbox.mutate.keywords["sigma"] == 0.2
        assert toolbox.select.keywords["tournsize"] == 7
        always = make_toolbox(network(constrained=False), gene_mutation_prob=1.0)
        individual = always.individual()
        before = list(individual)
        always.mutate(individual)
        assert all(new != old for new, old in zip(individual, before, strict=True))
        best = make_toolbox(network(), fitness=score, selection="best")
        population = evaluated(best, 8)
        assert best.select(population, 1)[0].fitness == max(one.fitness for one in population)

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"crossover": "half"}, ValueError, "crossover must be .* got 'half'"),
            ({"selection": "first"}, ValueError, "selection must be .* got 'first'"),
            ({"gene_mutation_prob": 1.5}, ValueError, r"prob must be at most 1, got 1\.5"),
            ({"gene_mutation_prob": -0.1}, ValueError, r"prob must be at least 0, got -0\.1"),
            (
                {"gene_mutation_prob": math.nan},
                ValueError,
                r"prob must be a finite number, got nan",
            ),
            ({"gene_mutation_prob": "1"}, TypeError, "prob must be a number, got '1'"),
            ({"mutation_sigma": -1.0}, ValueError, r"sigma must be at least 0, got -1\.0"),
            ({"mutation_sigma": math.inf}, ValueError, "sigma must be a finite number, got inf"),
            ({"tournament_size": 0}, ValueError, "tournament_size must be at least 1, got 0"),
            ({"tournament_size": 2.5}, TypeError, r"tournament_size must be an int, got 2\.5"),
            ({"fitness": 3}, TypeError, r"fitness must be callable as fitness\(genes, trial\)"),
            ({"objectives": []}, ValueError, "objectives is empty"),
        ],
    )
    def test_refuses_wrong_settings(
        self, settings: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            make_toolbox(network(), **settings)

    def test_refuses_what_is_no_space(self) -> None:
        with pytest.raises(TypeError, match=r"space must be a SearchSpace, got \{'a': \[1\]\}"):
            make_toolbox({"a": [1]})  # type: ignore[arg-type]

    def test_a_space_without_a_point_is_an_error(self) -> None:
        space = SearchSpace({"a": [1, 2]}, constraints={"never": lambda genes: False})
        with pytest.raises(UnsatisfiableSpaceError, match="none of the 2 points"):
            make_toolbox(space).individual()


class TestReplacing:
    def test_attr_creators_are_looked_up_when_called(self) -> None:
        toolbox = make_toolbox(network())
        toolbox.register("attr_lr", lambda: 0.01)
        toolbox.register("attr_depth", lambda: 2)
        for individual in toolbox.population(n=20):
            assert individual[0] == 2
            assert individual[3] == 0.01
            assert network().satisfied(individual)

    def test_values_of_own_creators_become_canonical(self) -> None:
        toolbox = make_toolbox(network())
        toolbox.register("attr_depth", lambda: np.int64(1))
        assert type(toolbox.individual()[0]) is int

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (48, ValueError, r"gene 'width1' must be one of \[16, 32, 64\], got 48"),
            (None, ValueError, r"gene 'width1' must be one of \[16, 32, 64\], got None"),
        ],
    )
    def test_values_of_own_creators_are_checked(
        self, value: Any, error: type[Exception], message: str
    ) -> None:
        toolbox = make_toolbox(network())
        toolbox.register("attr_width1", lambda: value)
        with pytest.raises(error, match=message):
            toolbox.individual()

    def test_own_creators_that_never_satisfy_are_an_error(self) -> None:
        toolbox = make_toolbox(network())
        toolbox.register("attr_depth", lambda: 2)
        toolbox.register("attr_width1", lambda: 16)
        toolbox.register("attr_width2", lambda: 64)
        with pytest.raises(
            UnsatisfiableSpaceError, match=r"1,000 random points .*'narrows' rejected 1,000"
        ):
            toolbox.individual()

    def test_population_uses_the_individual_registered(self) -> None:
        toolbox = make_toolbox(network())
        toolbox.register("individual", lambda: Individual([1]))
        assert toolbox.population(n=2) == [[1], [1]]

    def test_own_class(self, own_class: type) -> None:
        space = SearchSpace({"x": Integer(0, 20), "y": Integer(0, 20)})
        toolbox = make_toolbox(
            space,
            fitness=lambda genes, trial: genes["x"] + genes["y"],
            individual_class=own_class,
            rng=random.Random(1),
        )
        population = toolbox.population(n=30)
        assert all(type(one) is own_class for one in population)
        random.seed(0)
        population, _ = algorithms.eaSimple(population, toolbox, 0.7, 0.5, 15, verbose=False)
        assert tools.selBest(population, 1)[0].fitness.values[0] <= 2.0  # minimised

    def test_own_class_must_fit_the_objectives(self, own_class: type) -> None:
        objective = Objective("loss", "min")
        toolbox = make_toolbox(network(), individual_class=own_class, objectives=objective)
        assert toolbox.individual().fitness.weights == (-1.0,)
        for objectives in (Objective("a"), [objective, Objective("b")]):
            with pytest.raises(
                ValueError, match=r"has the fitness weights \(-1\.0,\), which do not"
            ):
                make_toolbox(network(), individual_class=own_class, objectives=objectives)

    @pytest.mark.parametrize(
        ("own", "error", "message"),
        [
            (
                list,
                ValueError,
                "with a DEAP fitness, whose weights it knows, as .fitness; list has",
            ),
            (tuple, TypeError, "individual_class must make lists .* got tuple"),
            (np.array, TypeError, "individual_class must make lists .* got ndarray"),
        ],
    )
    def test_refuses_classes_that_cannot_work(
        self, own: Any, error: type[Exception], message: str
    ) -> None:
        space = SearchSpace({"a": [1, 2]})
        with pytest.raises(error, match=message):
            make_toolbox(space, individual_class=own)

    def test_decorated_operators_run(self) -> None:
        calls = []

        def count(function: Any) -> Any:
            def counted(*args: Any, **kwargs: Any) -> Any:
                calls.append(function.__name__)
                return function(*args, **kwargs)

            return counted

        toolbox = make_toolbox(network())
        toolbox.decorate("mutate", count)
        toolbox.mutate(toolbox.individual())
        assert calls == ["mutate_typed"]


def evaluated(toolbox: base.Toolbox, n: int) -> list[Any]:
    population = toolbox.population(n=n)
    for individual in population:
        individual.fitness.values = toolbox.evaluate(individual)
    return population


class TestEvaluate:
    def test_fitness_gets_active_genes_and_a_trial(self) -> None:
        seen = []

        def fitness(genes: dict[str, Any], trial: Trial) -> float:
            trial.report(accuracy=0.5)
            seen.append((genes, trial.seed, trial.key))
            return 0.5

        space = network()
        for seed in (0, 0, 1):
            toolbox = make_toolbox(space, fitness=fitness, seed=seed)
            assert toolbox.evaluate(Individual([1, 32, 16, 0.01, True])) == (0.5,)
        genes = {"depth": 1, "width1": 32, "lr": 0.01, "norm": True}
        assert [entry[0] for entry in seen[:3]] == [genes] * 3
        assert seen[0][1] == seen[1][1] != seen[2][1]
        toolbox.evaluate(Individual([1, 64, 16, 0.01, True]))
        assert seen[3][1] != seen[2][1]
        assert seen[0][2] == space.key(genes)

    def test_dicts_are_read_by_objective(self) -> None:
        objectives = [Objective("accuracy"), Objective("params", "min")]
        toolbox = make_toolbox(
            network(),
            fitness=lambda genes, trial: {"params": 70, "accuracy": 0.5, "loss": 2.0},
            objectives=objectives,
        )
        assert toolbox.evaluate(toolbox.individual()) == (0.5, 70.0)

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            (None, r"returned None, expected a number \(fitness\): is a `return` missing"),
            ("high", r"must return a number for 'fitness', got 'high'"),
            ((1, 2), r"returned 2 values"),
            (math.nan, r"returned NaN for \{'depth'.*diverged"),
        ],
    )
    def test_refuses_what_is_no_fitness(self, returned: Any, message: str) -> None:
        toolbox = make_toolbox(network(), fitness=lambda genes, trial: returned)
        with pytest.raises(FitnessError, match=message):
            toolbox.evaluate(toolbox.individual())

    def test_infinity_ranks(self) -> None:
        toolbox = make_toolbox(network(), fitness=lambda genes, trial: -math.inf)
        assert toolbox.evaluate(toolbox.individual()) == (-math.inf,)

    def test_named_choices_arrive_as_names(self) -> None:
        space = SearchSpace({"act": Categorical({"int": int, "str": str})})
        toolbox = make_toolbox(
            space, fitness=lambda genes, trial: len(str(space.resolve(genes)["act"](5)))
        )
        assert toolbox.evaluate(toolbox.individual()) == (1.0,)

    def test_goes_through_a_process_pool(self) -> None:
        # The predicate is a lambda: evaluate must not carry it.
        space = SearchSpace(
            {"depth": [1], "width1": [16, 32], "lr": Float(0.01, 0.1)},
            constraints={"any": lambda genes: True},
        )
        toolbox = make_toolbox(space, fitness=score)
        population = toolbox.population(n=6)
        expected = [toolbox.evaluate(one) for one in population]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            toolbox.register("map", pool.map)
            assert toolbox.map(toolbox.evaluate, population) == expected

    @pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
    def test_the_whole_toolbox_pickles(self, copied: Any) -> None:
        toolbox = copied(make_toolbox(network(), fitness=score))
        random.seed(3)
        first = toolbox.individual()
        random.seed(3)
        assert make_toolbox(network()).individual() == first
        toolbox.register("attr_lr", lambda: 0.05)  # the copy looks up its own creators
        assert toolbox.population(n=1)[0][3] == 0.05
        assert len(toolbox.evaluate(toolbox.individual())) == 1

"""Individuals and fitnesses: DEAP's behaviour, without its creator."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import pytest
from deap import base, tools
from hypothesis import given
from hypothesis import strategies as st

from evonas.evolution.individual import Fitness, Individual, clone

NUMBERS = st.floats(-1e6, 1e6)


class Reference(base.Fitness):  # type: ignore[misc]
    weights = (1.0, -1.0)


class TestFitness:
    @given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=2))
    def test_compares_as_deaps(self, values: list[tuple[float, float]]) -> None:
        a, b = (Fitness((1.0, -1.0), pair) for pair in values)
        x, y = (Reference(pair) for pair in values)
        assert (a < b, a <= b, a == b, a != b, a >= b, a > b) == (
            x < y, x <= y, x == y, x != y, x >= y, x > y,
        )  # fmt: skip
        assert a.dominates(b) == x.dominates(y)
        assert hash(a) == hash(x)
        assert a.values == x.values

    def test_values_come_and_go(self) -> None:
        fitness = Fitness((-1.0,))
        assert not fitness.valid
        fitness.values = (3.0,)
        assert fitness.valid
        assert fitness.values == (3.0,)
        assert fitness.wvalues == (-3.0,)
        del fitness.values
        assert not fitness.valid

    def test_weights_belong_to_the_instance(self) -> None:
        up, down = Fitness((1.0,), (1.0,)), Fitness((-1.0,), (1.0,))
        assert up.weights == (1.0,)
        assert down.weights == (-1.0,)
        assert Fitness.weights is None

    @pytest.mark.parametrize("values", [(), (0.5, 7.0)])
    def test_copies_keep_weights_and_values(self, values: tuple[float, ...]) -> None:
        fitness = Fitness((1.0, -1.0), values)
        for again in (
            copy.deepcopy(fitness),
            copy.copy(fitness),
            pickle.loads(pickle.dumps(fitness)),
        ):
            assert type(again) is Fitness
            assert again.weights == (1.0, -1.0)
            assert again.wvalues == fitness.wvalues
            again.values = (1.0, 1.0)
            assert fitness.valid == bool(values)

    def test_repr_rebuilds_it(self) -> None:
        assert repr(Fitness((-1.0,), (2.0,))) == "Fitness((-1.0,), (2.0,))"
        assert repr(Fitness((1.0,))) == "Fitness((1.0,), ())"

    @pytest.mark.parametrize("weights", [(), (0.0,), (1.0, 0.0)])
    def test_refuses_no_weights(self, weights: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="weights must be one number other than 0 per objec"):
            Fitness(weights)

    def test_refuses_another_number_of_values(self) -> None:
        with pytest.raises(ValueError, match=r"values must be one per weight, 1, got \(1.0, 2.0\)"):
            Fitness((1.0,), (1.0, 2.0))


def told() -> Individual:
    individual = Individual([1, "a", [3]], Fitness((-1.0,), (0.5,)))
    individual.number, individual.key, individual.parents = 7, "abc", (1, 2)
    return individual


class TestIndividual:
    def test_is_a_list_with_a_fitness(self) -> None:
        individual = Individual([1, 2])
        assert individual == [1, 2]
        assert individual.fitness.weights == (1.0,)
        assert (individual.number, individual.key, individual.parents) == (None, None, ())
        assert Individual() == []

    def test_individuals_share_no_fitness(self) -> None:
        a, b = Individual([1]), Individual([2])
        a.fitness.values = (1.0,)
        assert not b.fitness.valid

    @pytest.mark.parametrize(
        "make", [copy.deepcopy, clone, lambda x: pickle.loads(pickle.dumps(x))]
    )
    def test_copies_are_whole_and_independent(self, make: Any) -> None:
        individual = told()
        individual.speed = [0.5]  # type: ignore[attr-defined]
        again = make(individual)
        assert type(again) is Individual
        assert again == individual
        assert again.fitness.values == (0.5,)
        assert again.fitness.weights == (-1.0,)
        assert (again.number, again.key, again.parents) == (7, "abc", (1, 2))
        assert again.speed == [0.5]
        again[0] = 9
        again.speed[0] = 9.0
        again.number = 8
        del again.fitness.values
        assert individual == [1, "a", [3]]
        assert individual.speed == [0.5]  # type: ignore[attr-defined]
        assert individual.number == 7
        assert individual.fitness.valid

    def test_subclasses_keep_their_class(self) -> None:
        class Mine(Individual):
            pass

        assert type(clone(Mine([1]))) is Mine

    def test_clone_takes_individuals_of_any_class(self) -> None:
        class Plain(list[int]):
            pass

        plain = Plain([1])
        plain.fitness = Fitness((1.0,), (2.0,))  # type: ignore[attr-defined]
        again = clone(plain)
        assert again == plain
        assert again.fitness is not plain.fitness  # type: ignore[attr-defined]

    def test_hall_of_fame_keeps_copies(self) -> None:
        individual = told()
        hall = tools.HallOfFame(1)
        hall.update([individual])
        individual[0] = 5
        individual.fitness.values = (100.0,)
        assert hall[0] == [1, "a", [3]]
        assert hall[0].fitness.values == (0.5,)

    def test_nsga2_selection_runs(self) -> None:
        rng = random.Random(0)
        population = [
            Individual([i], Fitness((1.0, -1.0), (rng.random(), rng.random()))) for i in range(20)
        ]
        assert len(tools.selNSGA2(population, 8)) == 8
        clone(population[0])

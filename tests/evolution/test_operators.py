"""Crossover, mutation and selection on typed genes."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from deap import tools
from hypothesis import given, settings
from hypothesis import strategies as st

from evonas.evolution.individual import Fitness, Individual
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
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Integer

SEEDS = st.integers(0, 2**32 - 1)
MATES: dict[str, Callable[..., Any]] = {
    "one_point": mate_one_point,
    "two_point": mate_two_point,
    "uniform": mate_uniform,
    "blend": mate_blend,
}


def ordered(genes: dict[str, Any]) -> bool:
    return bool(genes["low"] <= genes["high"])


def mixed_space(*, constrained: bool = False) -> SearchSpace:
    return SearchSpace(
        {
            "low": Integer(0, 9),
            "high": Integer(0, 9),
            "lr": Float(1e-4, 1e-1, log=True),
            "act": Categorical(["relu", "gelu", "tanh"]),
            "norm": Boolean(),
            "momentum": Float(0.0, 0.9),
            "kernel": [[3, 3], [5, 5]],
        },
        conditions={"momentum": {"norm": [True]}, "kernel": {"act": ["relu", "gelu"]}},
        constraints={"ordered": ordered} if constrained else None,
    )


def letters(n: int) -> tuple[Individual, Individual]:
    """Two parents whose genes say where they come from."""
    return Individual([f"a{i}" for i in range(n)]), Individual([f"b{i}" for i in range(n)])


@pytest.mark.parametrize("name", MATES)
class TestEveryCrossover:
    @settings(max_examples=50)
    @given(seed=SEEDS, constrained=st.booleans())
    def test_children_are_valid_and_allowed(self, name: str, seed: int, constrained: bool) -> None:
        space = mixed_space(constrained=constrained)
        rng = random.Random(seed)
        first, second = (Individual(space.sample_values(rng)) for _ in range(2))
        children = MATES[name](first, second, space=space, rng=rng)
        assert children[0] is first
        assert children[1] is second
        for child in children:
            assert space.validate_values(child) == child
            assert space.satisfied(child)

    def test_parents_without_a_way_stay_as_they_are(self, name: str) -> None:
        space = SearchSpace(
            {"a": Integer(0, 9), "b": Integer(0, 9)},
            constraints={"parents": lambda genes: (genes["a"], genes["b"]) in {(1, 2), (8, 5)}},
        )
        rng = random.Random(0)
        for _ in range(30):
            pair = Individual([1, 2]), Individual([8, 5])
            MATES[name](*pair, space=space, rng=rng)
            assert sorted(pair) == [[1, 2], [8, 5]]

    def test_one_gene_is_swapped_half_of_the_time(self, name: str) -> None:
        space = SearchSpace({"a": ["x", "y"]})
        rng = random.Random(0)
        seen: Counter[str] = Counter()
        for _ in range(2000):
            first, second = Individual(["x"]), Individual(["y"])
            MATES[name](first, second, space=space, rng=rng)
            seen[first[0] + second[0]] += 1
        assert set(seen) == {"xy", "yx"}
        assert min(seen.values()) > 900

    def test_without_rng_it_draws_from_the_global_random(self, name: str) -> None:
        space = mixed_space()
        found = []
        for rng in (None, random.Random(3)):
            random.seed(3)
            parents = random.Random(8)
            pair = [Individual(space.sample_values(parents)) for _ in range(2)]
            for _ in range(3):
                MATES[name](*pair, space=space, rng=rng)
            found.append(pair)
        assert found[0] == found[1]

    def test_fitness_and_lineage_are_left_alone(self, name: str) -> None:
        space = mixed_space()
        rng = random.Random(0)
        first, second = (Individual(space.sample_values(rng)) for _ in range(2))
        first.fitness.values, first.number = (1.0,), 4
        MATES[name](first, second, space=space, rng=rng)
        assert first.fitness.values == (1.0,)
        assert first.number == 4

    def test_pickles(self, name: str) -> None:
        assert pickle.loads(pickle.dumps(MATES[name])) is MATES[name]


class TestPointCrossovers:
    def test_one_point_swaps_every_tail(self) -> None:
        rng = random.Random(0)
        seen: Counter[str] = Counter()
        for _ in range(3000):
            first, second = letters(4)
            mate_one_point(first, second, rng=rng)
            assert sorted(first + second) == sorted([*letters(4)[0], *letters(4)[1]])
            seen["".join(gene[0] for gene in first)] += 1
        assert set(seen) == {"abbb", "aabb", "aaab"}
        assert all(880 < count < 1120 for count in seen.values())

    def test_two_point_swaps_every_stretch_but_the_first_gene(self) -> None:
        rng = random.Random(0)
        seen: Counter[str] = Counter()
        for _ in range(3000):
            first, second = letters(4)
            mate_two_point(first, second, rng=rng)
            seen["".join(gene[0] for gene in first)] += 1
        assert set(seen) == {"abaa", "abba", "abbb", "aaba", "aabb", "aaab"}
        assert all(410 < count < 590 for count in seen.values())

    def test_as_deaps_two_point(self) -> None:
        ours, theirs = set(), set()
        rng = random.Random(0)
        random.seed(0)
        for _ in range(500):
            pair = letters(5)
            ours.add(str(mate_two_point(*pair, rng=rng)))
            theirs.add(str(tools.cxTwoPoint(*letters(5))))
        assert ours == theirs

    def test_uniform_takes_a_probability(self) -> None:
        rng = random.Random(0)
        swapped = 0
        for _ in range(1000):
            first, second = letters(10)
            mate_uniform(first, second, indpb=0.2, rng=rng)
            swapped += sum(gene[0] == "b" for gene in first)
        assert 1840 < swapped < 2160
        for indpb, kept in ((0.0, "a"), (1.0, "b")):
            first, second = letters(10)
            mate_uniform(first, second, indpb=indpb, rng=rng)
            assert {gene[0] for gene in first} == {kept}


class TestBlend:
    def test_numbers_are_blended_and_others_swapped(self) -> None:
        space = SearchSpace({"x": Float(0.0, 1.0), "n": Integer(0, 100), "c": ["p", "q"]})
        rng = random.Random(0)
        xs, ns, cs = [], [], set()
        for _ in range(300):
            first, second = Individual([0.4, 40, "p"]), Individual([0.6, 60, "q"])
            mate_blend(first, second, space, alpha=0.5, rng=rng)
            xs += [first[0], second[0]]
            ns += [first[1], second[1]]
            cs.add((first[2], second[2]))
        assert 0.3 <= min(xs) < 0.31
        assert 0.69 < max(xs) <= 0.7
        assert (min(ns), max(ns)) == (30, 70)
        assert cs == {("p", "q"), ("q", "p")}


class TestMutateTyped:
    @settings(max_examples=50)
    @given(seed=SEEDS, indpb=st.floats(0, 1), constrained=st.booleans())
    def test_result_is_valid_and_allowed(self, seed: int, indpb: float, constrained: bool) -> None:
        space = mixed_space(constrained=constrained)
        rng = random.Random(seed)
        individual = Individual(space.sample_values(rng))
        (same,) = mutate_typed(individual, space, indpb, rng=rng)
        assert same is individual
        assert space.validate_values(individual) == individual
        assert space.satisfied(individual)

    def test_probability_is_per_gene_and_always_another_value(self) -> None:
        space = SearchSpace({f"g{i}": [1, 2, 3] for i in range(20)})
        rng = random.Random(0)
        changed = 0
        for _ in range(1000):
            individual = Individual([2] * 20)
            mutate_typed(individual, space, 0.15, rng=rng)
            changed += sum(value != 2 for value in individual)
        assert 2800 < changed < 3200  # 3000 ± 4 sigma
        mutate_typed(individual := Individual([2] * 20), space, 1.0, rng=rng)
        assert 2 not in individual
        mutate_typed(individual := Individual([2] * 20), space, 0.0, rng=rng)
        assert individual == [2] * 20

    def test_sigma_reaches_the_numbers(self) -> None:
        space = SearchSpace({"n": Integer(0, 1000)})
        rng = random.Random(0)
        for sigma, most in ((1e-6, 1), (0.05, 300)):
            for _ in range(50):
                (individual,) = mutate_typed(Individual([500]), space, 1.0, sigma=sigma, rng=rng)
                assert 1 <= abs(individual[0] - 500) <= most

    def test_no_way_leaves_it_unchanged(self) -> None:
        space = SearchSpace(
            {"a": Integer(0, 10**6), "b": Integer(0, 10**6)},
            constraints={"only": lambda genes: genes == {"a": 3, "b": 4}},
        )
        individual = Individual([3, 4])
        mutate_typed(individual, space, 1.0, rng=random.Random(0))
        assert individual == [3, 4]

    def test_tries_again_where_constraints_refuse(self) -> None:
        space = SearchSpace(
            {"a": Integer(0, 9), "b": Integer(0, 9)}, constraints={"ordered": below}
        )
        rng = random.Random(0)
        moved = sum(
            mutate_typed(Individual([4, 4]), space, 0.5, rng=rng)[0] != [4, 4] for _ in range(300)
        )
        # One try alone: 11/16 of the draws change nothing or are refused.
        assert moved > 130

    def test_without_rng_it_draws_from_the_global_random(self) -> None:
        space = mixed_space()
        values = space.sample_values(random.Random(4))
        random.seed(3)
        (ours,) = mutate_typed(Individual(values), space, 0.5)
        assert ours == mutate_typed(Individual(values), space, 0.5, rng=random.Random(3))[0]


def below(genes: dict[str, Any]) -> bool:
    return bool(genes["a"] <= genes["b"])


def population(values: list[float], weight: float = 1.0) -> list[Individual]:
    return [Individual([i], Fitness((weight,), (value,))) for i, value in enumerate(values)]


class TestSelection:
    def test_tournament_equals_deaps(self) -> None:
        individuals = population([float(i) for i in range(20)])
        random.seed(3)
        theirs = tools.selTournament(individuals, 50, tournsize=4)
        random.seed(3)
        assert select_tournament(individuals, 50, 4) == theirs

    @pytest.mark.parametrize("select", [select_tournament, select_roulette, select_best])
    def test_an_rng_replaces_the_global_one(self, select: Callable[..., list[Any]]) -> None:
        individuals = population([float(i) for i in range(20)])
        random.seed(1)
        before = random.getstate()
        first = select(individuals, 10, rng=random.Random(3))
        assert random.getstate() == before
        random.seed(2)
        assert select(individuals, 10, rng=random.Random(3)) == first
        assert all(any(chosen is one for one in individuals) for chosen in first)

    def test_tournament_prefers_the_better_whatever_the_direction(self) -> None:
        rng = random.Random(0)
        for weight, best in ((1.0, 9), (-1.0, 0)):
            individuals = population([float(i) for i in range(10)], weight)
            chosen = Counter(ind[0] for ind in select_tournament(individuals, 2000, 3, rng=rng))
            # Of ten, the best wins with 1 - 0.9**3 = 0.271.
            assert 460 < chosen[best] < 620

    def test_those_without_fitness_lose(self) -> None:
        individuals = population([0.0, 0.0])
        del individuals[1].fitness.values
        chosen = select_tournament(individuals, 300, 2, rng=random.Random(0))
        assert 190 < sum(ind[0] == 0 for ind in chosen) < 260  # 3 of 4 tournaments hold number 0

    def test_best(self) -> None:
        individuals = population([3.0, 9.0, 1.0, 5.0])
        assert [ind[0] for ind in select_best(individuals, 2)] == [1, 3]

    def test_roulette_is_proportional(self) -> None:
        individuals = population([1.0, 2.0, 0.0, 3.0])
        chosen = Counter(ind[0] for ind in select_roulette(individuals, 6000, rng=random.Random(0)))
        assert chosen[2] == 0
        for number, expected in ((0, 1000), (1, 2000), (3, 3000)):
            assert abs(chosen[number] - expected) < 160

    def test_roulette_of_zeros_is_even(self) -> None:
        chosen = select_roulette(population([0.0, 0.0]), 1000, rng=random.Random(0))
        assert len(chosen) == 1000
        assert 430 < sum(ind[0] for ind in chosen) < 570

    def test_roulette_always_returns_k(self) -> None:
        # The smallest float: half of DEAP's draws round up to the sum and choose nobody.
        chosen = select_roulette(population([5e-324]), 200, rng=random.Random(0))
        assert len(chosen) == 200

    @pytest.mark.parametrize(
        ("individuals", "message"),
        [
            (population([1.0], -1.0), r"needs a maximised objective .* got the weight -1\.0"),
            (population([1.0, -0.5]), r"needs finite fitness values from 0 on, got -0\.5"),
            (population([math.inf]), "needs finite fitness values from 0 on, got inf"),
            (population([math.nan]), "needs finite fitness values from 0 on, got nan"),
            (population([1e308, 1e308]), "the sum of the fitness values overflows"),
            ([Individual([3])], r"\[3\] has no fitness; evaluate it first"),
        ],
    )
    def test_roulette_refuses(self, individuals: list[Individual], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            select_roulette(individuals, 2, rng=random.Random(0))

    @pytest.mark.parametrize("select", [select_tournament, select_roulette, select_best])
    def test_refuses_nobody(self, select: Callable[..., list[Any]]) -> None:
        with pytest.raises(ValueError, match="needs at least one individual, got none"):
            select([], 2)

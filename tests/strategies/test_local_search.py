from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import evonas as en
from evonas.strategies import LocalSearch
from evonas.testing import RoughProblem, StrategyConformance, onemax, onemax_space, trace


class TestLocalSearch(StrategyConformance):
    def make_strategy(self) -> en.Strategy:
        return LocalSearch(4, row_every=8)


class TestLocalSearchMinimising(StrategyConformance):
    objectives = (en.Objective("loss", "min"),)

    def make_strategy(self) -> en.Strategy:
        return LocalSearch(1, row_every=5, hall_of_fame=3)


def test_it_climbs_by_first_improvement(tmp_path: Any) -> None:
    """Every child is a neighbour of the best so far, from the start to the top."""
    result = en.evolve(
        onemax_space(9), onemax, strategy=LocalSearch(3), target_fitness=9, generations=99, seed=3,
        run_dir=tmp_path,
    )  # fmt: skip
    entries = {entry.number: entry for entry in result.evaluations}
    parents = [entry.parents for entry in trace(result)["proposals"]]
    assert parents[:3] == [(), (), ()]
    for number, parent in enumerate(parents[3:], start=3):
        (parent_number,) = parent
        best = max(entries[n].fitness for n in range(number))
        assert entries[parent_number].fitness == best
        differ = [n for n in entries[number].genes if entries[number].genes[n] !=
                  entries[parent_number].genes[n]]  # fmt: skip
        assert len(differ) == 1
    assert result.champion.fitness == 9
    assert len(entries) < 60  # of 512 points


def test_it_starts_again_where_no_neighbour_is_better(tmp_path: Any) -> None:
    def trap(genes: dict[str, Any], trial: en.Trial) -> float:
        ones = sum(genes.values())
        return float(ones if ones == 6 else 5 - ones)

    result = en.evolve(onemax_space(6), trap, strategy=LocalSearch(1), max_evaluations=64, seed=0,
                       run_dir=tmp_path)  # fmt: skip
    assert result.champion.fitness == 6
    assert len(result.evaluations) == 64
    starts = [entry.evaluation for entry in trace(result)["proposals"] if not entry.parents]
    assert starts[0] == 0
    assert len(starts) > 1
    assert all(later - earlier > 1 for earlier, later in pairwise(starts[:2]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_starts": 0}, ValueError, "n_starts must be at least 1, got 0"),
        ({"row_every": True}, TypeError, "row_every must be an int, got True"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        LocalSearch(**arguments)


def test_several_objectives_are_refused() -> None:
    problem = RoughProblem(objectives=[en.Objective("score"), en.Objective("size", "min")])
    with pytest.raises(ValueError, match="LocalSearch optimises one objective, got 2"):
        en.evolve(problem, strategy=LocalSearch(), max_evaluations=3)

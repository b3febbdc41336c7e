from __future__ import annotations

from typing import Any

import pytest

import evonas as en
from evonas.records import Status
from evonas.strategies import AgingEvolution
from evonas.testing import (
    RoughProblem,
    StrategyConformance,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
    trace,
)


class TestAging(StrategyConformance):
    def make_strategy(self) -> en.Strategy:
        return AgingEvolution(population=6, sample=3)


class TestAgingMinimising(StrategyConformance):
    objectives = (en.Objective("loss", "min"),)

    def make_strategy(self) -> en.Strategy:
        return AgingEvolution(population=9, sample=9, novelty_tries=0, row_every=5)


def search(strategy: en.Strategy, problem: Any = None, **changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"max_evaluations": 30, "seed": 1, "max_consecutive_failures": 99}
    return en.evolve(problem or RoughProblem(), strategy=strategy, **(arguments | changes))


def test_the_oldest_dies_even_if_it_is_the_best() -> None:
    def worse_and_worse(genes: dict[str, Any], trial: en.Trial) -> float:
        return -float(trial.number)

    strategy = AgingEvolution(population=5, sample=2)
    en.evolve(quadratic_space(), worse_and_worse, strategy=strategy, max_evaluations=23, seed=0)
    assert [member.number for member in strategy.population] == [18, 19, 20, 21, 22]
    assert strategy.hall_of_fame[0].number == 0


def test_children_come_from_the_best_of_the_sample(tmp_path: Any) -> None:
    """Sampled as often as here, the best member is the parent, and one gene of it is changed."""
    strategy = AgingEvolution(population=5, sample=200)
    result = search(strategy, en.FunctionProblem(quadratic_space(6), quadratic), run_dir=tmp_path)
    entries = {entry.number: entry for entry in result.evaluations}
    proposals = [entry for entry in trace(result)["proposals"] if entry.parents]
    assert len(proposals) == 25
    for proposal in proposals:
        child = entries[proposal.evaluation]
        alive = [entries[number] for number in range(child.number - 5, child.number)]
        (parent,) = proposal.parents
        assert entries[parent].fitness == max(entry.fitness for entry in alive)
        changed = [n for n in child.genes if child.genes[n] != entries[parent].genes[n]]
        assert len(changed) == 1


def test_only_members_with_a_fitness_are_parents_or_die(tmp_path: Any) -> None:
    strategy = AgingEvolution(population=6, sample=3)
    result = search(strategy, max_evaluations=40, run_dir=tmp_path)
    status = {entry.number: entry.status for entry in result.evaluations}
    parents = {number for entry in trace(result)["proposals"] for number in entry.parents}
    assert {status[number] for number in parents} == {Status.OK}
    assert len(strategy.population) == 6
    assert {Status.FAILED, Status.DIVERGED} & set(status.values())


def test_it_repeats_nothing_and_searches_a_small_space_whole() -> None:
    result = search(AgingEvolution(4, 2), en.FunctionProblem(onemax_space(5), onemax),
                    max_evaluations=100)  # fmt: skip
    assert len(result.evaluations) == 32
    assert result.counts.reused == 0
    assert result.stop_reason == "every point of the space has been evaluated"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"population": 0}, ValueError, "population must be at least 1, got 0"),
        ({"sample": 1.5}, TypeError, "sample must be an int, got 1.5"),
        ({"novelty_tries": -1}, ValueError, "novelty_tries must be at least 0, got -1"),
        ({"row_every": 0}, ValueError, "row_every must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AgingEvolution(**arguments)


def test_several_objectives_are_refused() -> None:
    problem = RoughProblem(objectives=[en.Objective("score"), en.Objective("size", "min")])
    with pytest.raises(ValueError, match=r"one objective, got 2 \(score, size\): NSGA2 and"):
        search(AgingEvolution(), problem)

from __future__ import annotations

from typing import Any, ClassVar

import pytest

import evonas as en
from evonas.exceptions import FitnessError
from evonas.strategies import NSGA2
from evonas.strategies.hypervolume import hypervolume
from evonas.testing import StrategyConformance, onemax_space

OBJECTIVES = (en.Objective("gain"), en.Objective("price", "min"))


class TestNSGA2(StrategyConformance):
    objectives = (en.Objective("score"), en.Objective("size", "min"))

    at_most: ClassVar[dict[str, float]] = {"size": 4.0}

    def make_strategy(self) -> en.Strategy:
        return NSGA2(6, at_most=self.at_most)

    def test_the_direction_of_the_objectives_counts(self) -> None:
        """Without the limit, which has a direction of its own."""
        self.at_most = {}
        super().test_the_direction_of_the_objectives_counts()


def both(genes: dict[str, Any], trial: en.Trial) -> dict[str, float]:
    """Each one gains one and costs one, the first costs three more."""
    ones = sum(genes.values())
    price = float(ones + 3 * genes["bit0"])
    return {"gain": float(ones), "price": price, "weight": 10.0 * ones}


def search(strategy: en.Strategy, **changes: Any) -> en.Result:
    problem = en.FunctionProblem(onemax_space(8), both, objectives=list(OBJECTIVES))
    return en.evolve(problem, strategy=strategy, **({"generations": 12, "seed": 1} | changes))


def test_it_finds_the_front_and_keeps_it() -> None:
    strategy = NSGA2(20)
    result = search(strategy)
    front = sorted({entry.values for entry in result.pareto_front})
    assert front == [(float(n), float(n)) for n in range(8)] + [(8.0, 11.0)]
    kept = {tuple(individual.fitness.values) for individual in strategy.population}
    assert set(front) <= kept
    volumes = [row["hypervolume"] for row in result.logbook]
    assert volumes == sorted(volumes)
    assert volumes[-1] > volumes[0] > 0.0


def test_limits_come_before_objectives() -> None:
    strategy = NSGA2(10, at_most={"weight": 30.0}, at_least={"gain": 2})
    search(strategy)
    allowed = [individual.fitness.values for individual in strategy.population]
    assert {values[0] for values in allowed} <= {2.0, 3.0}


def test_where_nothing_is_allowed_it_goes_where_less_is_violated() -> None:
    strategy = NSGA2(8, at_most={"gain": -1.0})
    search(strategy)
    assert strategy.population[0].fitness.values[0] == 0.0


def test_a_limit_on_what_is_not_recorded_is_named() -> None:
    with pytest.raises(FitnessError, match="limit on 'latency' names no number.*price"):
        search(NSGA2(6, at_most={"latency": 1.0}))


def test_wrong_limits() -> None:
    with pytest.raises(TypeError, match=r"at_most\['size'\] must be a number, got '1'"):
        NSGA2(6, at_most={"size": "1"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 0.0),
        ([(1, 1, 1)], 1.0),
        ([(2, 1, 1), (1, 2, 1), (1, 1, 2)], 4.0),
        ([(2, 2, 2), (1, 1, 1), (3, 0, 3)], 8.0),
        ([(3, 1, 2), (3, 1, 2)], 6.0),
    ],
)
def test_the_hypervolume(points: list[tuple[float, ...]], expected: float) -> None:
    assert hypervolume(points, (0, 0, 0)) == expected

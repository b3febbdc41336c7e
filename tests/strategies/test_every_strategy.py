"""What each strategy makes of odd input (the contract itself is in their conformance suites)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import TooManyFailures

SMALL = {"a": [1, 2, 3], "b": [1, 2]}
LARGE = {"a": en.Integer(1, 30), "b": en.Integer(1, 30)}
TWO = [en.Objective("score"), en.Objective("cost", "min")]
SEVERAL: list[Callable[[], en.Strategy]] = [en.NSGA2, en.RandomSearch, en.SurrogateEvolution]
SINGLE: list[Callable[[], en.Strategy]] = [en.AgingEvolution, en.Generational, en.LocalSearch]

each = pytest.mark.parametrize("make", SEVERAL + SINGLE)


def total(genes: Any, trial: en.Trial) -> float:
    return float(genes["a"] + genes["b"])


@each
def test_a_space_smaller_than_the_population_is_searched_whole(make: Any) -> None:
    """Without any budget that would end it."""
    result = en.evolve(SMALL, total, strategy=make(), max_seconds=60, seed=0)
    assert result.counts.evaluated == 6
    assert result.stop_reason == "every point of the space has been evaluated"
    assert result.champion.genes == {"a": 3, "b": 2}


@each
def test_a_budget_smaller_than_the_population(make: Any, tmp_path: Path) -> None:
    """It ends there, and goes on from there with a larger one."""
    arguments: dict[str, Any] = {"strategy": make(), "run_dir": tmp_path, "seed": 0}
    result = en.evolve(LARGE, total, max_evaluations=3, **arguments)
    assert (result.counts.evaluated, result.stop_reason) == (3, "max_evaluations 3 is used up")
    first = result.evaluations
    again = en.evolve(LARGE, total, max_evaluations=5, **arguments | {"strategy": make()})
    assert again.evaluations[:3] == first
    assert again.counts.evaluated == 5


@pytest.mark.parametrize("make", SINGLE)
def test_strategies_for_one_objective_refuse_two(make: Any, tmp_path: Path) -> None:
    message = r"optimises one objective, got 2 \(score, cost\): NSGA2 and SurrogateEvolution take"
    with pytest.raises(ValueError, match=message):
        en.evolve(LARGE, total, objectives=TWO, strategy=make(), run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [], "a run was begun"


@pytest.mark.parametrize("make", SEVERAL)
def test_an_objective_that_is_not_returned_is_named(make: Any, tmp_path: Path) -> None:
    def scored(genes: Any, trial: en.Trial) -> dict[str, float]:
        return {"score": total(genes, trial)}

    def whole(genes: Any, trial: en.Trial) -> dict[str, float]:
        return {"score": total(genes, trial), "cost": 1.0}

    arguments: dict[str, Any] = {"objectives": TWO, "run_dir": tmp_path, "max_evaluations": 20}
    with pytest.raises(TooManyFailures, match="without 'cost': expected 2 values"):
        en.evolve(LARGE, scored, strategy=make(), problem_id="costs", **arguments)
    fixed = en.evolve(LARGE, whole, strategy=make(), problem_id="costs", **arguments)
    assert fixed.counts.by_status["ok"] >= 10

"""When a search stops, and how it goes on with a larger budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.testing import (
    ProcessKilled,
    RoughProblem,
    SlowQuadratic,
    dies_at_commit,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
    trace,
)

SMALL: dict[str, Any] = {"population": 6, "generations": 4, "elite": 1, "seed": 0}


class Counted:
    """A fitness function that knows how often it was called."""

    def __init__(self, fitness: Callable[[Any, Any], Any] = onemax) -> None:
        self.fitness = fitness
        self.n_calls = 0

    def __call__(self, genes: Any, trial: Any) -> Any:
        self.n_calls += 1
        return self.fitness(genes, trial)


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    fitness = Counted()
    first = en.evolve(onemax_space(), fitness, run_dir=tmp_path, **SMALL)
    n_calls = fitness.n_calls
    again = en.evolve(onemax_space(), fitness, run_dir=tmp_path, **SMALL)
    fewer = en.evolve(onemax_space(), fitness, run_dir=tmp_path, **(SMALL | {"generations": 2}))
    assert fitness.n_calls == n_calls
    assert trace(first) == trace(again) == trace(fewer)
    assert (again.outcome, again.stop_reason) == ("finished", "4 generations are done")


def test_generations_extended_are_as_if_asked_for_at_once(tmp_path: Path) -> None:
    for generations in (1, 3, 7):
        result = en.evolve(
            RoughProblem(), run_dir=tmp_path / "parts", max_consecutive_failures=99,
            **(SMALL | {"generations": generations}),
        )  # fmt: skip
        assert len(result.logbook) == generations
    whole = en.evolve(
        RoughProblem(), run_dir=tmp_path / "whole", max_consecutive_failures=99,
        **(SMALL | {"generations": 7}),
    )  # fmt: skip
    assert trace(result) == trace(whole)


def test_max_evaluations_counts_trials(tmp_path: Path) -> None:
    fitness = Counted()
    result = en.evolve(
        onemax_space(), fitness, population=6, elite=1, seed=0, max_evaluations=14, run_dir=tmp_path
    )
    assert fitness.n_calls == result.counts.evaluated == 14
    assert result.stop_reason == "max_evaluations 14 is used up"
    assert len(result.logbook) == 2
    again = en.evolve(
        onemax_space(), fitness, population=6, elite=1, seed=0, max_evaluations=14, run_dir=tmp_path
    )
    assert fitness.n_calls == 14
    assert trace(again) == trace(result)


def test_reused_and_invalid_points_are_free() -> None:
    result = en.evolve(
        RoughProblem(), strategy=en.Generational(6, elite=1, novelty_tries=0), max_evaluations=20,
        seed=0, max_consecutive_failures=99,
    )  # fmt: skip
    assert result.counts.evaluated == 20
    assert result.counts.reused > 0
    assert len(result.evaluations) == 20 + result.counts.by_status["invalid"] > 20


def test_max_seconds_are_those_of_all_starts(tmp_path: Path) -> None:
    budget: dict[str, Any] = {"population": 4, "elite": 1, "seed": 0, "run_dir": tmp_path}
    began = time.monotonic()
    first = en.evolve(quadratic_space(), SlowQuadratic(0.02), max_seconds=0.3, **budget)
    assert 0.25 < time.monotonic() - began < 5
    assert first.stop_reason == "max_seconds 0.3 are used up"
    assert 0.3 <= first.seconds < 5
    again = en.evolve(quadratic_space(), SlowQuadratic(0.02), max_seconds=0.3, **budget)
    assert again.counts.evaluated == first.counts.evaluated
    more = en.evolve(
        quadratic_space(), SlowQuadratic(0.02), max_seconds=again.seconds + 0.2, **budget
    )
    assert more.counts.evaluated > first.counts.evaluated


def test_patience_counts_generations_without_a_better_best() -> None:
    result = en.evolve(onemax_space(3), lambda genes, trial: 1.0, population=3, patience=2, seed=0)
    assert result.stop_reason == "2 generations without a better best"
    assert len(result.logbook) == 3
    result = en.evolve(quadratic_space(), quadratic, population=6, patience=3, seed=3)
    best = result.logbook.select("best")
    assert len(best) > 4
    assert best[-4] == best[-1] > best[-5]


def test_patience_waits_for_a_first_fitness() -> None:
    def late(genes: Any, trial: Any) -> float:
        if trial.number < 8:
            raise RuntimeError("not yet")
        return 1.0

    result = en.evolve(quadratic_space(), late, population=2, elite=0, patience=2, seed=0)
    assert result.champion.number >= 8


def test_target_fitness_stops_at_once(tmp_path: Path) -> None:
    fitness = Counted()
    arguments: dict[str, Any] = {"population": 6, "elite": 1, "seed": 0, "run_dir": tmp_path}
    result = en.evolve(onemax_space(), fitness, target_fitness=6, **arguments)
    assert result.champion.fitness >= 6
    assert result.evaluations[-1] == result.champion
    assert result.stop_reason == "target_fitness 6 is reached"
    n_calls = fitness.n_calls
    en.evolve(onemax_space(), fitness, target_fitness=5, **arguments)
    assert fitness.n_calls == n_calls
    more = en.evolve(onemax_space(), fitness, target_fitness=8, generations=30, **arguments)
    assert more.champion.fitness == 8


def test_target_fitness_of_what_is_minimised() -> None:
    result = en.evolve(
        quadratic_space(), lambda genes, trial: -quadratic(genes, trial),
        objectives=en.Objective("loss", "min"), population=8, target_fitness=1.0, seed=0,
    )  # fmt: skip
    assert result.champion.values[0] <= 1.0
    assert all(entry.values[0] > 1.0 for entry in result.evaluations[:-1])


def test_a_space_smaller_than_the_population_ends() -> None:
    fitness = Counted()
    result = en.evolve(onemax_space(3), fitness, population=20, generations=50, seed=0)
    assert fitness.n_calls == 8
    assert result.stop_reason == "every point of the space has been evaluated"
    assert result.champion.fitness == 3
    assert len(result.logbook) == 1
    assert result.logbook[0]["nevals"] + result.logbook[0]["reused"] == 20


def test_a_constrained_space_ends_though_it_looks_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evonas.run.budget._MAX_REUSED_IN_A_ROW", 50)
    space = en.SearchSpace(
        {f"bit{index}": en.Boolean() for index in range(8)},
        constraints={"few": lambda genes: sum(genes.values()) <= 1},
    )
    fitness = Counted()
    result = en.evolve(space, fitness, population=10, elite=1, generations=1000, seed=0)
    assert fitness.n_calls <= 9
    assert result.stop_reason == "the last 50 proposals were all evaluated before"


def test_without_a_budget_there_is_one() -> None:
    result = en.evolve(onemax_space(12), onemax, population=4, seed=0)
    assert result.stop_reason == "25 generations are done"


def test_the_seconds_of_a_start_that_was_killed_count(tmp_path: Path) -> None:
    """To about a second: they are noted with the evaluations."""
    arguments: dict[str, Any] = {"population": 4, "elite": 1, "seed": 0, "run_dir": tmp_path}
    with pytest.raises(ProcessKilled), dies_at_commit(16):
        en.evolve(quadratic_space(), SlowQuadratic(0.12), generations=30, **arguments)
    spent = en.open_run(tmp_path).seconds
    assert 1.0 <= spent < 10
    result = en.evolve(quadratic_space(), SlowQuadratic(0.12), max_seconds=1.0, **arguments)
    assert result.stop_reason == "max_seconds 1.0 are used up"
    assert result.counts.evaluated == 10


def test_a_target_reached_outside_the_limits_is_none() -> None:
    def fitness(genes: en.Genes, trial: en.Trial) -> float:
        trial.record(cost=genes["x"])
        return float(genes["x"])

    result = en.evolve(
        {"x": en.Integer(0, 9)}, fitness, strategy=en.NSGA2(population=4, at_most={"cost": 5}),
        initial=[{"x": 9}, {"x": 4}, {"x": 2}, {"x": 5}], seed=0, generations=4, target_fitness=5,
    )  # fmt: skip
    assert result.stop_reason == "target_fitness 5 is reached"
    assert [entry.genes["x"] for entry in result.evaluations] == [9, 4, 2, 5]

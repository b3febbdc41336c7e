from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.exceptions import TooManyFailures
from evonas.execution.base import Outcome, Task, run_trial
from evonas.strategies import SurrogateEvolution
from evonas.testing import (
    RoughProblem,
    StrategyConformance,
    conditional_space,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
)


class TestSurrogate(StrategyConformance):
    def make_strategy(self) -> en.Strategy:
        return SurrogateEvolution(n_initial=9, n_parents=3, row_every=5)


class TestSurrogateTwoObjectives(StrategyConformance):
    objectives = (en.Objective("score"), en.Objective("size", "min"))

    def make_strategy(self) -> en.Strategy:
        return SurrogateEvolution(n_initial=9, n_parents=3, warp=False, row_every=5)

    def test_only_what_has_a_fitness_ranks(self) -> None:
        """The hall of fame follows the first objective alone."""

    def test_killed_at_any_commit_it_ends_the_same(self) -> None:
        """As with one objective, in the other suite: the slowest of the tests."""


def search(**changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"strategy": SurrogateEvolution(), "seed": 1}
    return en.evolve(**({"max_evaluations": 30} | arguments | changes))


def test_it_finds_in_thirty_evaluations_what_chance_would_not() -> None:
    """One of 4,096 points; random search would need 2,048 in the mean."""
    result = search(problem=onemax_space(12), fitness=onemax)
    assert result.champion.fitness == 12


def test_numbers_are_refined_near_the_best() -> None:
    result = search(problem=quadratic_space(2), fitness=quadratic, max_evaluations=40)
    assert result.champion.fitness > -0.05  # the values go down to -50


def test_failed_points_are_avoided_and_do_not_stop_it() -> None:
    """Half of the space fails: the model learns which."""

    def fails_on_one_side(genes: dict[str, Any], trial: en.Trial) -> float:
        if genes["x0"] > 1.0:
            raise RuntimeError("does not fit into memory")
        return quadratic(genes, trial) + 10.0 * genes["x0"]

    result = search(
        problem=quadratic_space(2), fitness=fails_on_one_side, max_evaluations=50,
        max_consecutive_failures=50,
    )  # fmt: skip
    late = [entry.status for entry in result.evaluations[20:]]
    assert late.count(en.Status.FAILED) < 15
    assert result.champion.genes["x0"] > 0.5


def test_it_learns_from_what_is_on_record(tmp_path: Path) -> None:
    """A start that goes on chooses as one that never stopped, though its state holds no data."""

    def run(folder: str, sizes: list[int]) -> list[str]:
        for size in sizes:
            result = search(
                problem=conditional_space(), fitness=_width, max_evaluations=size,
                run_dir=tmp_path / folder,
            )  # fmt: skip
        return [entry.key for entry in result.evaluations]

    assert run("parts", [12, 17, 25]) == run("whole", [25])


def _width(genes: dict[str, Any], trial: en.Trial) -> float:
    return float(sum(value for value in genes.values() if isinstance(value, int)))


class Threads:
    """Several trials at once in this process, the first of which ends last."""

    device = "cpu"

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def start(self, problem: en.Problem) -> None:
        self.problem, self.pool = problem, ThreadPoolExecutor(self.slots)

    def submit(self, task: Task) -> Future[Outcome]:
        return self.pool.submit(run_trial, self.problem, task)

    def shutdown(self) -> None:
        self.pool.shutdown()


def test_points_under_way_are_accounted_for() -> None:
    """With a trial that never ends beside it, the search neither waits nor asks for it again."""
    others = threading.Semaphore(0)

    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        if trial.number == 12:
            for _ in range(10):
                assert others.acquire(timeout=20), "nothing was asked for while one was out"
        elif trial.number > 12:
            others.release()
        return onemax(genes, trial)

    result = search(problem=onemax_space(8), fitness=fitness, executor=Threads(2))
    keys = [entry.key for entry in result.evaluations]
    assert len(set(keys)) == len(keys) >= 30


def test_a_batch_of_points_under_way_spreads_out() -> None:
    """Asked for five points without an answer in between, it gives five different ones."""
    from evonas.run.history import History
    from evonas.strategies import SearchContext

    problem = en.FunctionProblem(quadratic_space(2), quadratic)
    strategy = SurrogateEvolution(n_initial=8)
    strategy.bind(SearchContext(problem.space, problem.objectives, 3, History(problem, {})))
    for number, proposal in enumerate(strategy.ask(8)):
        value = quadratic(proposal.genes, None)
        record = en.Evaluation(number, proposal.key, proposal.genes, en.Status.OK, (value,))
        strategy.tell(proposal, record, reused=False)
    points = np.array([[p.genes["x0"], p.genes["x1"]] for p in strategy.ask(5)])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(5, 1)]
    assert apart.min() > 0.05


def test_what_failed_is_tried_again_once_it_is_mended(tmp_path: Path) -> None:
    broken = True

    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        if broken and trial.number > 3:
            raise RuntimeError("a bug of the user's")
        return quadratic(genes, trial)

    def run() -> en.Result:
        return search(
            problem=quadratic_space(), fitness=fitness, max_evaluations=14, run_dir=tmp_path,
            problem_id="mended", max_consecutive_failures=3,
            strategy=SurrogateEvolution(n_initial=5),
        )  # fmt: skip

    with pytest.raises(TooManyFailures):
        run()
    failed = [entry.key for entry in en.open_run(tmp_path).evaluations][4:]
    broken = False
    result = run()
    ok = {entry.key for entry in result.evaluations if entry.status is en.Status.OK}
    assert set(failed) <= ok


def test_two_objectives_give_a_front() -> None:
    """Neither end alone: f rises with the number of ones, the price of each one does too."""

    def both(genes: dict[str, Any], trial: en.Trial) -> tuple[float, float]:
        ones = sum(genes.values())
        return float(ones), float(ones + 3 * genes["bit0"])

    objectives = [en.Objective("gain"), en.Objective("price", "min")]
    problem = en.FunctionProblem(onemax_space(8), both, objectives=objectives)
    result = search(problem=problem, max_evaluations=60)
    best_at = {}
    for entry in result.evaluations:
        gain, price = entry.values
        best_at[gain] = min(price, best_at.get(gain, np.inf))
    assert [best_at.get(float(gain)) for gain in range(8)] == [float(gain) for gain in range(8)]


def test_a_constant_fitness_and_a_space_of_few_points_are_searched_whole() -> None:
    problem = RoughProblem(onemax_space(4), smooth=True)
    result = search(problem=problem, max_evaluations=99)
    assert len(result.evaluations) == 16
    result = search(problem=onemax_space(4), fitness=lambda genes, trial: 0.0, max_evaluations=99)
    assert len(result.evaluations) == 16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_initial": 1}, ValueError, "n_initial must be at least 2, got 1"),
        ({"n_parents": 0}, ValueError, "n_parents must be at least 1, got 0"),
        ({"warp": "log"}, TypeError, "warp must be True or False, got 'log'"),
        ({"row_every": 1.0}, TypeError, "row_every must be an int, got 1.0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SurrogateEvolution(**arguments)

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import TooManyFailures, UnsatisfiableSpaceError
from evonas.execution.base import Outcome, Task, run_trial
from evonas.run.store import RunReader
from evonas.strategies import RandomSearch, steady
from evonas.testing import (
    ProcessKilled,
    RoughProblem,
    StrategyConformance,
    conditional_space,
    dies_at_commit,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
)


class TestRandomSearch(StrategyConformance):
    def make_strategy(self) -> en.Strategy:
        return RandomSearch(row_every=7)


class TestTwoObjectives(StrategyConformance):
    objectives = (en.Objective("score"), en.Objective("size", "min"))

    def make_strategy(self) -> en.Strategy:
        return RandomSearch(row_every=5, hall_of_fame=3)

    def test_only_what_has_a_fitness_ranks(self) -> None:
        """The hall of fame follows the first objective alone."""


def points(result: en.Result) -> list[str]:
    return [entry.key for entry in result.evaluations]


def test_it_evaluates_every_point_of_a_space_once() -> None:
    problem = RoughProblem(smooth=True)
    result = en.evolve(problem, strategy=RandomSearch(), generations=1000, seed=0)
    expected = {problem.key(genes) for genes in conditional_space().enumerate()}
    assert sorted(points(result)) == sorted(expected)
    # The space's cardinality counts what its constraint forbids.
    assert result.stop_reason == "the strategy has nothing more to propose"


def test_the_last_points_come_in_one_order_however_often_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "MAX_DRAWS", 10)

    def search(folder: str, n_rows: int) -> en.Result:
        strategy = RandomSearch(row_every=32)
        return en.evolve(
            onemax_space(8),
            onemax,
            strategy=strategy,
            generations=n_rows,
            seed=1,
            run_dir=tmp_path / folder,
        )

    whole = search("whole", 8)
    for n_rows in range(1, 9):
        result = search("parts", n_rows)
    assert points(result) == points(whole)
    assert len(set(points(whole))) == 256


def test_the_rows_tell_what_their_evaluations_came_to() -> None:
    result = en.evolve(
        quadratic_space(),
        quadratic,
        strategy=RandomSearch(row_every=10),
        max_evaluations=30,
        seed=2,
    )
    values = [entry.fitness for entry in result.evaluations]
    assert [row["nevals"] for row in result.logbook] == [10, 10, 10]
    for number, row in enumerate(result.logbook):
        part = values[10 * number : 10 * number + 10]
        assert row["gen"] == number
        assert row["mean"] == pytest.approx(sum(part) / 10)
        assert (row["min"], row["max"]) == (min(part), max(part))
        assert row["best"] == max(values[: 10 * number + 10])


class Threads:
    """Several trials at once in this process."""

    device = "cpu"

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def start(self, problem: en.Problem) -> None:
        self.problem, self.pool = problem, ThreadPoolExecutor(self.slots)

    def submit(self, task: Task) -> Future[Outcome]:
        return self.pool.submit(run_trial, self.problem, task)

    def shutdown(self) -> None:
        self.pool.shutdown()


def test_it_does_not_wait_for_the_slowest() -> None:
    others = threading.Semaphore(0)
    done = []

    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        if trial.number == 0:
            for _ in range(9):
                assert others.acquire(timeout=10), "nothing was submitted while the slowest ran"
        done.append(trial.number)
        others.release()
        return float(trial.number)

    result = en.evolve(
        quadratic_space(), fitness, strategy=RandomSearch(row_every=5), max_evaluations=10,
        executor=Threads(2),
    )  # fmt: skip
    assert done.index(0) == 9
    # A row closes when so many have ended, whichever they are.
    assert [(row["nevals"], row["min"], row["max"]) for row in result.logbook] == [
        (5, 1.0, 5.0), (5, 0.0, 9.0)
    ]  # fmt: skip


def test_which_points_are_tried_does_not_depend_on_the_workers() -> None:
    def search(executor: Threads | None) -> list[tuple[int, str]]:
        def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
            time.sleep(0.002 * (trial.number % 3))
            return 1.0

        result = en.evolve(
            onemax_space(6), fitness, strategy=RandomSearch(row_every=7), generations=6, seed=5,
            executor=executor,
        )  # fmt: skip
        return [(entry.number, entry.key) for entry in result.evaluations]

    alone, together = search(None), search(Threads(4))
    assert len(together) >= len(alone) == 42
    assert together[:42] == alone


def test_killed_with_trials_under_way_it_tries_the_same_points(tmp_path: Path) -> None:
    tried: list[int] = []

    def search(folder: str, executor: Threads | None) -> en.Result:
        def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
            tried.append(trial.number)
            time.sleep(0.002 * (trial.number % 3))
            return float(genes["x0"])

        return en.evolve(
            quadratic_space(), fitness, strategy=RandomSearch(row_every=5), max_evaluations=23,
            seed=5, executor=executor, run_dir=tmp_path / folder,
        )  # fmt: skip

    whole = search("whole", None)
    for commit in (7, 12, 20, 31):
        with suppress(ProcessKilled), dies_at_commit(commit, before=commit % 2 == 0):
            search(f"killed{commit}", Threads(4))
        with RunReader.open(tmp_path / f"killed{commit}") as reader:
            kept = {entry.number for entry in reader.evaluations()}
        tried.clear()
        again = search(f"killed{commit}", None)  # with fewer slots than trials were under way
        assert not kept & set(tried)
        assert points(again) == points(whole)
        assert [entry.fitness for entry in again.hall_of_fame] == [
            entry.fitness for entry in whole.hall_of_fame
        ]
        assert sum(row["nevals"] for row in again.logbook) == 20


def test_what_failed_is_tried_again_once_it_is_mended(tmp_path: Path) -> None:
    broken = True
    tried: list[float] = []

    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        if broken and trial.number > 3:
            raise RuntimeError("a bug of the user's")
        tried.append(genes["x0"])
        return 1.0

    def search() -> en.Result:
        return en.evolve(
            quadratic_space(), fitness, strategy=RandomSearch(row_every=5), max_evaluations=12,
            problem_id="mended", seed=5, max_consecutive_failures=3, run_dir=tmp_path,
        )  # fmt: skip

    with pytest.raises(TooManyFailures):
        search()
    failed = [entry.genes["x0"] for entry in en.open_run(tmp_path).evaluations][4:]
    assert len(failed) == 3
    broken = False
    result = search()
    assert sorted(tried[4:7]) == sorted(failed)
    assert result.counts.by_status["ok"] == 12, "what failed took its place in the budget"


def test_a_space_in_which_nothing_builds_is_refused() -> None:
    class Barren(en.FunctionProblem):
        def invalid_reason(self, genes: dict[str, Any]) -> str:
            return "is invalid"

    problem = Barren(quadratic_space(), quadratic)
    with pytest.raises(UnsatisfiableSpaceError, match="none of 1,000 points in a row builds"):
        en.evolve(problem, strategy=RandomSearch(), max_evaluations=5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"row_every": 0}, ValueError, "row_every must be at least 1, got 0"),
        ({"row_every": 2.5}, TypeError, "row_every must be an int, got 2.5"),
        ({"hall_of_fame": 0}, ValueError, "hall_of_fame must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        RandomSearch(**arguments)

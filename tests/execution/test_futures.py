from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import WorkerError
from evonas.execution import (
    FuturesExecutor,
    Outcome,
    Task,
    Trial,
    TrialSettings,
    remote,
)
from evonas.testing import ExecutorConformance, RoughProblem, trace

SPACE = en.SearchSpace({"x": en.Integer(0, 99)})
LOCK = threading.Lock()  # no other process can have it


class TestThreads(ExecutorConformance):
    def make_executor(self) -> FuturesExecutor:
        return FuturesExecutor(ThreadPoolExecutor(2))


@pytest.mark.slow
class TestProcessPool(ExecutorConformance):
    def make_executor(self) -> FuturesExecutor:
        context = multiprocessing.get_context("spawn")
        return FuturesExecutor(ProcessPoolExecutor(2, mp_context=context))


@contextmanager
def started(
    pool: Any, fitness: Callable[[dict[str, Any], Trial], Any], **options: Any
) -> Iterator[FuturesExecutor]:
    executor = FuturesExecutor(pool, **options)
    executor.start(en.FunctionProblem(SPACE, fitness))
    try:
        yield executor
    finally:
        executor.shutdown()


def task(x: int = 0, **settings: Any) -> Task:
    return Task({"x": x}, TrialSettings(**settings))


class Counting(ThreadPoolExecutor):
    """Counts how often the problem travels."""

    n_calls = n_problems = 0

    def submit(self, function: Any, digest: str, problem: bytes | None, data: bytes) -> Any:
        self.n_calls += 1
        self.n_problems += problem is not None
        return super().submit(function, digest, problem, data)


def test_the_problem_travels_once() -> None:
    with Counting(1) as pool, started(pool, lambda genes, trial: genes["x"]) as executor:
        futures = [executor.submit(task(x)) for x in range(5)]
        assert [future.result(10).values for future in futures] == [(float(x),) for x in range(5)]
        assert pool.n_problems < pool.n_calls <= 10
        before = pool.n_problems
        assert executor.submit(task(9)).result(10).values == (9.0,)
        assert pool.n_problems == before


@pytest.mark.parametrize("n_lost", [0, 2])
def test_the_problem_travels_along_where_each_call_has_a_new_process(n_lost: int) -> None:
    pool = Flaky(n_lost)
    with started(pool, lambda genes, trial: genes["x"], slots=1, new_processes=True) as executor:
        for x in range(3):
            remote._problems.clear()  # as in a new process
            assert executor.submit(task(x)).result(10).values == (float(x),)
    assert pool.n_submitted == 3 + n_lost


def test_evolve_takes_any_executor() -> None:
    arguments: dict[str, Any] = {"population": 6, "generations": 3, "seed": 1}
    arguments |= {"max_consecutive_failures": 1000}
    with ThreadPoolExecutor(3) as pool:
        result = en.evolve(RoughProblem(), executor=pool, **arguments)
        assert pool.submit(int, "3").result() == 3, "the pool is the caller's, and goes on"
    assert trace(result) == trace(en.evolve(RoughProblem(), **arguments))


def test_a_pool_that_is_shut_down_is_refused() -> None:
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    message = "ThreadPoolExecutor takes no tasks.*pass one that is running"
    with pytest.raises(RuntimeError, match=message):
        en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, population=2, executor=pool)


def test_attached_files_travel_back(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        trial.attach("weights.bin", lambda path: path.write_bytes(b"\x00\x01" * genes["x"]))
        return float(tmp_path not in Path(trial.settings.attachments).parents)

    with ThreadPoolExecutor(1) as pool, started(pool, fitness) as executor:
        outcome = executor.submit(task(3, attachments=str(tmp_path / "a" / "7"))).result(10)
    assert outcome.values == (1.0,)
    assert (tmp_path / "a" / "7" / "weights.bin").read_bytes() == b"\x00\x01" * 3


class Flaky:
    """A pool whose calls are lost a number of times; it has jobs like submitit's."""

    def __init__(self, n_lost: int) -> None:
        self.n_lost = n_lost
        self.n_submitted = 0

    def submit(self, function: Any, *arguments: Any) -> Any:
        self.n_lost -= 1
        self.n_submitted += 1
        return Job(function, arguments, lost=self.n_lost >= 0)


class Job:
    def __init__(self, function: Any, arguments: Any, *, lost: bool) -> None:
        self.function, self.arguments, self.lost = function, arguments, lost

    def exception(self) -> Exception | None:
        return OSError("the node is gone") if self.lost else None

    def result(self) -> Any:
        return self.function(*self.arguments)

    def cancel(self) -> None:
        """Too late."""


@pytest.mark.parametrize(("n_lost", "status"), [(2, en.Status.OK), (3, en.Status.LOST)])
def test_a_lost_call_is_made_again(n_lost: int, status: en.Status) -> None:
    pool = Flaky(n_lost)
    with started(pool, lambda genes, trial: 1.0, slots=1) as executor:
        outcome = executor.submit(task()).result(10)
    assert outcome.status is status
    if status is en.Status.LOST:
        assert "was lost (OSError: the node is gone)" in outcome.error


def test_a_pool_that_breaks_loses_its_trial() -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, started(pool, fitness) as executor:
        outcome = executor.submit(task()).result(60)
    assert outcome.status is en.Status.LOST
    assert "BrokenProcessPool" in outcome.error


class LockedWhileItBreaks(ThreadPoolExecutor):
    """Fails its first calls with its lock held, as a `ProcessPoolExecutor` of Python 3.13 does."""

    def __init__(self, n_lost: int) -> None:
        super().__init__(1)
        self.left, self.lock = n_lost, threading.Lock()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        assert self.lock.acquire(timeout=5), "submit waits for the callback that called it"
        self.lock.release()
        if not self.left:
            return super().submit(function, *args, **kwargs)
        self.left -= 1
        future: Future[Any] = Future()

        def lose() -> None:
            with self.lock:
                future.set_exception(RuntimeError("a process died"))

        threading.Timer(0.05, lose).start()
        return future


@pytest.mark.parametrize(("n_lost", "status"), [(2, en.Status.OK), (3, en.Status.LOST)])
def test_a_pool_may_call_back_with_its_lock_held(n_lost: int, status: en.Status) -> None:
    with started(LockedWhileItBreaks(n_lost), lambda genes, trial: 1.0, lost_retries=2) as executor:
        assert executor.submit(task()).result(timeout=30).status is status


def test_a_problem_that_does_not_load_there_stops_the_search() -> None:
    class Unloadable:
        def __call__(self, genes: dict[str, Any], trial: Trial) -> float:
            return 1.0

        def __reduce__(self) -> Any:
            return __import__, ("a_module_that_is_nowhere",)

    message = "(?s)does not load.*a_module_that_is_nowhere"
    with ThreadPoolExecutor(1) as pool, pytest.raises(WorkerError, match=message):
        en.evolve({"x": [1, 2]}, Unloadable(), population=2, executor=pool)


def test_an_answer_that_is_no_outcome_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool, started(pool, lambda genes, trial: 1.0) as executor:
        monkeypatch.setattr(remote, "encode_outcome", lambda outcome: b"{}")
        outcome = executor.submit(task()).result(10)
    assert outcome.status is en.Status.FAILED
    assert "the answer is broken: b'{}' is no outcome" in outcome.error


def test_shutdown_leaves_a_running_trial_alone() -> None:
    began, goes_on = threading.Event(), threading.Event()
    remote_events = {"began": began, "goes_on": goes_on}
    multiprocessing.evonas_test_events = remote_events  # a pickle would copy them

    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        multiprocessing.evonas_test_events["began"].set()
        multiprocessing.evonas_test_events["goes_on"].wait(10)
        return 1.0

    with ThreadPoolExecutor(1) as pool:
        executor = FuturesExecutor(pool)
        executor.start(en.FunctionProblem(SPACE, fitness))
        futures: list[Future[Outcome]] = [executor.submit(task(x)) for x in range(3)]
        assert began.wait(10)
        executor.shutdown()
        assert all(future.done() for future in futures)
        goes_on.set()
    del multiprocessing.evonas_test_events


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FuturesExecutor(3), TypeError, "must be a concurrent.futures.Executor, got 3"),
        (lambda: FuturesExecutor(Flaky(0)), ValueError, "Flaky does not say how many calls"),
        (lambda: FuturesExecutor(Flaky(0), slots=0), ValueError, "slots must be at least 1"),
        (
            lambda: en.evolve({"x": [1]}, lambda genes, trial: 1.0, executor=3),
            TypeError,
            "must be an evonas executor or a concurrent.futures.Executor, got int",
        ),
        (
            lambda: FuturesExecutor(ThreadPoolExecutor(1)).start(
                en.FunctionProblem(SPACE, lambda genes, trial: float(LOCK.locked()))
            ),
            TypeError,
            "cannot be sent to other processes",
        ),
    ],
)
def test_wrong_arguments(make: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()

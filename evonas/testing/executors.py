"""What every executor must pass."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from evonas.exceptions import InvalidPoint
from evonas.execution.base import Executor, Outcome, Task
from evonas.execution.trial import Trial, TrialSettings
from evonas.objectives import Objective
from evonas.problem import FunctionProblem, Problem
from evonas.records import Genes, Status
from evonas.run.evolve import evolve
from evonas.space import SearchSpace
from evonas.strategies.generational import Generational
from evonas.testing._checks import check, check_equal, check_raises, global_states
from evonas.testing.problems import RoughProblem
from evonas.testing.runs import trace

__all__ = ["ExecutorConformance"]


class ExecutorConformance(ABC):
    """The contract of `Executor`, as tests: subclass it, say how yours is made, and run pytest.

    Each method named `test_*` is one clause. The fitness functions are in this module, so that any
    process can import them; they need neither torch nor a GPU.

    Attributes:
        timeout: Seconds to wait for one trial.

    Example:
        >>> from evonas.execution import SerialExecutor
        >>> class TestSerial(ExecutorConformance):
        ...     def make_executor(self):
        ...         return SerialExecutor()
        >>> TestSerial().test_the_outcome_holds_all_that_was_returned()
    """

    timeout: ClassVar[float] = 60.0

    @abstractmethod
    def make_executor(self) -> Executor:
        """Returns a new executor, not started."""

    def test_slots_and_device_are_known(self) -> None:
        """At least one slot, and a device by name."""
        with self._started() as executor:
            check(executor.slots >= 1, f"slots must be at least 1, got {executor.slots}")
            check(executor.device and isinstance(executor.device, str), "device must be a name")

    def test_the_outcome_holds_all_that_was_returned(self) -> None:
        """Values, metrics and epochs come back, with the time that they took."""
        outcome = self._outcome("reports")
        check_equal(outcome.status, Status.OK, f"status ({outcome.error})")
        check_equal(outcome.values, (0.5, 7.0), "values")
        check_equal(dict(outcome.metrics), {"params": 3, "note": "done"}, "metrics")
        epochs = [(row.epoch, dict(row.metrics)) for row in outcome.epochs]
        check_equal(epochs, [(0, {"loss": 2.0}), (1, {"loss": 1.0})], "epochs")
        check_equal(outcome.error, None, "error")
        check(0.0 < outcome.epochs[0].seconds <= outcome.epochs[1].seconds, "epoch seconds")
        check(outcome.epochs[1].seconds <= outcome.seconds < self.timeout, "seconds")
        check(outcome.started_at > 1e9, f"started_at {outcome.started_at} is not a time")

    def test_whatever_goes_wrong_becomes_a_status(self) -> None:
        """No exception of the fitness function leaves the executor, and each keeps its reason."""
        with self._started() as executor:
            for action, (status, reason) in _WRONG.items():
                outcome = executor.submit(_task(action)).result(self.timeout)
                check_equal(outcome.status, status, f"status of {action!r}")
                check(reason in (outcome.error or ""), f"{action}: no {reason!r} in the error")
                check_equal(outcome.values, (), f"values of {action!r}")
                (outcome.error or "").encode()  # raises where no database could store it

    def test_what_was_reported_before_an_error_is_kept(self) -> None:
        """The epochs of a trial that fails are on record too."""
        outcome = self._outcome("fails late")
        check_equal(outcome.status, Status.FAILED, "status")
        check_equal([row.metrics["loss"] for row in outcome.epochs], [3.0], "epochs")

    def test_the_trial_has_its_settings(self) -> None:
        """Number, key, seed, device, threads, problem settings and the best arrive unchanged."""
        settings = TrialSettings(
            number=5,
            key="abc",
            seed=2**32 - 1,
            device="cpu",
            threads=1,
            problem={"precision": "float32", "batch": 4},
            best=0.25,
            maximise=False,
        )
        with self._started() as executor:
            outcome = executor.submit(Task({"action": "settings"}, settings)).result(self.timeout)
        found = {"number": 5, "key": "abc", "seed": 2**32 - 1, "device": "cpu", "threads": 1}
        found |= {"problem": {"precision": "float32", "batch": 4}, "beats": [True, False]}
        check_equal(dict(outcome.metrics), found, f"what the trial saw ({outcome.error})")

    def test_a_trial_cannot_change_its_genes_on_record(self) -> None:
        """The fitness function has genes of its own, lists and dicts in them too."""
        genes = {"action": "spoils", "layers": [1, [2]]}
        with self._started() as executor:
            outcome = executor.submit(Task(genes, TrialSettings())).result(self.timeout)
        check_equal(outcome.status, Status.OK, f"status ({outcome.error})")
        check_equal(genes, {"action": "spoils", "layers": [1, [2]]}, "the genes afterwards")

    def test_global_draws_follow_from_the_seed(self) -> None:
        """What a trial draws from `random` and `numpy.random` depends on its seed alone."""
        with self._started() as executor:
            seeds = [3, 4, 3, 3, 4]
            futures = [executor.submit(_task("draws", seed=seed)) for seed in seeds]
            drawn = [tuple(future.result(self.timeout).values) for future in futures]
        expected = {3: drawn[0], 4: drawn[1]}
        check_equal(drawn, [expected[seed] for seed in seeds], "draws by seed 3, 4, 3, 3, 4")
        check(drawn[0] != drawn[1], "two seeds draw the same")

    def test_the_callers_generators_are_as_before(self) -> None:
        """After `shutdown`, at the latest."""
        before = global_states()
        self._outcome("draws")
        check(global_states() == before, "the global `random` or `numpy.random` was moved")

    def test_more_tasks_than_slots_all_end(self) -> None:
        """Each future has the outcome of its own task."""
        with self._started() as executor:
            count = 3 * executor.slots + 2
            futures = [executor.submit(_task("number", number=n)) for n in range(count)]
            found = [future.result(self.timeout).values[0] for future in futures]
        check_equal(found, [float(n) for n in range(count)], "outcomes in the order of the tasks")

    def test_submit_needs_a_start(self) -> None:
        """Before `start` and after `shutdown`, `submit` says so; `shutdown` twice is harmless."""
        executor = self.make_executor()
        check_raises(RuntimeError, "not started", lambda: executor.submit(_task("number")))
        executor.start(_problem())
        executor.shutdown()
        executor.shutdown()
        check_raises(RuntimeError, "shut down", lambda: executor.submit(_task("number")))

    def test_it_starts_again_after_a_shutdown(self) -> None:
        """One executor serves several searches, one after the other."""
        executor = self.make_executor()
        for number in (1, 2):
            executor.start(_problem())
            try:
                future = executor.submit(_task("number", number=number))
                check_equal(future.result(self.timeout).values[0], float(number), "value")
            finally:
                executor.shutdown()

    def test_a_search_ends_as_in_this_process(self) -> None:
        """Where and how many at once changes nothing but the time."""

        def search(executor: Executor | None) -> dict[str, Any]:
            result = evolve(
                RoughProblem(),
                strategy=Generational(6, elite=1),
                generations=3,
                seed=1,
                executor=executor,
                max_consecutive_failures=1000,
                progress=False,
            )
            return trace(result)

        check_equal(search(self.make_executor()), search(None), "the same search, run serially")

    @contextmanager
    def _started(self) -> Iterator[Executor]:
        executor = self.make_executor()
        executor.start(_problem())
        try:
            yield executor
        finally:
            executor.shutdown()

    def _outcome(self, action: str) -> Outcome:
        with self._started() as executor:
            return executor.submit(_task(action)).result(self.timeout)


class _Unpicklable(Exception):
    """Made with two arguments, unpickled with one."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("odd")


_WRONG: dict[str, tuple[Status, str]] = {
    "raises": (Status.FAILED, "RuntimeError: broken here"),
    "exits": (Status.FAILED, "SystemExit"),
    "odd": (Status.FAILED, "odd"),
    "surrogate": (Status.FAILED, "ValueError"),
    "none": (Status.FAILED, "None"),
    "string": (Status.FAILED, "must return a number"),
    "one": (Status.FAILED, "expected 2 values"),
    "metric": (Status.FAILED, "metric"),
    "invalid": (Status.INVALID, "no such shape"),
    "nan": (Status.DIVERGED, "nan"),
    "infinite": (Status.DIVERGED, "inf"),
    "memory": (Status.OUT_OF_MEMORY, "MemoryError"),
}
_ERRORS: dict[str, BaseException] = {
    "raises": RuntimeError("broken here"),
    "exits": SystemExit(3),
    "odd": _Unpicklable(1, 2),
    "surrogate": ValueError("a file name that is no text: \udcff"),
    "invalid": InvalidPoint("no such shape"),
    "memory": MemoryError(),
}
_RETURNS: dict[str, Any] = {
    "none": None,
    "string": ("0.5", 1.0),
    "one": (0.5,),
    "metric": {"score": 0.5, "size": 1.0, "model": object()},
    "nan": (math.nan, 1.0),
    "infinite": (0.5, math.inf),
    "reports": {"score": 0.5, "size": 7.0, "params": 3},
}


def _act(genes: Genes, trial: Trial) -> Any:
    """Does what the gene `action` says."""
    action = genes["action"]
    if action == "reports":
        trial.report(loss=2.0)
        trial.report(loss=1.0)
        trial.record(note="done")
    if action in _ERRORS:
        raise _ERRORS[action]
    if action in _RETURNS:
        return _RETURNS[action]
    if action == "fails late":
        trial.report(loss=3.0)
        raise RuntimeError("later")
    if action == "spoils":
        genes["layers"][1].append(3)
        genes["layers"] = None
        genes["more"] = 1
    if action == "draws":
        return random.random(), float(np.random.rand())  # noqa: NPY002 (as a user's function might)
    if action == "settings":
        trial.record(number=trial.number, key=trial.key, seed=trial.seed, device=trial.device)
        trial.record(threads=trial.threads, problem=dict(trial.settings.problem))
        trial.record(beats=[trial.would_be_best(0.1), trial.would_be_best(0.3)])
    return float(trial.number), 0.0


def _problem() -> Problem:
    space = SearchSpace({"action": ["number", *_RETURNS, *_ERRORS]})
    objectives: Sequence[Objective] = (Objective("score"), Objective("size", "min"))
    return FunctionProblem(space, _act, objectives=objectives)


def _task(action: str, *, number: int = 0, seed: int = 0) -> Task:
    return Task({"action": action}, TrialSettings(number=number, seed=seed))

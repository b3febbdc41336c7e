"""The one interface through which trials run, and what comes back from them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol

from evonas.exceptions import FitnessError, InvalidPoint, TrialPruned
from evonas.execution.late_torch import late_torch_environment
from evonas.execution.process_state import process_state
from evonas.execution.running import RunningFile
from evonas.execution.trial import Trial, TrialSettings
from evonas.objectives import divergence, fitness_values
from evonas.problem import Problem
from evonas.records import EpochMetrics, Evaluation, Genes, Status
from evonas.space.canonical import copy_json

__all__ = [
    "Executor",
    "Outcome",
    "Task",
    "driver_threads",
    "frees_memory_after",
    "run_fused",
    "run_trial",
]


_EXIT_FORKED = 70  # EX_SOFTWARE, which Windows does not name


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to run, as plain data."""

    genes: Genes
    settings: TrialSettings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial came to, as plain data (see `Evaluation` for the fields).

    Attributes:
        attached: Whether it attached files; True also where nobody knows, as the trial was ended.
    """

    status: Status
    values: tuple[float, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    epochs: tuple[EpochMetrics, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    started_at: float = 0.0
    output: str | None = None
    attached: bool = True

    def evaluation(self, number: int, key: str, genes: Genes, seed: int, **more: Any) -> Evaluation:
        """Returns the record of a trial that came to this; `more` is what only a run knows."""
        return Evaluation(
            number, key, genes, self.status, self.values, self.metrics, self.epochs, self.seconds,
            seed, self.error, self.started_at, **more,
        )  # fmt: skip


class Executor(Protocol):
    """Runs trials. `submit` may run the trial before it returns (serial) or in another process.

    Consistency: every submitted task ends in a future with an `Outcome`, whatever the fitness
    function does; a future raises only what stops the whole search (KeyboardInterrupt).

    An executor that gathers trials before it runs them has a method `run_waiting()`, too, which the
    driver calls when it has nothing more to submit: some of the trials have ended afterwards.
    """

    @property
    def slots(self) -> int:
        """How many trials run at once."""

    @property
    def device(self) -> str:
        """Where the next submitted trial computes: `"cpu"`, `"cuda:0"`, …"""

    def start(self, problem: Problem) -> None:
        """Makes ready to run trials of `problem`; called once, before the first `submit`."""

    def submit(self, task: Task) -> Future[Outcome]:
        """Returns the future of the task's outcome."""

    def shutdown(self) -> None:
        """Abandons what runs and lets go of everything."""


def run_trial(
    problem: Problem, task: Task, *, on_report: Callable[[EpochMetrics], None] | None = None
) -> Outcome:
    """Returns what the trial of `task` came to; an exception in it becomes a status.

    Only KeyboardInterrupt passes. This is the one place that catches everything a fitness
    function may raise: the reason and the traceback go on record.
    """
    running = RunningFile(task.genes, task.settings, on_report)
    trial = Trial(task.settings, on_report=running)
    began, process = time.time(), os.getpid()

    def evaluated() -> Any:
        with _environment(problem, task.settings):
            return problem.evaluate(_own_genes(task), trial)

    try:
        return _concluded(problem, task, trial, began, evaluated)
    finally:
        if os.getpid() != process:
            _end_fork(process)
        running.remove()


def run_fused(problem: Problem, tasks: Sequence[Task]) -> list[Outcome]:
    """Returns what each of several trials came to that are trained at once.

    Raises:
        Exception: What went wrong with all of them: out of memory, shapes that differ.
    """
    files = [RunningFile(task.genes, task.settings) for task in tasks]
    trials = [Trial(task.settings, on_report=file) for task, file in zip(tasks, files, strict=True)]
    began = time.time()
    try:
        with _environment(problem, tasks[0].settings):
            found = problem.evaluate_fused([_own_genes(task) for task in tasks], trials)
    finally:
        for file in files:
            file.remove()
    return [
        _concluded(problem, task, trial, began, partial(_as_returned, each))
        for task, trial, each in zip(tasks, trials, found, strict=True)
    ]


def _as_returned(found: Any) -> Any:
    if isinstance(found, BaseException):
        raise found
    return found


def _own_genes(task: Task) -> Genes:
    """Returns a copy of the genes that a fitness function may change."""
    return {
        # Asked here: a call for each gene is 5 % of what a search itself costs.
        name: copy_json(value) if isinstance(value, (list, dict)) else value
        for name, value in task.genes.items()
    }


def _concluded(
    problem: Problem, task: Task, trial: Trial, began: float, evaluated: Callable[[], Any]
) -> Outcome:
    """Returns what a trial came to, by what `evaluated` returns or raises."""
    status, error = Status.FAILED, None
    values: tuple[float, ...] = ()
    try:
        values, metrics = fitness_values(evaluated(), problem.objectives)
        trial.record(**metrics)
        status = Status.OK
        error = divergence(values)
        if error is not None:
            status = Status.DIVERGED
    except InvalidPoint as found:
        status, error = Status.INVALID, str(found)
    except TrialPruned as found:
        status, values, error = Status.PRUNED, (found.value,), str(found)
    except FitnessError as found:
        error = str(found)
    except MemoryError:
        status, error = Status.OUT_OF_MEMORY, traceback.format_exc()
    except (Exception, SystemExit) as found:  # noqa: BLE001 (it becomes a status, with its reason)
        error = traceback.format_exc()
        if frees_memory_after(found, task.settings.device, uses_torch=problem.uses_torch):
            status = Status.OUT_OF_MEMORY
    return Outcome(
        status=status,
        values=values if status in (Status.OK, Status.PRUNED) else (),
        metrics=dict(trial.metrics),
        epochs=trial.history,
        seconds=trial.seconds,
        # A file name in a message may hold what no UTF-8 text can.
        error=error and error.encode(errors="backslashreplace").decode(),
        started_at=began,
        attached=trial.attached,
    )


def driver_threads(problem: Problem, threads: int) -> AbstractContextManager[None]:
    """Returns the context in which a driver computes with the threads of its trials, if at all."""
    if not problem.uses_torch:
        return nullcontext()
    from evonas.execution.torch_env import torch_threads  # only here is torch imported

    return torch_threads(threads)


def _environment(problem: Problem, settings: TrialSettings) -> AbstractContextManager[None]:
    if not problem.uses_torch:
        if "torch" not in sys.modules:
            return late_torch_environment(settings)
        return process_state(settings.process) if settings.process else nullcontext()
    from evonas.execution.torch_env import torch_environment  # only here is torch imported

    return torch_environment(settings)


def frees_memory_after(error: BaseException, device: str, *, uses_torch: bool) -> bool:
    """Whether memory ran out; what the trial held is then given back."""
    if not uses_torch:
        return type(error).__name__ == "OutOfMemoryError"  # that of some other library
    from evonas.execution.torch_env import free_memory, is_out_of_memory

    if not is_out_of_memory(error):
        return False
    traceback.clear_frames(error.__traceback__)  # its frames hold the tensors that filled it
    free_memory(device)
    return True


def _end_fork(parent: int) -> NoReturn:
    """Ends a child that a fitness function forked and let return: the search is its parent's."""
    text = f"evonas: process {os.getpid()} ends: a fitness function of process {parent} forked it"
    with contextlib.suppress(OSError):
        os.write(2, f"{text} and returned; end it with os._exit()\n".encode())
    os._exit(_EXIT_FORKED)

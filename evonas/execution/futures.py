"""Trials on any `concurrent.futures.Executor`: Dask, MPI, submitit, a pool of threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from evonas.arguments import check_bool, check_int, check_string
from evonas.exceptions import WorkerError
from evonas.execution.base import Outcome, Task
from evonas.execution.remote import LOAD_ERROR, NEEDS_PROBLEM, PRINTED, packed, run_remote_trial
from evonas.execution.wire import decode_outcome, encode_task
from evonas.problem import Problem
from evonas.records import Status

__all__ = ["FuturesExecutor"]


class FuturesExecutor:
    """Runs each trial as one call of an executor that is yours, and stays yours.

    The problem travels to each process once, the tasks as plain data; what trials attach travels
    back, so that no disk need be shared. Threads of one process take turns, because seeds and
    thread counts belong to the process: prefer processes, one thread each. A trial that runs
    cannot be stopped: neither by a time limit nor by Ctrl-C, which only leaves it alone.

    Args:
        pool: Any `concurrent.futures.Executor`: `client.get_executor()` of Dask, an
            `MPIPoolExecutor`, submitit's `AutoExecutor`, `ThreadPoolExecutor`, …
        slots: How many trials it runs at once. None: as many as the pool says that it has workers.
        device: Where trials compute.
        lost_retries: How often a trial whose process died is run again before it is `lost`.
        new_processes: Whether each call gets a new process, as with submitit: the problem then
            travels with every task, where it would else be asked for.

    Raises:
        TypeError: `pool` has no `submit`.
        ValueError: `slots` is needed, or a number is out of range.

    Example:
        >>> with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ...     FuturesExecutor(pool).slots
        2
    """

    def __init__(
        self,
        pool: Any,
        *,
        slots: int | None = None,
        device: str = "cpu",
        lost_retries: int = 2,
        new_processes: bool = False,
    ) -> None:
        if not callable(getattr(pool, "submit", None)):
            raise TypeError(
                f"pool must be a concurrent.futures.Executor, got {pool!r} ({type(pool).__name__})"
            )
        if slots is None:
            slots = getattr(pool, "_max_workers", None)
        if slots is None:
            raise ValueError(
                f"{type(pool).__name__} does not say how many calls it runs at once: pass "
                "FuturesExecutor(pool, slots=…)"
            )
        check_int("slots", slots, minimum=1)
        check_string("device", device)
        check_int("lost_retries", lost_retries, minimum=0)
        check_bool("new_processes", new_processes)
        self._pool = pool
        self._slots = slots
        self._device = device
        self._retries = lost_retries
        self._new_processes = new_processes
        self._problem: tuple[str, bytes] | None = None
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()  # of `_calls`

    @property
    def slots(self) -> int:
        """How many trials run at once."""
        return self._slots

    @property
    def device(self) -> str:
        """Where trials compute."""
        return self._device

    def start(self, problem: Problem) -> None:
        """Packs the problem.

        Raises:
            TypeError: It cannot be pickled.
        """
        self._problem = packed(problem)

    def submit(self, task: Task) -> Future[Outcome]:
        """Returns the future of the outcome.

        Raises:
            RuntimeError: This executor was not started, or was shut down; or the pool was.
        """
        if self._problem is None:
            raise RuntimeError("this FuturesExecutor is not started (or was shut down)")
        call = _Call(self._pool, task, self._problem, self._retries)
        try:
            call.submit(with_problem=self._new_processes)
        except RuntimeError as error:
            raise RuntimeError(
                f"{type(self._pool).__name__} takes no tasks ({error}): pass one that is running"
            ) from error
        with self._lock:
            self._calls.add(call)
        call.future.add_done_callback(functools.partial(self._forget, call))
        return call.future

    def shutdown(self) -> None:
        """Cancels what has not begun; the pool is not shut down."""
        self._problem = None
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.abandon()

    def _forget(self, call: _Call, future: object) -> None:
        with self._lock:
            self._calls.discard(call)


class _Call:
    """A task on its way through a pool, once or more often."""

    def __init__(self, pool: Any, task: Task, problem: tuple[str, bytes], retries: int) -> None:
        self.future: Future[Outcome] = Future()
        self.future.set_running_or_notify_cancel()
        self._pool = pool
        self._task = task
        self._digest, self._problem = problem
        self._data = encode_task(task)
        self._left = retries
        self._inner: Any = None
        self._with_problem = False

    def submit(self, *, with_problem: bool) -> None:
        """Hands the task to the pool.

        Raises:
            RuntimeError: The pool takes nothing any more.
        """
        self._with_problem = with_problem
        problem = self._problem if with_problem else None
        self._inner = self._pool.submit(run_remote_trial, self._digest, problem, self._data)
        if hasattr(self._inner, "add_done_callback"):
            self._inner.add_done_callback(self._done)
        else:  # submitit's jobs can only be waited for
            threading.Thread(target=self._wait, args=(self._inner,), daemon=True).start()

    def abandon(self) -> None:
        """Cancels the task, or lets it run for nothing."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.future.set_exception(concurrent.futures.CancelledError("shut down"))
        self._inner.cancel()

    def _wait(self, inner: Any) -> None:
        inner.exception()
        self._done(inner)

    def _done(self, inner: Any) -> None:
        if self.future.done():
            return  # abandoned
        try:
            outcome = self._outcome(inner)
        except BaseException as error:  # noqa: BLE001 (else nobody would hear of it)
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self.future.set_exception(error)
        else:
            if outcome is not None:
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    self.future.set_result(outcome)

    def _outcome(self, inner: Any) -> Outcome | None:
        """Returns what came of a call, or None where it is made again."""
        error = inner.exception()
        if error is not None:
            return self._again(error)
        kind, data, files = inner.result()
        if kind == NEEDS_PROBLEM:
            self.submit(with_problem=True)
            return None
        if kind == LOAD_ERROR:
            raise WorkerError(
                "the problem does not load in a process of the executor: what its functions use "
                f"must be importable there\n{data.decode()}"
            )
        printed = files.pop(PRINTED, None)
        settings = self._task.settings
        if files and settings.attachments is not None:
            _write(Path(settings.attachments), files)
        try:
            outcome = decode_outcome(data)
        except ValueError as broken:
            outcome = Outcome(Status.FAILED, error=f"the answer is broken: {broken}")
        if printed is None or settings.output is None:
            return outcome
        output = Path(settings.output)
        _write(output.parent, {output.name: printed})
        return replace(outcome, output=settings.output)

    def _again(self, error: BaseException) -> Outcome | None:
        """Runs a task once more whose call itself failed, as often as that is allowed."""
        text = f"{type(error).__name__}: {error}"
        if self._left > 0:
            self._left -= 1
            # In a thread of its own: from Python 3.13 on a pool of processes that broke calls back
            # with its lock held, which its `submit` takes.
            threading.Thread(target=self._submit_again, args=(text,), daemon=True).start()
            return None
        return _lost(text)

    def _submit_again(self, text: str) -> None:
        if self.future.done():
            return  # abandoned
        try:
            self.submit(with_problem=self._with_problem)
        except RuntimeError as refused:  # a pool of processes that broke takes nothing more
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self.future.set_result(_lost(f"{text}; then: {refused}"))


def _lost(text: str) -> Outcome:
    return Outcome(Status.LOST, error=f"the process that ran the trial was lost ({text})")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)

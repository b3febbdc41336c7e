"""Trials one at a time, in this process."""

from __future__ import annotations

import random
import threading
import warnings
from concurrent.futures import Future
from typing import Any

import numpy as np

from evonas.arguments import check_string
from evonas.execution.base import Outcome, Task, run_trial
from evonas.problem import Problem

__all__ = ["SerialExecutor"]


_searching: list[int] = []  # the thread of each search whose trials run in this process


class SerialExecutor:
    """Runs each trial inside `submit`.

    Python's and NumPy's global random generators are seeded for each trial, so that a fitness
    function that draws from them gives the same result in every run; `shutdown` restores them.
    Threads share these generators: where another search runs trials in this process, in another
    thread, `start` warns.

    Args:
        device: Where trials compute.

    Example:
        >>> executor = SerialExecutor()
        >>> executor.slots
        1
    """

    def __init__(self, device: str = "cpu") -> None:
        check_string("device", device)
        self._device = device
        self._problem: Problem | None = None
        self._thread = 0
        self._python_state: tuple[Any, ...] | None = None
        self._numpy_generator: Any = None
        self._numpy_state: Any = None

    @property
    def slots(self) -> int:
        """One."""
        return 1

    @property
    def device(self) -> str:
        """Where trials compute."""
        return self._device

    def start(self, problem: Problem) -> None:
        """Keeps the problem, and the caller's random states until `shutdown`."""
        _warn_of_other_threads()
        self._problem = problem
        self._thread = threading.get_ident()
        _searching.append(self._thread)
        self._python_state = random.getstate()
        self._numpy_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
        self._numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 (the global one)
        if not isinstance(self._numpy_generator, np.random.MT19937):  # `seed` would refuse it
            np.random.set_bit_generator(np.random.MT19937())  # type: ignore[attr-defined]

    def submit(self, task: Task) -> Future[Outcome]:
        """Runs the trial and returns its finished future.

        Raises:
            RuntimeError: The executor was not started, or was shut down.
        """
        if self._problem is None:
            raise RuntimeError("this SerialExecutor is not started (or was shut down)")
        # Once a trial, restored once a search: saving both states each time would cost more
        # than everything else that the search does for a cheap fitness function.
        random.seed(task.settings.seed)
        np.random.seed(task.settings.seed)  # noqa: NPY002
        future: Future[Outcome] = Future()
        future.set_result(run_trial(self._problem, task))
        return future

    def shutdown(self) -> None:
        """Restores the caller's random states."""
        if self._python_state is not None:
            _searching.remove(self._thread)
            random.setstate(self._python_state)
            np.random.set_bit_generator(self._numpy_generator)  # type: ignore[attr-defined]
            np.random.set_state(self._numpy_state)  # noqa: NPY002
        self._problem = self._python_state = self._numpy_generator = self._numpy_state = None


def _warn_of_other_threads() -> None:
    if set(_searching) - {threading.get_ident()}:
        warnings.warn(
            "two searches run trials in threads of one process, which has one random generator of "
            "Python, of NumPy and of torch: results depend on which is when; give each search "
            "workers=2 or more, or a process of its own",
            RuntimeWarning,
            stacklevel=3,
        )

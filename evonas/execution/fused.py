"""Trials in this process, several of one shape at once."""

from __future__ import annotations

import logging
import random
from concurrent.futures import Future

import numpy as np

from evonas.arguments import check_int
from evonas.exceptions import FusionError
from evonas.execution.base import Outcome, Task, frees_memory_after, run_fused, run_trial
from evonas.execution.serial import SerialExecutor

__all__ = ["MOST_FUSED", "FusedExecutor"]

_log = logging.getLogger(__name__)

MOST_FUSED = 1024
"""Candidates that may be trained at once."""

_GATHERED = 4  # times as many candidates as are trained at once, to find some of one shape among


class FusedExecutor(SerialExecutor):
    """Gathers trials and trains those of one shape at once.

    Small networks leave a GPU idle between its kernels; several of one shape share each kernel.
    They may differ in all that changes no shape: learning rate, momentum, weight decay, dropout,
    label smoothing, schedule, epochs, seed. Each is an ordinary trial, with its own reports,
    pruning and record (its `seconds` are those of the whole group, and the metric `fused` says how
    many it was), and comes to what it comes to alone, up to rounding. So a search is not
    bit-identical to one without, nor after an interruption, which groups anew what is left.

    Trials without another of their shape are trained alone. So are those of a group that runs out
    of memory (the next groups of that shape are half as large) or fails as a group, with a warning;
    an error of one of them then is that one's.

    Args:
        most: How many are trained at once.
        device: Where trials compute.
        threads: With how many threads, on the CPU. None: the cores are shared out.

    Raises:
        TypeError, ValueError: `most` is not an int from 2 to 1024.

    Example:
        >>> executor = FusedExecutor(8)
        >>> executor.slots
        32
    """

    def __init__(self, most: int, device: str = "cpu", *, threads: int | None = None) -> None:
        super().__init__(device)
        check_int("most", most, minimum=2, maximum=MOST_FUSED)
        if threads is not None:
            check_int("threads", threads, minimum=1)
        self.most, self.threads_per_trial = most, threads
        self._waiting: list[tuple[Task, str | None, Future[Outcome]]] = []  # with the shape's key
        self._limits: dict[str, int] = {}  # of groups, by key

    @property
    def slots(self) -> int:
        """How many trials are gathered: four times as many as are trained at once."""
        return _GATHERED * self.most

    def submit(self, task: Task) -> Future[Outcome]:
        """Returns the future of a trial that `run_waiting`, or asking for its result, runs.

        Raises:
            RuntimeError: The executor was not started, or was shut down.
        """
        if self._problem is None:
            raise RuntimeError("this FusedExecutor is not started (or was shut down)")
        future: Future[Outcome] = _Waiting(self)
        self._waiting.append((task, self._key(task), future))
        return future

    def run_waiting(self) -> None:
        """Runs the trial that has waited longest, and at once those of its shape."""
        waiting = [entry for entry in self._waiting if not entry[2].cancelled()]
        if not waiting:
            self._waiting = []
            return
        key = waiting[0][1]
        most = 1 if key is None else self._limits.get(key, self.most)
        places = [place for place, entry in enumerate(waiting) if entry[1] == key][:most]
        group = [waiting[place] for place in places]
        self._waiting = [entry for place, entry in enumerate(waiting) if place not in places]
        outcomes = self._together([task for task, _, _ in group], key)
        for number, (task, _, future) in enumerate(group):
            future.set_result(self._alone(task) if outcomes is None else outcomes[number])

    def shutdown(self) -> None:
        """Cancels what waits; restores the caller's random states."""
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting = []
        super().shutdown()

    def _key(self, task: Task) -> str | None:
        """Returns what trials share that can be trained at once; None: this one is alone."""
        if self._problem is None or self._problem.fusion_obstacle() is not None:
            return None
        try:
            return self._problem.fusion_key(task.genes)
        except Exception:  # noqa: BLE001 (of the user's model: alone, it becomes a status)
            return None

    def _together(self, tasks: list[Task], key: str | None) -> list[Outcome] | None:
        """Returns the outcomes of several trials; None: they must be run one by one."""
        if len(tasks) < 2 or key is None or self._problem is None:
            return None
        self._seed(tasks[0])
        try:
            return run_fused(self._problem, tasks)
        except Exception as error:  # noqa: BLE001 (each is run alone, where it becomes a status)
            if frees_memory_after(error, self.device, uses_torch=self._problem.uses_torch):
                self._limits[key] = max(1, len(tasks) // 2)
                reason = f"{self.device} has too little memory for them at once"
            else:
                self._limits[key] = 1
                kind = "" if isinstance(error, FusionError) else f"{type(error).__name__}: "
                reason = f"{kind}{error}"
        _log.warning("%d candidates of one shape are trained one by one: %s", len(tasks), reason)
        return None

    def _alone(self, task: Task) -> Outcome:
        if self._problem is None:
            raise RuntimeError("this FusedExecutor is not started (or was shut down)")
        self._seed(task)
        return run_trial(self._problem, task)

    def _seed(self, task: Task) -> None:
        random.seed(task.settings.seed)
        np.random.seed(task.settings.seed)  # noqa: NPY002


class _Waiting(Future[Outcome]):
    """The future of a trial that runs when somebody asks for its result."""

    def __init__(self, executor: FusedExecutor) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout: float | None = None) -> Outcome:
        """Runs what waits until this trial has ended."""
        while not self.done():
            self._executor.run_waiting()
        return super().result(timeout)

"""Trials in worker processes on this machine."""

from __future__ import annotations

import atexit
import time
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from evonas.arguments import check_int, check_list, check_number, check_one_of
from evonas.execution.base import Outcome, Task
from evonas.execution.payload import Payload
from evonas.execution.slot import DeviceGate, Job, Slot
from evonas.problem import Problem

__all__ = ["MOST_WORKERS", "ProcessExecutor", "check_devices"]

_SHUTDOWN_SECONDS = 10.0


MOST_WORKERS = 10_000
_LONGEST_SECONDS = 10**9  # 31 years: the clock of a wait goes no further


def check_devices(devices: Any) -> list[str]:
    """Returns a list of device names; refuses all else.

    Raises:
        TypeError: It is no list, or one of it is no string.
        ValueError: It is empty.
    """
    names = check_list("devices", devices, "device names, like 'cpu' or 'cuda:0'")
    for name in names:
        check_one_of("an entry of devices", name, str, "a device's name, like 'cpu' or 'cuda:0'")
    if not names:
        raise ValueError("devices must be a list of at least one name, got none")
    return names


class ProcessExecutor:
    """Runs each trial in one of several long-lived worker processes.

    A worker gets the problem once, when it starts, and shares its large arrays and tensors with
    the other workers. It is replaced when it dies, or when its trial takes too long; the others go
    on. What a trial prints goes to the file that its settings name.

    Args:
        workers: How many trials run at once.
        devices: Where they compute, shared out over the workers in turn.
        trial_timeout: Seconds after which a trial is stopped (`timeout`). None: never.
        lost_retries: How often a trial whose process died is run again before it is `lost`.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Example:
        >>> executor = ProcessExecutor(4, devices=["cuda:0", "cuda:1"], trial_timeout=600)
        >>> executor.slots
        4
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        devices: Sequence[str] = ("cpu",),
        trial_timeout: float | None = None,
        lost_retries: int = 2,
    ) -> None:
        check_int("workers", workers, minimum=1, maximum=MOST_WORKERS)
        check_int("lost_retries", lost_retries, minimum=0)
        if trial_timeout is not None:
            check_number("trial_timeout", trial_timeout, above=0, maximum=_LONGEST_SECONDS)
        self._devices = tuple(check_devices(devices))
        self._workers = workers
        self._timeout = trial_timeout
        self._retries = lost_retries
        self._payload: Payload | None = None
        self._slots: list[Slot] = []
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()

    @property
    def slots(self) -> int:
        """How many trials run at once."""
        return self._workers

    @property
    def device(self) -> str:
        """The first device; each trial gets that of its worker."""
        return self._devices[0]

    def start(self, problem: Problem) -> None:
        """Packs the problem; each worker starts with its first trial.

        Raises:
            TypeError: The problem cannot be pickled.
            RuntimeError: It is started already.
        """
        if self._payload is not None:
            raise RuntimeError("this ProcessExecutor is started already: shut it down first")
        try:
            self._payload = Payload(problem)
        except TypeError as error:
            raise TypeError(
                f"the problem cannot be sent to worker processes ({error}): make or open what "
                "cannot be pickled (locks, files, connections) inside the fitness function, or "
                "pass workers=1"
            ) from error
        self._jobs = SimpleQueue()
        gates = {device: DeviceGate(device) for device in self._devices}
        for index in range(self._workers):
            slot = Slot(
                str(index),
                self._jobs,
                self._payload,
                gates[self._devices[index % len(self._devices)]],
                timeout=self._timeout,
                lost_retries=self._retries,
            )
            self._slots.append(slot)
        for slot in self._slots:
            slot.start()
        # Before multiprocessing's own, which would wait for the workers.
        atexit.register(self.shutdown)

    def submit(self, task: Task) -> Future[Outcome]:
        """Returns the future of the outcome; the next free worker runs the task.

        Raises:
            RuntimeError: The executor was not started, or was shut down.
        """
        if self._payload is None:
            raise RuntimeError("this ProcessExecutor is not started (or was shut down)")
        future: Future[Outcome] = Future()
        self._jobs.put((task, future))
        return future

    def shutdown(self) -> None:
        """Kills the workers that run a trial, lets the others end, and cancels all futures."""
        atexit.unregister(self.shutdown)
        slots, self._slots = self._slots, []
        payload, self._payload = self._payload, None
        for slot in slots:  # all of them before waiting for any
            slot.abandon()
        for _ in slots:
            self._jobs.put(None)
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for slot in slots:
            slot.join(max(0.0, deadline - time.monotonic()))
        if payload is not None:
            payload.close()

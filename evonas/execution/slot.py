"""One place for a trial: a thread with its worker process, which it replaces when that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from evonas.execution.base import Outcome, Task
from evonas.execution.output import salvage
from evonas.execution.payload import Payload
from evonas.execution.running import forget
from evonas.execution.wire import decode_outcome, encode_task
from evonas.execution.worker_process import TrialTimeout, WorkerDied, WorkerProcess
from evonas.records import EpochMetrics, Status

__all__ = ["DeviceGate", "Job", "Slot"]

Job = tuple[Task, "Future[Outcome]"]


class _Abandoned(Exception):
    """The executor is shutting down."""


class Slot(threading.Thread):
    """Takes tasks from a queue, None being the last, and runs each in its worker process.

    Args:
        name: The worker's name.
        jobs: Shared with the other slots.
        payload: The problem.
        gate: Of the device on which the slot's trials compute.
        timeout: Seconds for a trial.
        lost_retries: How often a trial whose process died is run again.
    """

    def __init__(
        self,
        name: str,
        jobs: SimpleQueue[Job | None],
        payload: Payload,
        gate: DeviceGate,
        *,
        timeout: float | None,
        lost_retries: int,
    ) -> None:
        super().__init__(name=f"evonas slot {name}", daemon=True)
        self._worker_name = name
        self._jobs = jobs
        self._payload = payload
        self._gate = gate
        self._timeout = timeout
        self._retries = lost_retries
        self._worker: WorkerProcess | None = None
        self._lock = threading.Lock()  # of `_worker` and `is_abandoned`
        self.is_abandoned = False
        gate.join(self)

    def run(self) -> None:
        """Serves tasks until the queue says None."""
        for task, future in iter(self._jobs.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._outcome(task))
            except _Abandoned:
                future.set_exception(CancelledError("the executor was shut down"))
            except BaseException as error:  # noqa: BLE001 (the driver must hear of it)
                future.set_exception(error)
        self.dismiss()

    def abandon(self) -> None:
        """Gives up the trial that runs, if any, and all that are to come."""
        with self._lock:
            self.is_abandoned = True
            if self._worker is not None and self._gate.holds(self):
                self._worker.kill()
        self._gate.wake()

    def dismiss(self) -> None:
        """Ends the worker, which must be idle; the next trial starts another."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _outcome(self, task: Task) -> Outcome:
        task = replace(task, settings=replace(task.settings, device=self._gate.device))
        try:
            data = encode_task(task)
        except TypeError as error:
            return Outcome(Status.FAILED, error=f"the genes are not JSON: {error}")
        output = task.settings.output
        if output is not None:
            Path(output).unlink(missing_ok=True)  # of a start of the search that was killed
        with self._gate.shared(self):
            outcome = self._tried(data, output)
        if outcome.status is Status.OUT_OF_MEMORY and self._gate.has_neighbours:
            # Not the trial's fault, perhaps: the neighbours' trainings were in the way.
            with self._gate.alone(self):
                outcome = self._tried(data, output)
        return outcome

    def _tried(self, data: bytes, output: str | None) -> Outcome:
        """Returns the outcome of a trial, which is run again while its process dies."""
        for left in reversed(range(self._retries + 1)):
            if self.is_abandoned:
                raise _Abandoned
            epochs: list[EpochMetrics] = []
            began, clock = time.time(), time.monotonic()
            status = Status.LOST
            try:
                worker = self._ready_worker()
                began, clock = time.time(), time.monotonic()
                answer = worker.run(data, timeout=self._timeout, on_epoch=epochs.append)
                return self._judged(decode_outcome(answer))
            except TrialTimeout:
                status = Status.TIMEOUT
                error = f"stopped after trial_timeout={self._timeout} seconds"
            except WorkerDied as death:
                error = f"the worker process {death}"
                if self._retries:
                    error += f"; run again {self._retries} times, it ended in the same way"
            except ValueError as found:
                status, error = Status.FAILED, f"the worker's answer is broken: {found}"
            self._give_up_worker()
            if status is not Status.LOST or left == 0:
                break
        kept, printed = salvage(output)
        forget(output)
        return Outcome(
            status,
            epochs=tuple(epochs),
            seconds=time.monotonic() - clock,
            error=f"{error}\nThe last that it printed:\n{printed}" if printed else error,
            started_at=began,
            output=kept,
        )

    def _judged(self, outcome: Outcome) -> Outcome:
        if outcome.status is Status.FAILED and "CUDA" in (outcome.error or ""):
            # After an error of its own (an assertion on the device) a CUDA context fails for ever.
            self.dismiss()
        return outcome

    def _ready_worker(self) -> WorkerProcess:
        with self._lock:
            if self.is_abandoned:
                raise _Abandoned
            if self._worker is None:
                self._worker = WorkerProcess(self._payload, self._worker_name)
            worker = self._worker
        worker.await_ready()
        return worker

    def _give_up_worker(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.stop()
        if self.is_abandoned:
            raise _Abandoned


class DeviceGate:
    """Lets the trials of one device run side by side, or one of them alone.

    Args:
        device: The device, by name.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._slots: list[Slot] = []
        self._running: set[Slot] = set()
        self._is_closed = False  # for one alone
        self._changed = threading.Condition()

    @property
    def has_neighbours(self) -> bool:
        """Whether a trial alone would have more of the device's memory."""
        return self.device != "cpu" and len(self._slots) > 1

    def join(self, slot: Slot) -> None:
        """Makes a slot one of those that share the device."""
        self._slots.append(slot)

    def holds(self, slot: Slot) -> bool:
        """Whether the slot runs a trial."""
        return slot in self._running

    def wake(self) -> None:
        """Has those who wait look whether they are abandoned."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def shared(self, slot: Slot) -> Iterator[None]:
        """Runs a block while no other slot is alone."""
        with self._changed:
            self._wait(slot, lambda: not self._is_closed)
            self._running.add(slot)
        try:
            yield
        finally:
            with self._changed:
                self._running.discard(slot)
                self._changed.notify_all()

    @contextmanager
    def alone(self, slot: Slot) -> Iterator[None]:
        """Runs a block while no other slot runs a trial, nor has a worker that holds memory."""
        with self._changed:
            self._wait(slot, lambda: not self._is_closed)
            self._is_closed = True
        try:
            with self._changed:
                self._wait(slot, lambda: not self._running)
                self._running.add(slot)
            for other in self._slots:
                if other is not slot:
                    other.dismiss()
            yield
        finally:
            with self._changed:
                self._is_closed = False
                self._running.discard(slot)
                self._changed.notify_all()

    def _wait(self, slot: Slot, ready: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: ready() or slot.is_abandoned)
        if slot.is_abandoned:
            raise _Abandoned

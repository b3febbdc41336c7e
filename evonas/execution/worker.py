"""What runs in a worker process: one trial after the other, until the driver hangs up."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection

import numpy as np

from evonas.execution.base import Outcome, Task, run_trial
from evonas.execution.output import OutputFile
from evonas.execution.payload import Payload, unpack
from evonas.execution.system import end_group, lead_a_group, take_signals
from evonas.execution.wire import decode_task, encode_epoch, encode_outcome
from evonas.problem import Problem
from evonas.records import EpochMetrics, Status

__all__ = ["EPOCH", "LOAD_ERROR", "OUTCOME", "READY", "run_seeded_trial", "work"]

READY, LOAD_ERROR, EPOCH, OUTCOME = b"r", b"x", b"e", b"o"
"""First byte of each message to the driver; what follows is text or JSON."""

_BOUND_SECONDS = 1.0  # between two looks at how much a trial has printed


def work(channel: Connection, payload: Payload) -> None:
    """Runs trials: the body of a worker process.

    Reads tasks from `channel` and answers each with its epochs and its outcome, as bytes; ends
    when the driver closes its side, and at once when the driver's process ends. Ctrl-C is the
    driver's business.

    Args:
        channel: To the driver.
        payload: The problem.
    """
    companion = _Companion()
    signal.signal(signal.SIGINT, _ignore)  # not SIG_IGN, which subprocesses would inherit
    take_signals()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=channel.close)  # else it would outlive this process
    with contextlib.suppress(AttributeError, ValueError, OSError):  # where there is no stderr
        faulthandler.enable()  # a segmentation fault leaves its traceback in the trial's output
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        problem: Problem = unpack(payload)
        payload.close()
    except BaseException:  # noqa: BLE001 (whatever it is, the driver must hear of it)
        channel.send_bytes(LOAD_ERROR + traceback.format_exc().encode(errors="backslashreplace"))
        return
    channel.send_bytes(READY)
    with contextlib.suppress(EOFError, OSError):  # the driver hung up
        _serve(channel, problem, companion)


def _serve(channel: Connection, problem: Problem, companion: _Companion) -> None:
    is_prepared = False

    def report(row: EpochMetrics) -> None:
        channel.send_bytes(EPOCH + encode_epoch(row))

    while True:
        task = decode_task(channel.recv_bytes())
        if not is_prepared and problem.uses_torch:
            _prepare_torch(task)
            is_prepared = True
        with companion.printing_to(task.settings.output) as output:
            outcome = run_seeded_trial(problem, task, on_report=report)
        # Known only now: a trial that printed nothing has no file.
        channel.send_bytes(OUTCOME + _encoded(replace(outcome, output=output.path)))


def _prepare_torch(task: Task) -> None:
    from evonas.execution.torch_env import prepare

    settings = task.settings
    with contextlib.suppress(ValueError):  # no such device: the trial itself will say so
        # Before torch computes anything: later it takes some thread counts no more.
        prepare(
            settings.seed, settings.threads, settings.device, deterministic=settings.deterministic
        )


def run_seeded_trial(
    problem: Problem, task: Task, *, on_report: Callable[[EpochMetrics], None] | None = None
) -> Outcome:
    """Returns what a trial came to, for a process that only runs trials; nothing passes.

    Seeds Python's and NumPy's global generators and leaves them where the trial does.
    """
    random.seed(task.settings.seed)
    np.random.seed(task.settings.seed)  # noqa: NPY002 (a fitness function may draw from it)
    try:
        return run_trial(problem, task, on_report=on_report)
    except BaseException:  # noqa: BLE001 (KeyboardInterrupt raised by the trial, GeneratorExit, …)
        return Outcome(Status.FAILED, error=traceback.format_exc())


def _encoded(outcome: Outcome) -> bytes:
    try:
        return encode_outcome(outcome)
    except (TypeError, ValueError):
        error = f"the outcome of the trial is not JSON\n{traceback.format_exc()}"
        return encode_outcome(Outcome(Status.FAILED, seconds=outcome.seconds, error=error))


class _Companion:
    """A thread beside the trials: it ends the process with its parent, and bounds its output.

    The process leads a group of its own, which takes its children along when it ends and keeps
    the terminal's Ctrl-C away from it.
    """

    def __init__(self) -> None:
        parent = parent_process()
        if parent is None:
            raise RuntimeError("a worker must be started as a process of multiprocessing")
        self._sentinel = parent.sentinel
        lead_a_group(self._sentinel)
        self._output: OutputFile | None = None
        threading.Thread(target=self._watch, name="evonas companion", daemon=True).start()

    def _watch(self) -> None:
        while not connection.wait([self._sentinel], timeout=_BOUND_SECONDS):
            output = self._output
            if output is not None:
                with contextlib.suppress(OSError):  # a full disk: the next look may do better
                    output.bound()
        end_group()

    @contextmanager
    def printing_to(self, path: str | None) -> Iterator[OutputFile]:
        """Sends what is printed inside to a bounded file; where that fails, nowhere else."""
        output = OutputFile(path)
        try:
            output.__enter__()
        except OSError:  # a full disk must not look like a fault of the trial
            output = OutputFile(None)
        self._output = output
        try:
            yield output
        finally:
            self._output = None
            output.__exit__()


def _ignore(number: int, frame: object) -> None:
    """Does nothing on Ctrl-C."""

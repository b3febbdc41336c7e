"""A worker process as the driver sees it: start, run one trial, end.

Processes of `multiprocessing` with a pipe each, and not a pool such as Pebble's: its workers share
one pipe and its locks, so that `kill -9` of one ends the pool with every trial in it, and a trial
that calls `os._exit(0)` is waited for for ever (both tried with Pebble 5.2.3).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import current_process

from evonas.exceptions import WorkerError
from evonas.execution.payload import Payload
from evonas.execution.system import Waiter, blocked_signals, kill_group
from evonas.execution.wire import decode_epoch
from evonas.execution.worker import EPOCH, LOAD_ERROR, OUTCOME, READY, work
from evonas.records import EpochMetrics

__all__ = ["TrialTimeout", "WorkerDied", "WorkerProcess", "refuse_unguarded_main"]

_NAME = "evonas worker"
_EXIT_UNGUARDED = 67  # of a worker in which the user's script calls evolve while it is imported
_GUARD = (
    "evolve() is called whenever this script is imported, and worker processes import it: put the "
    'call under `if __name__ == "__main__":`'
)
_STOP_SECONDS = 2.0  # for a worker to end by itself before it is killed

# Processes are started one at a time: the signal mask and multiprocessing's list of children.
_starting = threading.Lock()


class WorkerDied(Exception):
    """The process ended before it answered; the message says how."""


class TrialTimeout(Exception):
    """The trial took too long; its process was killed."""


def refuse_unguarded_main() -> None:
    """Raises where a script calls evonas while a spawned process imports it anew.

    Raises:
        RuntimeError: The `__main__` guard is missing.
    """
    # As multiprocessing itself finds it out, in _check_not_importing_main.
    if not getattr(current_process(), "_inheriting", False):
        return
    if current_process().name.startswith(_NAME):
        raise SystemExit(_EXIT_UNGUARDED)  # the driver says it, once for all its workers
    raise RuntimeError(_GUARD)


class WorkerProcess:
    """One worker process; `await_ready`, then `run` one trial after the other.

    Thread safety: `kill` may be called from any thread, all else from one.

    Args:
        payload: The problem.
        name: Distinguishes the worker in lists of processes.

    Raises:
        WorkerError: The system has no room for another process.
    """

    def __init__(self, payload: Payload, name: str = "0") -> None:
        context = multiprocessing.get_context("spawn")  # never fork: threads and CUDA exist by now
        try:
            self._channel, theirs = context.Pipe()
            self._process = context.Process(
                target=work, args=(theirs, payload), name=f"{_NAME} {name}"
            )
            with _starting, blocked_signals():
                self._process.start()
            theirs.close()
        except OSError as error:
            raise WorkerError(
                f"a worker process cannot be started ({error}): raise the limit (`ulimit -n`, "
                "`ulimit -u`), or give fewer workers"
            ) from error
        self._messages = Waiter(self._channel, self._process.sentinel)
        self._is_ready = False

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid or 0

    def await_ready(self) -> None:
        """Waits until the process has loaded the problem, the first time.

        Raises:
            WorkerDied: The process was killed.
            WorkerError: The process cannot load the problem, or does not even start.
        """
        if self._is_ready:
            return
        message = self._receive(None)
        if message[:1] == LOAD_ERROR:
            raise WorkerError(
                "the problem does not load in a worker process: what its functions use must be "
                f"importable there\n{message[1:].decode()}"
            )
        self._is_ready = message[:1] == READY

    def run(
        self,
        task: bytes,
        *,
        timeout: float | None = None,
        on_epoch: Callable[[EpochMetrics], None] | None = None,
    ) -> bytes:
        """Returns the outcome of a trial, as bytes; the process must be ready.

        Args:
            task: Of `encode_task`.
            timeout: Seconds that the trial may take.
            on_epoch: Called with each row that the trial reports, when it reports it.

        Raises:
            WorkerDied: The process ended.
            TrialTimeout: The trial took longer; the process was killed.
        """
        try:
            self._channel.send_bytes(task)
        except OSError:
            raise self._death() from None
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            message = self._receive(deadline)
            if message[:1] == OUTCOME:
                return message[1:]
            if message[:1] == EPOCH and on_epoch is not None:
                on_epoch(decode_epoch(message[1:]))

    def stop(self) -> None:
        """Lets an idle process end by itself, and kills it where it does not."""
        self._channel.close()
        self._await_end(_STOP_SECONDS)
        self.kill()
        self._await_end()

    def kill(self) -> None:
        """Kills the process and its children, at once."""
        if self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        kill_group(self.pid)  # also where the worker itself is gone: children may not be

    def _receive(self, deadline: float | None) -> bytes:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        with contextlib.suppress(EOFError, OSError):
            has_message = self._messages.wait(timeout)
            if has_message:
                return self._channel.recv_bytes()
            if has_message is None:
                self.kill()
                raise TrialTimeout
        raise self._death()

    def _death(self) -> Exception:
        """Returns what the end of the process means."""
        hung_up = not self._await_end(_STOP_SECONDS)
        self.kill()
        self._await_end()
        code = self._process.exitcode
        if hung_up:
            return WorkerDied("closed its connection to the driver")
        if code is not None and code < 0:
            return WorkerDied(f"was killed by {_signal_name(-code)}")
        if self._is_ready:
            return WorkerDied(f"ended itself with exit status {code}")
        if code == _EXIT_UNGUARDED:
            return WorkerError(f"{_script()}: {_GUARD}")
        return WorkerError(
            f"a worker process ended before it was ready, with exit status {code}; what it wrote "
            f"stands above. It imports {_script()} anew: everything there that is to run once "
            'belongs under `if __name__ == "__main__":`'
        )

    def _await_end(self, seconds: float = 10.0) -> bool:
        """Returns whether the process ended in time."""
        # Not `join`: it waits for a pipe to close that children of the process hold open too.
        deadline = time.monotonic() + seconds
        while self._process.exitcode is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _script() -> str:
    return str(getattr(sys.modules["__main__"], "__file__", None) or "the main module")

"""What operating systems do differently with processes: groups, signals, and waiting for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import connection
from typing import Any

__all__ = [
    "Waiter",
    "blocked_signals",
    "end_group",
    "kill_group",
    "lead_a_group",
    "take_signals",
]

_SIGNALS = {signal.SIGINT, signal.SIGTERM}

if sys.platform == "win32":

    def lead_a_group(sentinel: Any) -> None:
        """Nothing: a process is found with its children when they are ended."""

    def kill_group(pid: int) -> None:
        """Ends a process and its children."""
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False)

    def end_group() -> None:
        """Ends this process, and the children that it started."""
        kill_group(os.getpid())
        os._exit(1)

    @contextlib.contextmanager
    def blocked_signals() -> Iterator[None]:
        """Nothing: there is no mask of signals."""
        yield

    def take_signals() -> None:
        """Nothing: none is blocked."""

else:
    import fcntl
    from multiprocessing import resource_tracker

    def lead_a_group(sentinel: Any) -> None:
        """Makes this process lead a group, which Linux kills when `sentinel` is closed.

        A thread that waits for it needs the interpreter's lock, and C code may hold that for hours.
        """
        os.setpgid(0, 0)
        if not hasattr(fcntl, "F_SETSIG"):
            return
        with contextlib.suppress(OSError):  # a sandbox may refuse it: a thread waits too
            fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpgid(0))
            fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(sentinel, fcntl.F_GETFL)
            fcntl.fcntl(sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)

    def kill_group(pid: int) -> None:
        """Kills the processes of a group, at once, whether its leader is there or not."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    def end_group() -> None:
        """Kills this process and its group."""
        os.killpg(0, signal.SIGKILL)

    @contextlib.contextmanager
    def blocked_signals() -> Iterator[None]:
        """Blocks Ctrl-C and SIGTERM for a process started inside, until it takes them itself.

        So that a Ctrl-C that comes while it imports does not end it with a traceback.
        """
        resource_tracker.ensure_running()  # started with the first process, it would unblock them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take_signals() -> None:
        """Unblocks what `blocked_signals` blocked where this process was started."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class Waiter:
    """Waits for a message of a process, or for its end.

    Args:
        channel: On which messages come.
        sentinel: Of the process.
    """

    def __init__(self, channel: Any, sentinel: int) -> None:
        self._channel, self._sentinel = channel, sentinel
        self._poll: Any = None
        if sys.platform != "win32":
            import select

            # Kept, where connection.wait would make one for each message: 0.1 ms.
            self._poll = select.poll()
            for source in (channel.fileno(), sentinel):
                self._poll.register(source, select.POLLIN)

    def wait(self, seconds: float | None) -> bool | None:
        """Returns whether a message is there; None: after so many seconds neither.

        False where the process has ended and left none.
        """
        if self._poll is None:
            if not connection.wait([self._channel, self._sentinel], seconds):
                return None
        elif not self._poll.poll(None if seconds is None else 1000 * seconds):
            return None
        return bool(self._channel.poll())

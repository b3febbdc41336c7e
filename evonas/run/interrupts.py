"""Ctrl-C and SIGTERM end a search cleanly: the trial in hand is abandoned, nothing else is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Makes the first signal a request to stop, the second an immediate KeyboardInterrupt.

    Inside `raising()` (where a trial runs) the first one raises at once as well. Outside the main
    thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._raises = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While inside, a signal raises KeyboardInterrupt where it strikes."""
        self._raises = True  # before the check: a signal between the two must not be overlooked
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.received is not None:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self.received is not None
        self.received = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if repeated or self._raises:
            raise KeyboardInterrupt

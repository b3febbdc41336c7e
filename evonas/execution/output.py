"""What a trial prints, in a file of its own: bounded, and complete when the process dies."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

__all__ = ["MAX_BYTES", "OutputFile", "bound", "salvage"]

MAX_BYTES = 256 << 10
"""Past this, the middle of a file is dropped."""

_HEAD, _TAIL = MAX_BYTES // 4, MAX_BYTES // 2
_SHOWN = 4000  # bytes at the end of which an error is made


class OutputFile:
    """Sends this process's stdout and stderr to a file, those of C code and of children too.

    The descriptors 1 and 2 themselves are redirected, straight to the file: what was written is
    there when the process is killed, and a segmentation fault's traceback too.

    Args:
        path: The file; made with its folder, or appended to. None: nothing is redirected.

    Raises:
        OSError: The file cannot be made.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "output" / "3.txt"
        >>> with OutputFile(str(path)) as output:
        ...     _ = os.write(1, b"from the trial")
        >>> path.read_text(), output.path == str(path)
        ('from the trial', True)
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._saved: list[tuple[int, int]] = []
        # A closed descriptor's number is given to the next file opened: `bound` must not meet it.
        self._lock = threading.Lock()

    def __enter__(self) -> OutputFile:
        if self.path is not None:
            self._descriptor = _open(Path(self.path))
            _flush()
            try:
                for target in (1, 2):
                    self._saved.append((target, os.dup(target)))
                    os.dup2(self._descriptor, target)
            except OSError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the redirection; a file that stayed empty is removed and `path` becomes None."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or self.path is None:
            return
        _flush()
        for target, saved in self._saved:
            os.dup2(saved, target)
            os.close(saved)
        self._saved.clear()
        bound(descriptor)
        is_empty = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        if is_empty:
            Path(self.path).unlink(missing_ok=True)
            self.path = None

    def bound(self) -> None:
        """Bounds the file while the trial still writes (from another thread)."""
        with self._lock:
            if self._descriptor is not None:
                bound(self._descriptor)


def bound(descriptor: int) -> None:
    """Drops the middle of a file that is larger than `MAX_BYTES`."""
    size = os.fstat(descriptor).st_size
    if size <= MAX_BYTES:
        return
    end = _read(descriptor, _TAIL, size - _TAIL)
    os.ftruncate(descriptor, _HEAD)
    left_out = f"\n[… {size - _HEAD - _TAIL} bytes left out …]\n".encode()
    os.write(descriptor, left_out + end)  # opened for appending: behind what is kept


def salvage(path: str | None) -> tuple[str | None, str]:
    """Returns the file and the last lines of what a trial printed whose process died.

    Bounds the file; removes an empty one, and returns None for it.
    """
    if path is None or not Path(path).is_file():
        return None, ""
    descriptor = _open(Path(path))
    try:
        bound(descriptor)
        size = os.fstat(descriptor).st_size
        last = _read(descriptor, _SHOWN, max(0, size - _SHOWN))
    finally:
        os.close(descriptor)
    if size == 0:
        Path(path).unlink(missing_ok=True)
        return None, ""
    return path, last.decode(errors="replace")


def _read(descriptor: int, n_bytes: int, start: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)  # what is written goes to the end all the same
    return os.read(descriptor, n_bytes)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o644)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None without a terminal; a trial may have closed or replaced it.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()

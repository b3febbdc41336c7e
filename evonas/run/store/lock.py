"""One driver per run: a lock that the kernel lets go of when the process ends, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from evonas.exceptions import RunInUseError, RunStorageError

__all__ = ["LOCK", "RunLock", "is_held"]

LOCK = "run.lock"
"""The file's name in a run's directory."""

# POSIX record locks belong to the process: a second evolve in this one would be let in.
_held: set[str] = set()


class RunLock:
    """Holds `path` exclusively until `release` or the end of the process.

    A POSIX record lock rather than flock: children forked by a fitness function (a DataLoader's
    workers) do not inherit it, so a leftover of theirs cannot keep a killed run locked.

    Raises:
        RunInUseError: Another driver holds it.
        RunStorageError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path.resolve())
        if self._name in _held:
            raise RunInUseError(_message(path, f"this process ({os.getpid()})"))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunStorageError(
                f"{path} cannot be written ({error.strerror}): pass another run_dir"
            ) from error
        try:
            _lock(descriptor)
        except OSError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunInUseError(
                _message(path, f"process {owner}" if owner else "another process")
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor: int | None = descriptor
        _held.add(self._name)

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        if self._descriptor is not None:
            _held.discard(self._name)
            os.close(self._descriptor)
            self._descriptor = None


def is_held(path: Path) -> bool | None:
    """Returns whether a driver holds the lock at `path`; None where the system does not tell.

    It asks and takes nothing, so that a driver that starts just then is not turned away.
    """
    if str(path.resolve()) in _held:
        return True  # and left closed: closing a file lets go of the process's own lock on it
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        return _is_locked(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _message(path: Path, owner: str) -> str:
    return f"run {path.parent} is in use by {owner}: wait for it, stop it, or pass another run_dir"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # past the text, which others may read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

    def _is_locked(descriptor: int) -> bool | None:
        return None

else:
    import fcntl
    import struct

    _FLOCK = "hhqqi"  # type, whence, start, length, process: of Linux

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_locked(descriptor: int) -> bool | None:
        if sys.platform != "linux":
            return None
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

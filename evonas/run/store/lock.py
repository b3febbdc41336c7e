"""One driver per run: locks that the kernel lets go of when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import weakref
from pathlib import Path

from evonas.exceptions import RunInUseError, RunStorageError

__all__ = ["LOCK", "RunLock", "is_held"]

LOCK = "run.lock"
"""The file's name in a run's directory."""

_FAR = 1 << 62  # where the database is locked: beyond what SQLite locks, and the file's end


class RunLock:
    """Holds a run for this process until `release` or the end of the process.

    Two files are locked: `run.lock`, which says who holds it, and the database itself, which is
    the same file by whatever name or link a second driver comes to it, also where somebody removed
    `run.lock`.

    On Linux these are open-file-description locks: nothing but `release` lets go of them, whereas
    record locks go when the process closes any descriptor of the file (a copy of the directory
    does). Elsewhere they are record locks. Forked children let go of theirs at once, so a leftover
    of a fitness function cannot keep a killed run locked.

    Raises:
        RunInUseError: Another driver holds it.
        RunStorageError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._database: tuple[Path, tuple[int, int]] | None = None
        self._descriptors: list[int] = []
        self._connection: object | None = None
        self._name = str(path.resolve())
        if self._name in _held:
            raise RunInUseError(_message(path, f"this process ({self._pid})"))
        descriptor = self._open(path, os.O_RDWR | os.O_CREAT)
        if not _lock(descriptor, 0):
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunInUseError(_message(path, _owner(owner)))
        self._descriptors.append(descriptor)
        with contextlib.suppress(OSError):  # a full disk: what follows will say so
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(self._pid).encode())
        _held.add(self._name)
        _locks.add(self)

    def hold_database(self, path: Path) -> None:
        """Locks the database too; `check` then tells whether it is still the one.

        Raises:
            RunInUseError: Another driver holds it: `path` is a link, or `run.lock` was removed.
            RunStorageError: It cannot be opened.
        """
        descriptor = self._open(path, os.O_RDWR)
        if not _lock(descriptor, _FAR):
            os.close(descriptor)
            raise RunInUseError(_message(path, "another driver of the same file"))
        self._descriptors.append(descriptor)
        status = os.fstat(descriptor)
        self._database = path, (status.st_dev, status.st_ino)

    def check(self) -> None:
        """Refuses to go on where this is not the driver's process, or the run is not there.

        Raises:
            RunInUseError: This process was forked from the driver.
            RunStorageError: The database was removed or replaced.
        """
        if os.getpid() != self._pid:
            raise RunInUseError(
                f"run {self._path.parent} is driven by process {self._pid}, of which this one is a "
                "fork: a forked process must end with os._exit(), not return to the search"
            )
        if self._database is None:
            return
        path, inode = self._database
        try:
            status = os.stat(path)
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != inode:
            what = "removed" if status is None else "replaced by another file"
            raise RunStorageError(
                f"{path} was {what} while the run went on, so nothing more can be recorded: "
                "restore it from a backup, or start again with a new run_dir"
            )

    def keep_open_in_forks(self, connection: object) -> None:
        """Sees to it that no forked child ever closes a connection to the database.

        SQLite would then write its log back under the feet of the driver.
        """
        self._connection = connection

    @property
    def is_ours(self) -> bool:
        """Whether this process is the one that took it."""
        return os.getpid() == self._pid

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        self._connection = None
        if self._descriptors and self.is_ours:
            _held.discard(self._name)
        self._close()

    def _close(self) -> None:
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.pop())

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) * (path.name == LOCK), 0o644)
        except OSError as error:
            raise RunStorageError(
                f"{path} cannot be written ({error.strerror}): pass another run_dir"
            ) from error


# Where locks belong to the process, a second evolve in this one would be let in.
_held: set[str] = set()
_locks: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    _held.clear()
    for lock in list(_locks):
        lock._close()
        if lock._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(lock._connection))  # for ever


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def is_held(path: Path) -> bool | None:
    """Returns whether a driver holds the lock at `path`; None where the system does not tell.

    It asks and takes nothing, so that a driver that starts just then is not turned away.
    """
    if str(path.resolve()) in _held:
        return True  # and left closed: that would let go of a lock that belongs to the process
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


def _owner(text: str) -> str:
    if text == str(os.getpid()):
        return f"this process ({text})"
    return f"process {text}" if text else "another process"


def _message(path: Path, owner: str) -> str:
    return f"run {path.parent} is in use by {owner}: wait for it, stop it, or pass another run_dir"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, start: int) -> bool:
        if start:
            return True  # the offset is beyond what this system locks
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # past the text, which others may read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def _is_locked(descriptor: int) -> bool | None:
        return None

else:
    import fcntl
    import struct

    _FLOCK = "hhqqi"  # type, whence, start, length, process: of Linux

    def _lock(descriptor: int, start: int) -> bool:
        try:
            if sys.platform == "linux":
                wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
            elif not start:  # SQLite's own would go when this descriptor of the database is closed
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _is_locked(descriptor: int) -> bool | None:
        if sys.platform != "linux":
            return None
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

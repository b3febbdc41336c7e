"""A problem on its way to worker processes: packed once, its large arrays shared by all of them."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickle
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

__all__ = ["Payload", "unpack"]

_MIN_SHARED_BYTES = 64 << 10  # smaller arrays travel inside the pickle
_ALIGNMENT = 64  # of each array, for vector instructions

Span = tuple[int, int]
"""`(offset, size)` in bytes."""


class Payload:
    """Any object, packed with cloudpickle into one file that processes map.

    NumPy arrays and CPU tensors (also inside data frames, modules, closures) lie in the file as
    they are. A process that unpacks it maps them copy-on-write: all share the pages, and what one
    writes no other sees. The file has no name and goes when the last process that holds it ends,
    however it ends; on Windows it has one, in the folder of temporary files, and goes with `close`
    or the driver.

    Pass it as an argument of a spawned process; there, `unpack` returns the object.

    Args:
        thing: Functions of `__main__`, lambdas and closures go by value, all else by import.

    Raises:
        TypeError: Something in it cannot be pickled.
        OSError: There is no room for the file.

    Example:
        >>> import numpy as np
        >>> payload = Payload({"weights": np.ones(100_000)})
        >>> float(unpack(payload)["weights"].sum())
        100000.0
        >>> payload.close()
    """

    def __init__(self, thing: Any) -> None:
        buffers: list[memoryview] = []
        buffers.insert(0, memoryview(_pickled(thing, buffers)))
        self._file = _SharedFile()
        self._spans: list[Span] = []
        with open(self._file.descriptor, "wb", closefd=False) as file:
            for part in buffers:
                self._spans.append((file.tell(), part.nbytes))
                file.write(part)
                file.write(bytes(-file.tell() % _ALIGNMENT))

    @property
    def n_bytes(self) -> int:
        """How much all processes share."""
        return sum(size for _, size in self._spans)

    def close(self) -> None:
        """Lets go of the file; processes that hold it are not concerned."""
        self._file.close()


def unpack(payload: Payload) -> Any:
    """Returns the packed object; its arrays are views of the file, mapped copy-on-write."""
    mapped = mmap.mmap(payload._file.descriptor, 0, access=mmap.ACCESS_COPY)
    data, *buffers = (memoryview(mapped)[at : at + size] for at, size in payload._spans)
    return pickle.loads(data, buffers=buffers)


if sys.platform == "win32":

    class _SharedFile:
        """A temporary file that a process that is being spawned opens by its name."""

        def __init__(self) -> None:
            self.descriptor, self._name = tempfile.mkstemp(prefix="evonas")
            self._closed: Callable[[], Any] = weakref.finalize(
                self, _remove, self.descriptor, self._name
            )

        def close(self) -> None:
            """Lets go of it; in the driver it goes."""
            self._closed()

        def __getstate__(self) -> str:
            return self._name

        def __setstate__(self, name: str) -> None:
            self.descriptor = os.open(name, os.O_RDWR | os.O_BINARY)
            self._closed = weakref.finalize(self, os.close, self.descriptor)

    def _remove(descriptor: int, name: str) -> None:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # still mapped by a process: the system clears it
            Path(name).unlink()

else:
    from multiprocessing.reduction import DupFd

    class _SharedFile:
        """A file without a name, whose descriptor goes to a process that is being spawned."""

        def __init__(self) -> None:
            if hasattr(os, "memfd_create"):
                self.descriptor = os.memfd_create("evonas")
            else:
                with tempfile.TemporaryFile() as file:  # it has no name any more
                    self.descriptor = os.dup(file.fileno())

        def close(self) -> None:
            os.close(self.descriptor)

        def __getstate__(self) -> Any:
            return DupFd(self.descriptor)

        def __setstate__(self, passed: Any) -> None:
            self.descriptor = passed.detach()


def _pickled(thing: Any, buffers: list[memoryview]) -> bytes:
    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _MIN_SHARED_BYTES:
            buffers.append(raw)
            return False
        return True

    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5, buffer_callback=keep_in_band).dump(thing)
    except Exception as error:  # whatever a class of the user's raises
        raise TypeError(f"{type(error).__name__}: {error}") from error
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, which copies tensors into the pickle, taught to share them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._reduce_storage: Any = None
        if "torch" in sys.modules:  # else there is no tensor
            from evonas.execution.torch_env import StorageReducer

            self._reduce_storage = StorageReducer(_MIN_SHARED_BYTES)

    def reducer_override(self, thing: Any) -> Any:
        if self._reduce_storage is not None:
            reduced = self._reduce_storage(thing)
            if reduced is not None:
                return reduced
        return super().reducer_override(thing)

"""A problem on its way to worker processes: packed once, its large arrays shared by all of them."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import sys
import tempfile
from multiprocessing.reduction import DupFd
from typing import Any

import cloudpickle

__all__ = ["Payload", "unpack"]

_MIN_SHARED_BYTES = 64 << 10  # smaller arrays travel inside the pickle
_ALIGNMENT = 64  # of each array, for vector instructions

Span = tuple[int, int]
"""`(offset, size)` in bytes."""


class Payload:
    """Any object, packed with cloudpickle into one anonymous file that processes map.

    NumPy arrays and CPU tensors (also inside data frames, modules, closures) lie in the file as
    they are. A process that unpacks it maps them copy-on-write: all share the pages, and what one
    writes no other sees. The file has no name and goes when the last process that holds it ends,
    however it ends.

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
        self._descriptor = _anonymous_file()
        self._spans: list[Span] = []
        with open(self._descriptor, "wb", closefd=False) as file:
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
        os.close(self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        # DupFd: multiprocessing hands the descriptor to the process that is being spawned.
        return _received, (DupFd(self._descriptor), self._spans)


def unpack(payload: Payload) -> Any:
    """Returns the packed object; its arrays are views of the file, mapped copy-on-write."""
    mapped = mmap.mmap(
        payload._descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
    )
    data, *buffers = (memoryview(mapped)[at : at + size] for at, size in payload._spans)
    return pickle.loads(data, buffers=buffers)


def _received(descriptor: Any, spans: list[Span]) -> Payload:
    payload = Payload.__new__(Payload)
    payload._descriptor, payload._spans = descriptor.detach(), spans
    return payload


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


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("evonas")
    with tempfile.TemporaryFile() as file:  # it has no name any more
        return os.dup(file.fileno())

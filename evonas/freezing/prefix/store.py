"""Where the outputs of frozen prefixes are kept: in memory, then in files, then nowhere."""

from __future__ import annotations

import errno
import logging
import math
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from evonas.execution.torch_env import is_out_of_memory

__all__ = ["PrefixStore", "StoredLevel", "TensorSpec"]

_log = logging.getLogger(__name__)

TensorSpec = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype of one tensor of a level."""

_ALIGN = 64
_CHUNK = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


class StoredLevel:
    """The prefix outputs of one set of examples at one depth.

    Attributes:
        tensors: Writable. They move to a file when memory runs short, so ask for them anew each
            time instead of keeping them.
        n_bytes: Their size.
        in_memory: Whether they are in memory rather than in a file.
        complete: Whether they have been filled; set by the one who fills them.
        pins: While above 0, the level is not dropped (it may move to a file).
    """

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self.specs = tuple(specs)
        self.tensors: tuple[Tensor, ...] = ()
        self.n_bytes = sum(_padded(spec) for spec in specs)
        self.in_memory = True
        self.complete = False
        self.pins = 0


class PrefixStore:
    """Keeps levels within a memory budget, then a file budget, least recently used out first.

    A level that does not fit in memory, or that is pushed out by newer ones, goes to a
    memory-mapped file; beyond the file budget it is dropped and must be computed again. Where the
    machine has less than a budget promises, the budget shrinks to what there is, which is logged
    once. The files have no name any more as soon as they are mapped: nothing is left behind,
    however the process ends.

    One process uses a store; workers have one each.

    Args:
        memory_bytes: Budget in memory (on `device`).
        file_bytes: Budget on disk.
        folder: Where the files are made; None is the system's temporary folder.
        device: Where the levels in memory live; those in files are on the CPU.

    Raises:
        ValueError: A budget is negative.

    Example:
        >>> store = PrefixStore(memory_bytes=1000, file_bytes=0)
        >>> level = store.create("a", [((20, 10), torch.float32)])
        >>> level.tensors[0].shape, store.memory_used >= 800
        (torch.Size([20, 10]), True)
        >>> store.create("b", [((2000, 10), torch.float32)]) is None
        True
    """

    def __init__(
        self,
        *,
        memory_bytes: int = 1 << 30,
        file_bytes: int = 4 << 30,
        folder: Path | str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        for name, value in (("memory_bytes", memory_bytes), ("file_bytes", file_bytes)):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.memory_bytes = memory_bytes
        self.file_bytes = file_bytes
        self.folder = folder
        self.device = torch.device(device)
        self._levels: OrderedDict[Hashable, StoredLevel] = OrderedDict()  # oldest use first
        self._said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def __len__(self) -> int:
        return len(self._levels)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._levels

    @property
    def memory_used(self) -> int:
        """Bytes of the levels in memory."""
        return sum(level.n_bytes for level in self._levels.values() if level.in_memory)

    @property
    def file_used(self) -> int:
        """Bytes of the levels in files."""
        return sum(level.n_bytes for level in self._levels.values() if not level.in_memory)

    def get(self, key: Hashable) -> StoredLevel | None:
        """Returns the complete level of `key`, which counts as a use, or None."""
        level = self._levels.get(key)
        if level is None or not level.complete:
            return None
        self._levels.move_to_end(key)
        return level

    def create(self, key: Hashable, specs: Sequence[TensorSpec]) -> StoredLevel | None:
        """Returns an empty level to fill, or None where it fits into neither budget.

        A level that `key` had is dropped.

        Raises:
            RuntimeError: That level is pinned.
        """
        if key in self._levels:
            self.remove(key)
        level = StoredLevel(specs)
        if not self._place(level):
            return None
        self._levels[key] = level
        return level

    def remove(self, key: Hashable) -> None:
        """Drops the level of `key`, if there is one.

        Raises:
            RuntimeError: It is pinned.
        """
        level = self._levels.get(key)
        if level is None:
            return
        if level.pins:
            raise RuntimeError(f"prefix level {key!r} is in use: end its session first")
        del self._levels[key]

    def clear(self) -> None:
        """Drops every level that is not pinned."""
        for key in [key for key, level in self._levels.items() if not level.pins]:
            del self._levels[key]

    def _place(self, level: StoredLevel) -> bool:
        """Gives a level its tensors: in memory, else in a file, else not at all."""
        if self._make_room(level.n_bytes):
            try:
                level.tensors = tuple(
                    torch.empty(shape, dtype=dtype, device=self.device)
                    for shape, dtype in level.specs
                )
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink("memory_bytes", self.memory_used)
            else:
                return True
        return self._to_file(level)

    def _make_room(self, n_bytes: int) -> bool:
        """Moves the levels least recently used out of memory until `n_bytes` fit, if they can."""
        if n_bytes > self.memory_bytes:
            return False
        for key, level in list(self._levels.items()):
            if self.memory_used + n_bytes <= self.memory_bytes:
                return True
            if level.in_memory and not self._to_file(level) and not level.pins:
                del self._levels[key]
        return self.memory_used + n_bytes <= self.memory_bytes

    def _to_file(self, level: StoredLevel) -> bool:
        """Puts a level (with what it holds, if anything) into a file; False where none fits."""
        if level.n_bytes > self.file_bytes:
            return False
        for key, other in list(self._levels.items()):
            if self.file_used + level.n_bytes <= self.file_bytes:
                break
            if not other.in_memory and not other.pins:
                del self._levels[key]
        if self.file_used + level.n_bytes > self.file_bytes:
            return False
        try:
            mapped = _mapped(level, self.folder)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self._shrink("file_bytes", self.file_used)
            return False
        for new, old in zip(mapped, level.tensors, strict=False):
            new.copy_(old)
        level.tensors = mapped
        level.in_memory = False
        return True

    def _shrink(self, name: str, n_bytes: int) -> None:
        if not self._said:
            _log.warning(
                "the prefix store may use %s=%d, but the machine has no more than %d to give: "
                "it shrinks to that, and computes again what it cannot keep",
                name, getattr(self, name), n_bytes,
            )  # fmt: skip
            self._said = True
        setattr(self, name, n_bytes)


def _mapped(level: StoredLevel, folder: Path | str | None) -> tuple[Tensor, ...]:
    """Returns tensors of a level in a new file that has no name any more.

    Raises:
        OSError: There is no room for it; or the system is Windows, where a file has its name for as
            long as it is used, and would be left behind.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSPC, "no files without a name on this system")
    with tempfile.NamedTemporaryFile(dir=folder, prefix="evonas-prefix-") as file:
        # Reserved before it is mapped: writing to a page that the disk cannot hold would end the
        # process with SIGBUS.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(level.n_bytes, 1))
        else:
            for start in range(0, max(level.n_bytes, 1), _CHUNK):
                file.write(bytes(min(_CHUNK, max(level.n_bytes, 1) - start)))
            file.flush()
        memory = torch.from_file(file.name, shared=True, size=level.n_bytes, dtype=torch.uint8)
    tensors = []
    start = 0
    for spec in level.specs:
        shape, dtype = spec
        n_bytes = math.prod(shape) * dtype.itemsize
        tensors.append(memory[start : start + n_bytes].view(dtype).view(shape))
        start += _padded(spec)
    return tuple(tensors)


def _padded(spec: TensorSpec) -> int:
    """Returns the bytes of one tensor, rounded up so that the next one begins aligned."""
    shape, dtype = spec
    return -(-math.prod(shape) * dtype.itemsize // _ALIGN) * _ALIGN

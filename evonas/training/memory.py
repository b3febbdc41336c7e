"""How much memory a piece of work took at its peak."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

__all__ = ["PeakMemory"]

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to what is resident now


class PeakMemory:
    """Measures the peak of what a block of code holds.

    On a CUDA device: what torch's allocator held on it. On an Apple GPU, of which torch counts no
    peak: what its allocator has taken from the system by the end. Else the resident memory of this
    process, with all that it held before (and in other threads); where the operating system cannot
    reset its peak (other than Linux), the peak of the whole process so far.

    Args:
        device: Where the work computes.

    Attributes:
        memory_bytes: The peak, once the block has ended.

    Example:
        >>> with PeakMemory("cpu") as peak:
        ...     numbers = torch.ones(1000)
        >>> peak.memory_bytes > 4000
        True
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = torch.device(device)
        self.memory_bytes = 0

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with suppress(OSError):  # not Linux, or a sandbox that forbids it
                _CLEAR.write_text(_RESET_PEAK)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._device.type == "cuda":
            self.memory_bytes = torch.cuda.max_memory_allocated(self._device)
        elif self._device.type == "mps":
            self.memory_bytes = torch.mps.driver_allocated_memory()
        else:
            self.memory_bytes = _peak_resident()


def _peak_resident() -> int:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found.group(1)) << 10
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    else:
        import resource

        unit = 1 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

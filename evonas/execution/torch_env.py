"""What torch computes with during a trial: seeds, threads, devices, determinism, memory.

Imported only for problems that use torch, and in workers only inside them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from evonas.execution.accelerator import (
    accelerators,
    generator_state,
    is_accelerator,
    release_memory,
    seed_generator,
    set_generator_state,
)
from evonas.execution.process_state import process_state
from evonas.execution.trial import TrialSettings

__all__ = [
    "StorageReducer",
    "free_memory",
    "is_out_of_memory",
    "kept_memory",
    "prepare",
    "random_state",
    "resolve_device",
    "seeded_generators",
    "torch_environment",
    "torch_threads",
    "visible_devices",
]

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_OUT_OF_MEMORY = (  # in the messages of plain RuntimeErrors
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h


def prepare(
    seed: int, threads: int = 1, device: str = "cpu", *, deterministic: bool = False
) -> None:
    """Sets up this process for good, as a worker does: seeds, threads, current device.

    Seeds Python's and numpy's global generators and torch's on the CPU and `device`. torch allows
    the number of threads between operations to be set once and before any parallel work; where
    that is past, it stays as it is.

    Args:
        seed: In [0, 2**32).
        threads: Threads within an operation.
        device: `"cpu"`, `"cuda:0"`, …
        deterministic: Whether torch must raise where an operation has only an algorithm whose
            result varies.

    Raises:
        ValueError: `threads` is below 1, `seed` out of range, or this machine has no such device.
    """
    checked = _checked_device(device)
    if torch.get_num_interop_threads() != threads:
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(threads)
    if checked.type == "cuda":
        torch.cuda.set_device(checked)
    _set_up(seed, threads, checked, deterministic)


@contextmanager
def torch_environment(settings: TrialSettings) -> Iterator[None]:
    """Runs a block with the seed, threads and device of a trial, and puts back what was before.

    The trial's result depends on its settings alone, and the caller's random numbers (Python,
    numpy, torch on the CPU and on the trial's GPU), thread count, current device and
    determinism are afterwards what they were.

    Raises:
        ValueError: As `prepare`.

    Example:
        >>> before = torch.get_rng_state()
        >>> with torch_environment(TrialSettings(seed=7)):
        ...     drawn = torch.rand(1)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    device = _checked_device(settings.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(process_state(settings.process))
        if device.type == "cuda":
            # A bare "cuda" in a fitness function then means the trial's device.
            stack.enter_context(torch.cuda.device(device))
        if device.type == "cpu":
            stack.enter_context(kept_memory())
        stack.enter_context(seeded_generators(settings))
        yield


@contextmanager
def seeded_generators(settings: TrialSettings) -> Iterator[None]:
    """Runs a block with the random generators of a trial; puts back what was before.

    Those of Python, numpy and torch, on the CPU and the trial's device; threads and determinism
    are the trial's, too.
    """
    device = _checked_device(settings.device)
    before = _state(device)
    try:
        _set_up(settings.seed, settings.threads, device, settings.deterministic)
        yield
    finally:
        _restore(before, device)


def resolve_device(name: str) -> str:
    """Returns the device that `name` means: `"auto"` is the first GPU, or the CPU without one.

    Raises:
        ValueError: This machine has no such device.
    """
    if name == "auto":
        return visible_devices()[0]
    return str(_checked_device(name))


@contextmanager
def kept_memory() -> Iterator[None]:
    """Runs a block in which freed memory stays with the process; it is given back at the end.

    glibc returns every freed tensor above 32 MiB to the system and faults its pages in again at
    the next allocation: in each step of a training, for each gradient. A training step of the
    published AlexNet at batch 128 takes 0.48 s of processor time instead of 0.75 in bfloat16, 0.95
    instead of 1.1 in float32 (one core, EPYC 9004; its peak memory grows by 12 %). Without glibc
    nothing is changed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        # Not glibc's first values: those that it has reached by itself in any process that has
        # freed a large block (its thresholds grow with use until somebody sets them).
        libc.mallopt(_M_MMAP_MAX, 65536)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Runs a block in which torch computes with so many threads; puts back what was before.

    More threads than free cores wait for each other by spinning: checking a ResNet-18 took 104 s
    of processor time in two threads, beside a process that used one of two cores, and 4.8 s in one.

    Raises:
        ValueError: `threads` is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def visible_devices() -> list[str]:
    """Returns every GPU that torch sees, or the CPU where there is none."""
    return accelerators() or ["cpu"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that memory ran out (device or host)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(seen, RuntimeError) and any(text in str(seen) for text in _OUT_OF_MEMORY):
            return True
        seen = seen.__cause__
    return False


def free_memory(device: str = "cpu") -> None:
    """Returns memory that no tensor uses any more to the system and to other processes.

    Call it once the error of the failed trial is dropped: its traceback keeps tensors alive.
    """
    gc.collect()
    release_memory(torch.device(device))


class StorageReducer:
    """Pickles the memory of large CPU tensors out of band, where torch itself copies it.

    For `pickle.Pickler.reducer_override`; one object per pickle, because tensors that share their
    memory must share it again afterwards.

    Args:
        min_bytes: Smaller tensors are left to torch.
    """

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = min_bytes
        self._seen: dict[int, Any] = {}  # by address, the object that the pickle knows it by

    def __call__(self, thing: Any) -> tuple[Any, ...] | None:
        """Returns how to rebuild a tensor's storage from its bytes, or None for anything else."""
        if not isinstance(thing, torch.storage.TypedStorage):
            return None
        memory = thing._untyped_storage
        if memory.device.type != "cpu" or memory.nbytes() < self._min_bytes:
            return None
        first = self._seen.setdefault(memory.data_ptr(), thing)
        if first is not thing and first.dtype == thing.dtype:
            return _same, (first,)
        array = torch.tensor([], dtype=torch.uint8).set_(memory).numpy()
        return _storage, (pickle.PickleBuffer(array.data), thing.dtype)


def _same(storage: Any) -> Any:
    return storage


def _storage(memory: Any, dtype: torch.dtype) -> Any:
    untyped = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
        wrap_storage=untyped, dtype=dtype, _internal=True
    )


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be like 'cpu' or 'cuda:0', got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is not on this machine, which has {torch.cuda.device_count()} "
            f"CUDA devices: pass another device, or 'cpu'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not on this machine: pass another device, or 'cpu'")
    return device


def _set_up(seed: int, threads: int, device: torch.device, deterministic: bool) -> None:
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {seed}")
    if deterministic:
        # cuBLAS reads it when it first starts on a device, so it is never taken away again.
        os.environ.setdefault(_CUBLAS, ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global generator that user code may draw from)
    for each in {torch.device("cpu"), device}:
        seed_generator(seed, each)


def random_state(device: torch.device) -> bytes:
    """Returns the state of the global generators: torch's, the device's, Python's and numpy's.

    Two are equal where nothing was drawn in between.
    """
    tensors = [torch.get_rng_state()]
    if is_accelerator(device):
        tensors.append(generator_state(device))
    others = random.getstate(), np.random.get_state()  # noqa: NPY002
    return b"".join(tensor.numpy().tobytes() for tensor in tensors) + pickle.dumps(others)


def _state(device: torch.device) -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "gpu": generator_state(device) if is_accelerator(device) else None,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def _restore(state: dict[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["gpu"] is not None:
        set_generator_state(state["gpu"], device)
    torch.set_num_threads(state["threads"])
    torch.use_deterministic_algorithms(state["deterministic"], warn_only=state["warn_only"])
    torch.backends.cudnn.benchmark = state["benchmark"]

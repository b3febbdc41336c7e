"""Where trials run, and with how many threads, as the arguments of `evolve` ask for it."""

from __future__ import annotations

import concurrent.futures
import os
import warnings
from collections.abc import Mapping, Sequence

from evonas.arguments import check_int
from evonas.execution.base import Executor
from evonas.execution.fused import MOST_FUSED, FusedExecutor
from evonas.execution.futures import FuturesExecutor
from evonas.execution.processes import MOST_WORKERS, ProcessExecutor, check_devices
from evonas.execution.serial import SerialExecutor

__all__ = ["available_cores", "choose_executor", "default_threads"]


def available_cores() -> int:
    """Returns how many cores this process may use."""
    # By affinity, never cpu_count: a container or taskset may allow fewer.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else (os.cpu_count() or 1)


def default_threads(executor: Executor) -> int:
    """Returns with how many threads a trial computes where the user does not say.

    An executor may know it (attribute `threads_per_trial`); else the cores are shared out.
    """
    known: int | None = getattr(executor, "threads_per_trial", None)
    return known or max(1, available_cores() // executor.slots)


def choose_executor(
    executor: Executor | concurrent.futures.Executor | None = None,
    *,
    workers: int | None = None,
    devices: str | Sequence[str] | None = None,
    workers_per_device: int | None = None,
    trial_timeout: float | None = None,
    lost_retries: int | None = None,
    fused: int | None = None,
    uses_torch: bool = False,
) -> Executor:
    """Returns where trials run: in this process, or in others where there are several at once.

    A time limit takes a process of its own too, because only a process can be stopped.

    Args:
        executor: The user's own, also of `concurrent.futures`, instead of all that follows.
        workers: Trials at once. None: one, or `workers_per_device` on each device.
        devices: Names; `"auto"` (None for torch problems) means every GPU, or the CPU without one.
        workers_per_device: Trials at once on one device, where they are small.
        trial_timeout: Seconds after which a trial is stopped.
        lost_retries: How often a trial whose process died is run again (default 2).
        fused: Candidates of one shape that are trained at once, in this process. None: one.
        uses_torch: Whether torch may be asked for GPUs.

    Raises:
        TypeError, ValueError: An argument is out of range, or a device is not on this machine.

    Example:
        >>> choose_executor(workers=2, trial_timeout=60).slots
        2
        >>> type(choose_executor()).__name__
        'SerialExecutor'
    """
    if executor is not None:
        given = [workers, devices, workers_per_device, trial_timeout, lost_retries, fused]
        if any(entry is not None for entry in given):
            raise ValueError(
                "give either executor or workers, devices, workers_per_device, trial_timeout, "
                "lost_retries and fused, not both: pass them to the executor"
            )
        if isinstance(executor, concurrent.futures.Executor):
            return FuturesExecutor(executor)
        if not all(hasattr(executor, name) for name in ("start", "submit", "shutdown", "slots")):
            raise TypeError(
                "executor must be an evonas executor or a concurrent.futures.Executor, got "
                f"{type(executor).__name__}"
            )
        return executor
    for name, value in (("workers", workers), ("workers_per_device", workers_per_device)):
        if value is not None:
            check_int(name, value, minimum=1, maximum=MOST_WORKERS)
    if lost_retries is not None:
        check_int("lost_retries", lost_retries, minimum=0)
    names = _devices(devices, uses_torch)
    if fused is not None:
        own = {"workers_per_device": workers_per_device, "trial_timeout": trial_timeout,
               "lost_retries": lost_retries}  # fmt: skip
        return _fused(fused, {"workers": None if workers == 1 else workers, **own}, devices, names)
    most = None if workers_per_device is None else workers_per_device * len(names)
    if most is not None and workers is not None and workers > most:
        raise ValueError(
            f"workers must be at most {most} (workers_per_device={workers_per_device} on "
            f"{len(names)} devices), got {workers}: leave one of them out"
        )
    n_workers = workers or most or 1
    if n_workers == 1 and trial_timeout is None:
        return SerialExecutor(names[0])
    n_cores = available_cores()
    if n_workers > n_cores and set(names) == {"cpu"}:
        warnings.warn(
            f"workers={n_workers} share {n_cores} cores, more would help only trials that wait: "
            f"expect no more speed than with workers={n_cores}",
            RuntimeWarning,
            stacklevel=5,  # the caller of evolve, which is wrapped
        )
    return ProcessExecutor(
        n_workers,
        devices=names,
        trial_timeout=trial_timeout,
        lost_retries=2 if lost_retries is None else lost_retries,
    )


def _fused(
    fused: int, others: Mapping[str, object], devices: object, names: Sequence[str]
) -> Executor:
    check_int("fused", fused, minimum=2, maximum=MOST_FUSED)
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"{name} is for worker processes, and fused={fused} trains several candidates at "
                "once in this process: leave one of them out"
            )
    if len(names) > 1 and devices not in (None, "auto"):
        raise ValueError(f"fused={fused} trains on one device, got devices={devices!r}")
    return FusedExecutor(fused, names[0], threads=available_cores())


def _devices(devices: str | Sequence[str] | None, uses_torch: bool) -> list[str]:
    if devices is None and not uses_torch:
        return ["cpu"]
    if devices is None or (isinstance(devices, str) and devices == "auto"):
        from evonas.execution.torch_env import visible_devices

        return visible_devices()
    names = check_devices([devices] if isinstance(devices, str) else devices)
    if set(names) == {"cpu"}:
        return names
    from evonas.execution.torch_env import resolve_device

    return [resolve_device(name) for name in names]

"""How many workers of how many threads: chosen once a run, by trying a training step."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Parallel", "has_guarded_main", "measured_parallel"]

_ROUNDS = 3
_MARGIN = 1.3  # twice the threads must be so much faster: what they save, another trial could use
_LONG_SECONDS = 10.0  # of a trial that is worth a process of its own, which imports torch anew
_MOST_WORKERS = 8  # each holds a copy of torch and of its model in memory


@dataclass(frozen=True)
class Parallel:
    """Trials at once, and with how many threads each computes.

    Attributes:
        workers: Trials at once.
        threads: Threads of each.
        why: The measurement in words; None: nothing was measured.
    """

    workers: int
    threads: int
    why: str | None = None


def measured_parallel(
    step: Callable[[], object],
    n_steps: int,
    cores: int,
    *,
    workers: int | None = None,
    set_threads: Callable[[int], object],
) -> Parallel:
    """Returns the workers and threads with which most trials end per second on this CPU.

    Tried are 1, 2, 4, … threads, each with the best of a few steps. Where that would take longer
    than a tenth of one trial, one worker gets all cores, or for trials of less than ten seconds as
    many threads as were tried. More threads are taken only where they are
    clearly faster, and several workers only for trials of ten seconds or more.

    Args:
        step: Does a training step of a typical trial.
        n_steps: Steps of a trial.
        cores: That may be used.
        workers: Trials at once, where that is given. None: to be chosen.
        set_threads: Sets the number of threads for what follows.
    """
    most = max(1, cores // (workers or 1))
    counts = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    if len(counts) == 1:
        return Parallel(workers or 1, 1)
    seconds: dict[int, float] = {}
    began, longest = time.monotonic(), 0.0
    for threads in counts:
        if seconds and time.monotonic() - began > longest:
            # In a short trial the threads of a small model wait for each other, the more so where
            # others use the cores, too: 11 to 25 s in two threads at a load of 6, 0.4 s in one.
            is_short = n_steps * seconds[1] < _LONG_SECONDS
            threads = max(seconds) if is_short else most
            why = (
                "not measured to the end: that would take longer than a tenth of a trial; "
                "threads_per_trial= chooses others"
            )
            return Parallel(workers or 1, threads, why)
        set_threads(threads)
        step()  # the first one makes kernels and buffers
        seconds[threads] = min(_timed(step) for _ in range(_ROUNDS))
        longest = longest or 0.1 * n_steps * seconds[threads]
    alone = 1
    for threads, taken in seconds.items():
        if seconds[alone] > _MARGIN * taken:
            alone = threads
    if workers is not None or n_steps * seconds[alone] < _LONG_SECONDS:
        return Parallel(workers or 1, alone, _words(seconds))

    def rate(threads: int) -> float:
        return min(_MOST_WORKERS, cores // threads) / seconds[threads]

    best = max(seconds, key=rate)
    if rate(best) < _MARGIN / seconds[alone]:
        return Parallel(1, alone, _words(seconds))
    return Parallel(min(_MOST_WORKERS, cores // best), best, _words(seconds))


def has_guarded_main() -> bool:
    """Whether worker processes may import the script that runs: its code is under a guard.

    True where there is no script: a notebook, a prompt, `python -c`.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None:
        return True
    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.If) and "__name__" in ast.dump(node.test) for node in tree.body)


def _timed(step: Callable[[], object]) -> float:
    began = time.monotonic()
    step()
    return time.monotonic() - began


def _words(seconds: dict[int, float]) -> str:
    measured = ", ".join(f"{1000 * taken:.3g} ms in {n}" for n, taken in seconds.items())
    return f"a step takes {measured} thread{'s' if len(seconds) > 1 else ''}"

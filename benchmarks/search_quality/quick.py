"""The comparison that anyone can rerun in under an hour: fewer problems, peers, sizes and seeds.

EVONAS_DATA=shared/data python -m benchmarks.search_quality --quick
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_quality.peers import OURS, OUTSIDE, installed, strategy_peer
from benchmarks.search_quality.problems import PROBLEMS
from benchmarks.search_quality.recorder import run_peer

__all__ = [
    "Plan",
    "Searches",
    "measured",
    "missing",
    "print_left_out",
    "print_quick",
    "print_tables",
]

Floats = NDArray[np.float64]

_NEEDS_DATA = ("macro", "lcbench")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        problems: Names of `PROBLEMS`.
        peers: Names of `OURS` and `OUTSIDE`.
        slow: Those of `peers` that take more than 0.1 s for a proposal.
        sizes: Different points after which regret is measured.
        n_seeds: Searches of each peer.
        n_slow_seeds: Searches of each slow peer: the first of those seeds.
        first_seed: Of all.
    """

    problems: tuple[str, ...] = ("macro", "layers", "digits", "cells", "lcbench")
    peers: tuple[str, ...] = (
        "SurrogateEvolution", "Generational", "random, no repeats", "DEAP eaSimple", "Optuna TPE",
        "Optuna GP", "SMAC", "pymoo GA",
    )  # fmt: skip
    slow: tuple[str, ...] = ("Optuna GP", "SMAC")
    sizes: tuple[int, ...] = (20, 50, 100)
    n_seeds: int = 12
    n_slow_seeds: int = 4
    first_seed: int = 700

    def seeds(self, peer: str) -> range:
        """Returns the seeds of a peer's searches."""
        n = self.n_slow_seeds if peer in self.slow else self.n_seeds
        return range(self.first_seed, self.first_seed + n)


@dataclass(frozen=True)
class Searches:
    """What searches of one peer found on one problem.

    Attributes:
        regrets: (n_searches, n_sizes).
        seconds: Processor seconds for each different point.
    """

    regrets: Floats
    seconds: float


def print_quick(plan: Plan | None = None) -> None:
    """Measures a plan, a process for each core, and prints its tables and what they leave out."""
    plan = plan or Plan()
    began = time.perf_counter()
    absent = missing(plan)
    for name, why in absent.items():
        print(f"{name}: {why}")
    tasks = [pair for pair in product(plan.problems, plan.peers) if absent.keys().isdisjoint(pair)]
    tasks.sort(key=lambda pair: pair[1] not in plan.slow)  # the longest first
    for name in _THREADS:
        os.environ[name] = "1"  # one process for each core; a process that is spawned takes it over
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[tuple[str, str], Searches] = {}
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(measured, plan, *pair): pair for pair in tasks}
        for done in as_completed(running):
            pair = running[done]
            found[pair] = done.result()
            print(f"  {pair[0]}, {pair[1]}: {found[pair].seconds:.4f} s a point", flush=True)
    print_tables(plan, found)
    print_left_out(plan, absent)
    print(f"{(time.perf_counter() - began) / 60.0:.0f} minutes with {cores} processes")


def measured(plan: Plan, problem: str, peer: str) -> Searches:
    """Returns what a peer's searches found on a problem."""
    search = strategy_peer(OURS[peer]) if peer in OURS else OUTSIDE[peer][1]
    regrets, seconds = [], 0.0
    for seed in plan.seeds(peer):
        instance = PROBLEMS[problem](seed)
        began = time.process_time()
        record = run_peer(search, instance, max(plan.sizes), seed)
        seconds += time.process_time() - began
        regrets.append(record.unique_regrets()[np.array(plan.sizes) - 1, 0])
    return Searches(np.array(regrets), seconds / len(regrets) / max(plan.sizes))


def missing(plan: Plan) -> dict[str, str]:
    """Returns the problems and peers of a plan that cannot be measured here, and why."""
    found = {}
    for name in plan.problems:
        if name in _NEEDS_DATA and "EVONAS_DATA" not in os.environ:
            found[name] = "left out: set EVONAS_DATA to the folder that holds its data"
        elif name == "lcbench" and not installed("onnxruntime"):
            found[name] = "left out: not installed: pip install onnxruntime"
        elif name == "digits" and find_spec("sklearn") is None:
            found[name] = "left out: not installed: pip install scikit-learn"
    for name in plan.peers:
        if name in OUTSIDE and not installed(OUTSIDE[name][0]):
            found[name] = f"left out: not installed: pip install {OUTSIDE[name][0]}"
    return found


def print_tables(plan: Plan, found: Mapping[tuple[str, str], Searches]) -> None:
    """Prints a table for each problem: regret, mean ± standard error, n, processor seconds."""
    for problem in plan.problems:
        rows = [(peer, found[problem, peer]) for peer in plan.peers if (problem, peer) in found]
        if not rows:
            continue
        print(f"\n{problem}: regret after N different points, mean ± standard error")
        print(f"{'':20}" + "".join(f"{f'N={size}':>18}" for size in plan.sizes)
              + f"{'n':>5}{'seconds a point':>18}")  # fmt: skip
        for peer, searches in rows:
            cells = (f"{_cell(each):>18}" for each in searches.regrets.T)
            n = len(searches.regrets)
            print(f"{peer:20}" + "".join(cells) + f"{n:5}{searches.seconds:18.4f}")


def _cell(regrets: Floats) -> str:
    n = len(regrets)
    error = f"{regrets.std(ddof=1) / np.sqrt(n):.3f}" if n > 1 else "?"
    return f"{regrets.mean():.3f} ± {error}"


def print_left_out(plan: Plan, absent: Iterable[str]) -> None:
    """Prints what the whole comparison has and this one has not.

    Args:
        plan: What was meant to be measured.
        absent: Its problems and peers that could not be.
    """
    problems = _without(PROBLEMS, plan.problems)
    peers = _without([*OURS, *OUTSIDE], plan.peers)
    print(f"\nLeft out: problems {', '.join(problems) or 'none'}; searches "
          f"{', '.join(peers) or 'none'}; more than {max(plan.sizes)} points; more than one "
          f"evaluation under way; scores other than the first; repeats among calls."
          f"{' Not measured here: ' + ', '.join(absent) + '.' if absent else ''}")  # fmt: skip
    print("Differences below two standard errors say nothing.")


def _without(all_names: Iterable[str], names: Sequence[str]) -> list[str]:
    return [name for name in all_names if name not in names]

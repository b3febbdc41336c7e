"""How much of the true front is found: accuracy against cost, on two tables of trained networks.

    EVONAS_DATA=shared/data python -m benchmarks.search_quality.fronts --seeds 20

Prints the hypervolume as a share of the whole table's, between its poorest values. The searches
see the tables with their choices renumbered for each seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import evonas as en
from benchmarks.hardware import describe
from benchmarks.search_quality.cells import EDGES, OPERATIONS, cells_table
from benchmarks.search_quality.instance import Genes, renumbered
from benchmarks.search_quality.peers import Known, installed, suggested
from benchmarks.search_quality.problems import MACRO_FILE
from evonas.strategies import NSGA2, RandomSearch, SearchContext, Strategy, SurrogateEvolution
from evonas.strategies.hypervolume import hypervolume

__all__ = ["PROBLEMS", "Table", "main"]

Pair = tuple[float, float]
_N_BLOCKS = {"none": 0, "skip": 0, "conv1": 1, "conv3": 9}  # weights of an operation, in 64

OURS: dict[str, Callable[[], Strategy]] = {
    "random": RandomSearch,
    "NSGA2": NSGA2,
    "NSGA2, 20": lambda: NSGA2(20),
    "NSGA2, 20, one gene": lambda: NSGA2(20, gene_mutation_prob=None, crossover="uniform"),
    "SurrogateEvolution": SurrogateEvolution,
}


@dataclass(frozen=True)
class Table:
    """A space whose every point is known.

    Attributes:
        space: The space.
        value: Accuracy and minus the cost of a point.
        low: The poorest of each, from which hypervolumes are measured.
        high: The best of each.
        whole: The hypervolume of all points, of 1 for the box between `low` and `high`.
    """

    space: en.SearchSpace
    value: Callable[[Genes], Pair]
    low: Pair
    high: Pair
    whole: float

    @classmethod
    def of(cls, space: en.SearchSpace, value: Callable[[Genes], Pair]) -> Table:
        """Returns the table of a space that is gone through point by point."""
        found = np.array([value(genes) for genes in space.enumerate()])
        low, high = tuple(found.min(axis=0)), tuple(found.max(axis=0))
        whole = hypervolume(_front(_scaled(found, low, high)), (0.0, 0.0))
        return cls(space, value, low, high, whole)

    def share(self, values: Sequence[Pair]) -> float:
        """Returns the share of the whole hypervolume that some points have."""
        front = _front(_scaled(np.array(values), self.low, self.high))
        return hypervolume(front, (0.0, 0.0)) / self.whole


def macro() -> Table:
    """Returns NAS-Bench-Macro: mean accuracy against multiply-adds."""
    entries = json.loads(Path(os.environ["EVONAS_DATA"], MACRO_FILE).read_text())
    space = en.SearchSpace({f"layer{i}": ["0", "1", "2"] for i in range(8)})

    def value(genes: Genes) -> Pair:
        entry = entries["".join(genes.values())]
        return entry["mean_acc"], -entry["flops"]

    return Table.of(space, value)


def cells() -> Table:
    """Returns the cells trained on digits: validation accuracy against weights."""
    names = ["".join(map(str, edge)) for edge in EDGES]
    table = cells_table()

    def value(genes: Genes) -> Pair:
        cell = tuple(genes[name] for name in names)
        return float(table[cell][-2]), -float(sum(map(_N_BLOCKS.__getitem__, cell)))

    return Table.of(en.SearchSpace({name: list(OPERATIONS) for name in names}), value)


PROBLEMS: dict[str, Callable[[], Table]] = {"macro": macro, "cells": cells}


def _scaled(values: NDArray[np.float64], low: Pair, high: Pair) -> list[Pair]:
    scaled = (values - np.array(low)) / (np.array(high) - np.array(low))
    return [(float(a), float(b)) for a, b in scaled]


def _front(points: Sequence[Pair]) -> list[Pair]:
    """Returns the points that no other dominates."""
    front: list[Pair] = []
    for point in sorted(points, reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def searched(make: Callable[[], Strategy], table: Table, n: int, seed: int) -> list[Pair]:
    """Returns what one of our searches saw, in its order, each point once."""
    space = renumbered(table.space, random.Random(seed))
    objectives = (en.Objective("accuracy"), en.Objective("less"))
    history, strategy = Known(space), make()
    strategy.bind(SearchContext(space, objectives, seed, history))
    seen: list[Pair] = []
    while len(seen) < n and (proposals := strategy.ask(1)):
        for proposal in proposals:
            reused = history.seen(proposal.key)
            pair = table.value(proposal.genes)
            if not reused:
                seen.append(pair)
            number = len(history.known)
            evaluation = history.known.setdefault(proposal.key, en.Evaluation(
                number, proposal.key, proposal.genes, en.Status.OK, pair))  # fmt: skip
            strategy.tell(proposal, evaluation, reused=reused)
    return seen[:n]


def with_optuna(sampler: Any, table: Table, n: int, seed: int) -> list[Pair]:
    """Returns what a search with a sampler of Optuna saw, each point once."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    space = renumbered(table.space, random.Random(seed))
    study = optuna.create_study(directions=["maximize"] * 2, sampler=sampler(seed=seed))
    seen: dict[str, Pair] = {}
    for _ in range(10 * n):
        trial = study.ask()
        genes = suggested(space, trial)
        pair = seen.setdefault(space.key(genes), table.value(genes))
        study.tell(trial, pair)
        if len(seen) == n:
            break
    return list(seen.values())


def peers() -> Mapping[str, Callable[[Table, int, int], list[Pair]]]:
    """Returns ours, and Optuna's where it is installed."""
    found: dict[str, Callable[[Table, int, int], list[Pair]]] = {
        name: lambda table, n, seed, make=make: searched(make, table, n, seed)  # type: ignore[misc]
        for name, make in OURS.items()
    }
    if installed("optuna"):
        import optuna

        for sampler in (optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler):
            found[f"Optuna {sampler.__name__}"] = (
                lambda table, n, seed, sampler=sampler: with_optuna(sampler, table, n, seed)  # type: ignore[misc]
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table for each problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 200])
    options = parser.parse_args(argv)
    print(describe("optuna"))
    for problem in options.problems:
        table = PROBLEMS[problem]()
        print(f"\n{problem}: share of the hypervolume after N different points, n={options.seeds}")
        print(f"{'':24}" + "".join(f"{f'N={size}':>16}" for size in options.evaluations))
        for name, peer in peers().items():
            shares = []
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                seen = peer(table, max(options.evaluations), seed)
                shares.append([table.share(seen[:size]) for size in options.evaluations])
            mean = np.mean(shares, axis=0)
            error = np.std(shares, axis=0, ddof=1) / np.sqrt(len(shares))
            cells_of = (f"{m:8.4f} ±{e:.4f}" for m, e in zip(mean, error, strict=True))
            print(f"{name:24}" + "".join(f"{cell:>16}" for cell in cells_of), flush=True)


if __name__ == "__main__":
    main()

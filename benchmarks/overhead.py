"""Seconds per evaluation of evonas itself, beside DEAP's `eaSimple` on the same space.

    python -m benchmarks.overhead [--evaluations 10000] [--rounds 5]

A no-op fitness over 24 genes, three ways in turn, every round with a fresh seed: DEAP's `eaSimple`
on the evonas toolbox (nothing recorded), `evolve` in memory, and `evolve` with every evaluation
committed to a run database. Prints the median and the range of each, and their ratios to
`eaSimple`, which is the figure to compare: absolute times depend on the machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deap import algorithms, tools

import evonas as en
from benchmarks.hardware import describe

POPULATION = 100


def space() -> en.SearchSpace:
    """Returns 24 genes of four kinds, with about 10^21 points, so that duplicates are rare."""
    genes: dict[str, Any] = {}
    for index in range(6):
        genes[f"choice{index}"] = en.Categorical(["a", "b", "c", "d", "e"])
        genes[f"integer{index}"] = en.Integer(1, 32)
        genes[f"float{index}"] = en.Float(1e-4, 1e-1, log=True)
        genes[f"flag{index}"] = en.Boolean()
    return en.SearchSpace(genes)


def no_op(genes: dict[str, Any], trial: en.Trial) -> float:
    """Returns one of the genes."""
    return float(genes["integer0"])


def ea_simple(n_evaluations: int, seed: int) -> int:
    """Runs DEAP's loop until about `n_evaluations` and returns how many it made."""
    random.seed(seed)
    toolbox = en.make_toolbox(space(), fitness=no_op)
    count = 0
    evaluate = toolbox.evaluate

    def counted(individual: Any) -> tuple[float, ...]:
        nonlocal count
        count += 1
        return tuple(evaluate(individual))

    toolbox.register("evaluate", counted)
    statistics_of = tools.Statistics(lambda individual: individual.fitness.values[0])
    statistics_of.register("max", max)
    algorithms.eaSimple(
        toolbox.population(POPULATION),
        toolbox,
        cxpb=1.0,
        mutpb=1.0,
        ngen=n_evaluations // POPULATION - 1,
        stats=statistics_of,
        halloffame=tools.HallOfFame(10),
        verbose=False,
    )
    return count


def evolve(n_evaluations: int, seed: int, run_dir: Path | None) -> int:
    """Runs evonas for exactly `n_evaluations`."""
    result = en.evolve(
        space(),
        no_op,
        strategy=en.Generational(POPULATION, elite=1),
        max_evaluations=n_evaluations,
        seed=seed,
        run_dir=run_dir,
        progress=False,
    )
    return result.counts.evaluated


def seconds_per_evaluation(run: Callable[[], int]) -> float:
    """Returns the wall-clock seconds of `run` over what it says it evaluated."""
    began = time.perf_counter()
    count = run()
    return (time.perf_counter() - began) / count


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    n = arguments.evaluations
    times: dict[str, list[float]] = {"eaSimple": [], "in memory": [], "database": []}
    for seed in range(arguments.rounds):
        times["eaSimple"].append(seconds_per_evaluation(lambda: ea_simple(n, seed)))  # noqa: B023
        times["in memory"].append(seconds_per_evaluation(lambda: evolve(n, seed, None)))  # noqa: B023
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            times["database"].append(seconds_per_evaluation(lambda: evolve(n, seed, path)))  # noqa: B023
    print(describe())
    print(f"{n} evaluations of 24 genes, population {POPULATION}, n = {arguments.rounds} rounds")
    print(f"{'':<12} {'us/evaluation':>14} {'range':>16} {'x eaSimple':>11} {'range':>13}")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["eaSimple"], strict=True)]
        print(
            f"{name:<12} {1e6 * statistics.median(values):>14.1f}"
            f" {1e6 * min(values):>7.1f} - {1e6 * max(values):<6.1f}"
            f" {statistics.median(ratios):>11.2f} {min(ratios):>5.2f} - {max(ratios):<5.2f}"
        )


if __name__ == "__main__":
    main()

"""How good is the best point after N evaluations: our strategies and their peers, side by side.

    EVONAS_DATA=shared/data python -m benchmarks.search_quality
    python -m benchmarks.search_quality --problems mixed layers digits --seeds 20
    python -m benchmarks.search_quality --quick
    python -m benchmarks.search_quality --ablation
    python -m benchmarks.search_quality --cost

Each problem is another instance for each seed (or the same table with its choices renumbered at
random), the same for all peers. Regret: the best score there is, less the score of the point that
the search holds for the best. A peer whose package (extra `bench`) is not installed is
left out.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

import evonas as en
from benchmarks.hardware import describe
from benchmarks.search_quality.ablation import ABLATIONS
from benchmarks.search_quality.instance import Instance
from benchmarks.search_quality.peers import OURS, OUTSIDE, Known, Peer, installed, strategy_peer
from benchmarks.search_quality.problems import PROBLEMS
from benchmarks.search_quality.quick import print_quick
from benchmarks.search_quality.recorder import STUCK_OVER, run_peer, stuck_share
from evonas.strategies import SearchContext, Strategy

__all__ = ["main"]

Floats = NDArray[np.float64]

NAMES = ("optuna", "pymoo", "pygad", "scikit-learn", "smac")
SLOW = ("SurrogateEvolution", "Optuna TPE")
COST_SIZES = (10, 100, 500, 2000)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the arguments ask for and prints it."""
    options = _options(argv)
    print(describe(*NAMES), flush=True)
    if options.cost:
        measure_cost()
        return
    if options.quick:
        print_quick()
        return
    peers = ablation_peers() if options.ablation else all_peers(options.in_flight)
    if options.peers:
        peers = {name: peer for name, peer in peers.items() if name in options.peers}
    for problem in options.problems:
        compare(problem, peers, range(options.first_seed, options.first_seed + options.seeds),
                options.evaluations, options.slow_seeds)  # fmt: skip


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--peers", nargs="+", help="names as printed; all of them by default")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--slow-seeds", type=int, help=f"of {SLOW[0]} and {SLOW[1]}")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--in-flight", type=int, default=1, help="evaluations under way (ours)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="a table in under an hour on two cores")
    what.add_argument("--ablation", action="store_true", help="what each part of ours brings")
    what.add_argument("--cost", action="store_true", help="seconds per ask of each strategy")
    return parser.parse_args(argv)


def all_peers(n_in_flight: int = 1) -> dict[str, Peer]:
    """Returns every peer whose package is installed, and says which are not."""
    peers = {name: strategy_peer(make, n_in_flight) for name, make in OURS.items()}
    for name, (package, peer) in OUTSIDE.items():
        if installed(package):
            peers[name] = peer
        else:
            print(f"{name} is left out: not installed: pip install {package}")
    return peers


def ablation_peers() -> dict[str, Peer]:
    """Returns SurrogateEvolution whole, and without one part each."""
    return {name: strategy_peer(make) for name, make in ABLATIONS.items()}


def compare(
    problem: str,
    peers: Mapping[str, Peer],
    seeds: Sequence[int],
    sizes: Sequence[int],
    n_slow_seeds: int | None,
) -> None:
    """Prints the tables of one problem."""
    make = PROBLEMS[problem]
    print(f"\n{problem}: {(make.__doc__ or '').splitlines()[0]}", flush=True)
    instances: dict[int, Instance] = {}
    rows: dict[str, tuple[Floats, Floats, float]] = {}
    for name, peer in peers.items():
        unique, called, seconds = [], [], 0.0
        for n_done, seed in enumerate(seeds):
            if seed not in instances:
                instances[seed] = make(seed)
            if n_slow_seeds and n_done >= n_slow_seeds and name in SLOW:
                break
            began = time.perf_counter()
            record = run_peer(peer, instances[seed], max(sizes), seed)
            seconds += time.perf_counter() - began
            unique.append(record.unique_regrets())
            called.append(record.call_regrets())
        milliseconds = 1000 * seconds / len(unique) / max(sizes)
        rows[name] = np.array(unique), np.array(called), milliseconds
        print(f"  {name} done, {milliseconds:.2f} ms a point", flush=True)
    instance = instances[seeds[0]]
    for place, score in enumerate(instance.scores):
        print(f"\n{problem}, regret of {score!r} after N different points (share that found it)")
        _print_table({name: (row[0][..., place], row[2]) for name, row in rows.items()}, sizes,
                     instance.tolerance)  # fmt: skip
    first = next(iter(instance.scores))
    print(f"\n{problem}, searches without a better {first!r} in their last {STUCK_OVER} points")
    _print_stuck({name: row[0][..., 0] for name, row in rows.items()}, sizes, instance.tolerance)
    print(f"\n{problem}, regret of {first!r} after N calls, repeats included")
    _print_table({name: (row[1][..., 0], row[2]) for name, row in rows.items()}, sizes,
                 instance.tolerance)  # fmt: skip


def _print_table(
    rows: Mapping[str, tuple[Floats, float]], sizes: Sequence[int], tolerance: float
) -> None:
    print(f"{'':26}" + "".join(f"{f'N={size}':>23}" for size in sizes) + f"{'n':>6}")
    ranks = {
        size: sorted(float(regrets[:, size - 1].mean()) for regrets, _ in rows.values())
        for size in sizes
    }
    for name, (regrets, _) in rows.items():
        cells = []
        for size in sizes:
            each = regrets[:, size - 1]
            error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else float("nan")
            rank = 1 + sum(other < each.mean() - 1e-12 for other in ranks[size])
            found = f"{(each <= tolerance).mean():.0%}"
            cells.append(f"{each.mean():7.3f} ±{error:.3f} {found:>4} #{rank:<2}")
        print(f"{name:26}" + "".join(f"{cell:>23}" for cell in cells) + f"{len(regrets):6}")


def _print_stuck(rows: Mapping[str, Floats], sizes: Sequence[int], tolerance: float) -> None:
    sizes = [size for size in sizes if size > STUCK_OVER]
    print(f"{'':26}" + "".join(f"{f'N={size}':>8}" for size in sizes) + f"{'n':>6}")
    for name, regrets in rows.items():
        shares = (f"{stuck_share(regrets, size, tolerance):8.0%}" for size in sizes)
        print(f"{name:26}" + "".join(shares) + f"{len(regrets):6}")


# -- cost --------------------------------------------------------------------------------------


def measure_cost() -> None:
    """Prints seconds per ask with so many evaluations told, on `mixed` (20 genes)."""
    instance = PROBLEMS["mixed"](0)
    print(f"\nseconds per ask (mean of 20, the worst in brackets) on `mixed`, {COST_SIZES} told")
    for name, make in OURS.items():
        cells = []
        for size in COST_SIZES:
            each = seconds_per_ask(make, instance, size)
            cells.append(f"{np.mean(each):.4f} ({max(each):.3f})")
        print(f"{name:26}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def seconds_per_ask(make: Callable[[], Strategy], instance: Instance, n_told: int) -> list[float]:
    """Returns the seconds of the next 20 asks once so many evaluations are on record.

    For a strategy that learns from the record they are put there at once, as by a warm start; the
    others are asked and told so many times.
    """
    space, strategy = instance.space, make()
    history = Known(space)
    if strategy.name == "SurrogateEvolution":
        rng = random.Random(0)
        while len(history.known) < n_told:
            genes = space.sample(rng)
            history.add(genes, instance.value(genes))
    strategy.bind(SearchContext(space, (en.Objective("value"),), 0, history))
    seconds: list[float] = []
    while len(history.known) < n_told + 20 or len(seconds) < 20:
        began = time.perf_counter()
        proposals = strategy.ask(1)
        taken = (time.perf_counter() - began) / len(proposals)
        for proposal in proposals:
            if len(history.known) >= n_told:
                seconds.append(taken)
            evaluation = history.add(proposal.genes, instance.value(proposal.genes))
            strategy.tell(proposal, evaluation, reused=False)
    return seconds[:20]


if __name__ == "__main__":
    main()

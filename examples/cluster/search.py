"""A search that runs on a laptop, on all cores of a machine and on a Ray cluster alike.

    python examples/cluster/search.py                      # here, one training after another
    python examples/cluster/search.py --workers 4          # here, four at once
    python examples/cluster/search.py --ray HOST:6379      # on the Ray cluster of this machine
    sbatch examples/cluster/slurm.sh                       # on the machines that Slurm gives

The problem is small, networks for handwritten digits: put your own in its place. The data are a
part of it, and travel once to each process. Stop it as you like: the same command goes on where it
stopped, also with other workers.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import evonas as en
from evonas.execution import Executor, RayExecutor
from evonas.training import ModelProblem

SPACE = {
    "width": en.Integer(8, 256, log=True),
    "n_layers": [1, 2, 3],
    "lr": en.Float(1e-4, 1e-1, log=True),
}


def model(genes: dict[str, Any]) -> nn.Module:
    """Returns the network of a point."""
    layers: list[nn.Module] = []
    for n_in in [64, *[genes["width"]] * (genes["n_layers"] - 1)]:
        layers += [nn.Linear(n_in, genes["width"]), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(genes["width"], 10))


def make_problem() -> ModelProblem:
    """Returns the search problem, with its data."""
    x, y = map(torch.from_numpy, load_digits(return_X_y=True))  # (1797, 64), (1797,)
    x = x.float() / 16
    return ModelProblem(
        SPACE, model, train=(x[:1400], y[:1400]), val=(x[1400:], y[1400:]), n_epochs=5
    )


def main() -> None:
    """Searches, and prints what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run-dir", default="runs/cluster", help="default runs/cluster")
    add("--population", type=int, default=16, help="default 16")
    add("--generations", type=int, default=4, help="a finished run goes on to it (default 4)")
    add("--workers", type=int, default=1, help="trainings at once on this machine (default 1)")
    add("--ray", metavar="ADDRESS", help="of a Ray cluster that this machine belongs to, or auto")
    add("--cpus", type=int, default=1, help="cores of one training (default 1)")
    add("--gpus", type=float, default=0, help="GPUs of one training on Ray (default 0)")
    options = parser.parse_args()
    executor: Executor | None = None
    if options.ray:
        executor = RayExecutor(
            options.ray, cpus_per_trial=options.cpus, gpus_per_trial=options.gpus
        )
    result = en.evolve(
        make_problem(),
        population=options.population,
        generations=options.generations,
        seed=0,
        run_dir=options.run_dir,
        executor=executor,
        workers=None if executor else options.workers,
        threads_per_trial=options.cpus,
    )
    champion = result.champion
    print(f"{result.counts.evaluated} trained, the best: {champion.fitness:.3f} {champion.genes}")


if __name__ == "__main__":
    main()

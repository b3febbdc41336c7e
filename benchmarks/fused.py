"""What training several candidates at once costs or gains: `python -m benchmarks.fused`.

K candidates of one network, with learning rates, momenta, weight decays, dropout and seeds of
their own, are evaluated one by one and at once (`ImageClassificationProblem.evaluate` and
`evaluate_fused`), in turn, so that a load of the machine hits both. A round is such a pair; each
has a network of its own, drawn from the family's space (`mlp`: dense networks of some thousand
weights on digits, of which a step is mostly Python).

Each line of the result is a mean with the standard deviation over rounds (n is said): seconds a
candidate by the clock and of the processor (of this process), how many times as many candidates a
second, the memory's peak, and how far the losses of the last epoch lie apart: at high rates a
training amplifies the rounding of its sums (so it does one by one, from weights that differ in the
last digit). `--device cuda:0`
measures on a GPU; `--precision bfloat16` as a search there would choose.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from benchmarks.hardware import describe
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.nas.training_genes import training_genes
from evonas.space.genes import Float
from evonas.training import (
    ModelProblem,
    PeakMemory,
    TrainingProblem,
    load_digits,
    load_image_folder,
)

__all__ = ["main"]


@dataclass(frozen=True)
class Taken:
    """What K trainings took, and what came of them."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    losses: list[float]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its table."""
    options = _options(arguments)
    problem = _dense(options) if options.family == "mlp" else _images(options)
    _print_header(options, problem)
    networks = _networks(problem, options.rounds + 1, options.seed)
    for n_candidates in options.fused:
        rows: list[tuple[Taken, Taken]] = []
        for number, network in enumerate(networks):
            points, trials = _candidates(problem, network, n_candidates, number, options)
            alone = measured(partial(one_by_one, problem, points, trials), options.device)
            points, trials = _candidates(problem, network, n_candidates, number, options)
            rows.append(
                (alone, measured(partial(at_once, problem, points, trials), options.device))
            )
        _print_rows(n_candidates, rows[1:])  # the first one loads kernels and libraries


def one_by_one(problem: Any, points: list[Any], trials: list[Trial]) -> list[float]:
    """Trains each alone; returns the losses of the last epoch."""
    for point, trial in zip(points, trials, strict=True):
        with torch_environment(trial.settings):
            problem.evaluate(point, trial)
    return [trial.history[-1].metrics["train_loss"] if trial.history else 0.0 for trial in trials]


def at_once(problem: Any, points: list[Any], trials: list[Trial]) -> list[float]:
    """Trains all at once; returns the losses of the last epoch."""
    with torch_environment(trials[0].settings):
        problem.evaluate_fused(points, trials)
    return [trial.history[-1].metrics["train_loss"] if trial.history else 0.0 for trial in trials]


def measured(train: Any, device: str) -> Taken:
    """Returns what the trainings took."""
    began, cpu = time.perf_counter(), time.process_time()
    with PeakMemory(device) as peak:
        losses = train()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return Taken(seconds, cpu_seconds, peak.memory_bytes, losses)


class _Dense(ModelProblem):
    """Dense networks on digits of 8x8: so small that a step is mostly what Python does."""

    def training_genes(self, genes: Any) -> Any:
        """Returns the genes that change no shape."""
        return {name: value for name, value in genes.items() if not name.startswith("width")}


def _dense_network(genes: Any) -> nn.Module:
    first, second = genes["width1"], genes["width2"]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, first), nn.ReLU(), nn.Dropout(genes["dropout"]),
        nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10),
    )  # fmt: skip


def _dense(options: argparse.Namespace) -> _Dense:
    space = {
        "width1": [16, 32, 64], "width2": [16, 32, 64], **training_genes(),
        "lr": Float(3e-3, 0.1, log=True),
    }  # fmt: skip
    data = load_digits(size=8)
    n = min(options.train_samples, len(data) - options.val_samples)
    return _Dense(
        space, _dense_network, data.subset(range(n)),
        data.subset(range(n, n + options.val_samples)), n_epochs=options.epochs,
        batch_size=options.batch_size, optimizer="nesterov", precision=options.precision,
    )  # fmt: skip


def _images(options: argparse.Namespace) -> ImageClassificationProblem:
    load = partial(load_image_folder, options.data_root) if options.data_root else _digits
    family, data = FAMILIES[options.family], load()
    n_val = min(options.val_samples, len(data) // 5)
    return ImageClassificationProblem(
        family.space(), family.network, data, n_epochs=options.epochs,
        batch_size=options.batch_size, n_val=n_val,
        n_train=min(options.train_samples, len(data) - n_val), precision=options.precision,
        augment=options.augment,
    )  # fmt: skip


def _networks(problem: TrainingProblem, n: int, seed: int) -> list[dict[str, Any]]:
    rng, found = random.Random(seed), []
    while len(found) < n:
        genes = problem.space.sample(rng)
        if problem.invalid_reason(genes) is None:
            found.append(genes)
    return found


def _candidates(
    problem: Any, network: dict[str, Any], n: int, number: int, options: argparse.Namespace
) -> tuple[list[Any], list[Trial]]:
    """Returns n points of one network, with training genes of their own, and their new trials."""
    rng, names = random.Random(number), set(problem.training_genes(network))
    points = [
        {**network, **{k: v for k, v in problem.space.sample(rng).items() if k in names}}
        for _ in range(n)
    ]
    settings = [
        TrialSettings(number=k, seed=100 * number + k, threads=options.threads,
                      device=options.device, problem={"precision": options.precision})
        for k in range(n)
    ]  # fmt: skip
    return points, [Trial(each) for each in settings]


def _digits() -> Any:
    return load_digits(size=32)


def _print_header(options: argparse.Namespace, problem: TrainingProblem) -> None:
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"hardware   {describe('torch')}")
    if torch.device(options.device).type == "cuda":
        print(f"           {torch.cuda.get_device_name(options.device)}, CUDA {torch.version.cuda}")
    print(f"           {options.threads} threads; load average at the start {load}")
    train, val = problem.sources(Trial())
    inputs, _ = next(iter(val.batches(1)))
    print(
        f"data       {options.data_root or 'digits'}: {len(train)} to train on, {len(val)} to "
        f"validate on, {'×'.join(map(str, inputs.shape[1:]))}"
    )
    print(
        f"training   {options.family}, {options.epochs} epochs, batch {options.batch_size}, "
        f"{options.precision}, {options.rounds} networks"
    )
    wide = "  ".join(f"{t:>14}" for t in ("s alone", "s at once", "CPU s alone", "CPU s at once"))
    print(
        f"{'K':>4}  {wide}  {'gain':>12}  {'MiB alone':>10}  {'MiB at once':>11}  "
        f"{'loss apart':>10}",
        flush=True,
    )


def _print_rows(n: int, rows: list[tuple[Taken, Taken]]) -> None:
    columns = [
        [alone.seconds / n for alone, _ in rows],
        [fused.seconds / n for _, fused in rows],
        [alone.cpu_seconds / n for alone, _ in rows],
        [fused.cpu_seconds / n for _, fused in rows],
    ]
    gains = [alone.seconds / fused.seconds for alone, fused in rows]
    apart = [
        abs(one - other) / max(abs(one), 1e-3)
        for alone, fused in rows
        for one, other in zip(alone.losses, fused.losses, strict=True)
    ]
    mib = [max(taken.memory_bytes for taken in each) >> 20 for each in zip(*rows, strict=True)]
    print(
        f"{n:>4}  " + "  ".join(f"{_mean(column, '.3f'):>14}" for column in columns)
        + f"  {_mean(gains, '.2f'):>12}  {mib[0]:>10}  {mib[1]:>11}  {max(apart):>10.1e}"
        + f"  (n = {len(rows)})",
        flush=True,
    )  # fmt: skip


def _mean(values: list[float], style: str) -> str:
    spread = stdev(values) if len(values) > 1 else float("nan")
    return f"{format(mean(values), style)} ± {format(spread, style)}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fused", description=str(__doc__).split("\n\n")[0]
    )
    add = parser.add_argument
    add("--family", choices=["mlp", *sorted(FAMILIES)], default="alexnet-small")
    add("--fused", type=int, nargs="+", default=[2, 4, 8], help="candidates at once")
    add("--data-root", type=Path, help="an ImageFolder tree (CIFAR-10); without it: digits")
    add("--train-samples", type=int, default=512)
    add("--val-samples", type=int, default=256)
    add("--epochs", type=int, default=2)
    add("--batch-size", type=int, default=32)
    add("--augment", action="store_true", help="flips and crops")
    add("--rounds", type=int, default=3, help="networks; each is trained both ways")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--device", default="cpu")
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

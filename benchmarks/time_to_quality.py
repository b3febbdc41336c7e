"""What a search finds by when, training real networks: `python -m benchmarks.time_to_quality`.

    python -m benchmarks.time_to_quality --data-root IMAGES --out DIR --plot FILE.svg

Searches the space `alexnet-small` on images in folders (CIFAR-10; without `--data-root` on digits)
with each contender, for as many seconds, on as many workers of one thread each:

* `published`: the published GA (tournaments of 3, one-point crossover, mutation with probability
  0.15, a tenth carried over). Its 50 individuals and 25 generations are scaled to the budget in
  their proportion of two to one: with about N trainings to come, `sqrt(2 N)` individuals.
* `surrogate`: `SurrogateEvolution`.
* `surrogate + pruning`: the same with `--pruner`.

Contenders take turns within each seed, which they share. Each search runs in a process of its own,
after a short training in another that brings libraries and images into memory. Its clock runs from
the start of the search (its workers' imports included), the model's thinking counts too, and what
ends after the budget does not count. Every search is a run in `--out`: stop the benchmark as you
like, and the same command goes on with it.

The table is the best validation accuracy so far at parts of the budget, mean ± standard deviation
over the seeds. All contenders choose the best of single trainings, so it flatters all of them, and
the more the more they train.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import evonas as en
from benchmarks.hardware import describe
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.nas.datasets import dataset_opener
from evonas.pruning import Pruner
from evonas.training import choose_precision

__all__ = ["Outcome", "main", "outcome_of"]

SPACE = "alexnet-small"
CONTENDERS = ("published", "surrogate", "surrogate + pruning")
PUBLISHED: dict[str, Any] = {
    "selection": "tournament",
    "tournament_size": 3,
    "crossover": "one_point",
    "crossover_prob": 1.0,
    "gene_mutation_prob": 0.15,
}
PRUNERS: dict[str, Any] = {
    "median": partial(en.MedianPruner, min_curves=5),
    "halving": partial(en.SuccessiveHalving, min_epochs=1, reduction=3),
}
PARTS = (0.25, 0.5, 0.75, 1.0)
COLOURS = ("#777777", "#0072b2", "#d55e00")  # readable by the colour-blind, too


@dataclass(frozen=True)
class Outcome:
    """What one search did.

    Attributes:
        steps: Seconds since it began, and the best validation accuracy from then on; only what
            ended within the budget.
        trained: Trainings within the budget.
        pruned: How many of these were ended early.
        failed: How many of these came to nothing.
    """

    steps: tuple[tuple[float, float], ...]
    trained: int
    pruned: int
    failed: int

    def best_at(self, seconds: float) -> float:
        """Returns the best accuracy by then; NaN while nothing had ended."""
        return max((best for moment, best in self.steps if moment <= seconds), default=math.nan)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table."""
    options = _options(arguments)
    if options.search is not None:
        try:
            search(options, *options.search)
        except en.SearchInterrupted as stopped:
            raise SystemExit(str(stopped)) from None
        return
    settings = _settings(options)
    print(_header(options, settings), flush=True)
    for seed in range(options.seeds):
        # Another one begins each time, so that no contender always has the machine first.
        turns = CONTENDERS[seed % len(CONTENDERS) :] + CONTENDERS[: seed % len(CONTENDERS)]
        for name in turns:
            folder = run_dir(options.out, name, seed)
            if _is_done(folder, options.seconds):
                continue
            _in_another_process(options, settings, "warm-up", seed)
            _in_another_process(options, settings, name, seed)
            found = outcome_of(en.open_run(folder), options.seconds)
            print(
                f"seed {seed}  {name:<20} {found.best_at(options.seconds):.4f} after"
                f" {found.trained} trainings, {found.pruned} of them pruned",
                flush=True,
            )
    outcomes = {
        name: [
            outcome_of(en.open_run(run_dir(options.out, name, seed)), options.seconds)
            for seed in range(options.seeds)
        ]
        for name in CONTENDERS
    }
    print(f"\n{table(outcomes, options.seconds)}")
    if options.plot is not None:
        plot(outcomes, options.seconds, options.plot)
        print(f"\n{options.plot} shows the curves")


# -- one search ----------------------------------------------------------------------------------


def search(options: argparse.Namespace, name: str, seed: str) -> None:
    """Runs one search to the end of its budget, or goes on with it."""
    problem = ImageClassificationProblem(
        FAMILIES[SPACE].space(),
        FAMILIES[SPACE].network,
        dataset_opener("imagefolder" if options.data_root else "digits", options.data_root),
        n_epochs=options.epochs,
        batch_size=options.batch_size,
        n_train=options.train_samples,
        n_val=options.val_samples,
        precision=options.precision,
    )
    warms_up = name == "warm-up"
    strategy, pruner = contender(name, options)
    en.evolve(
        problem,
        strategy=strategy,
        pruner=pruner,
        max_seconds=options.seconds,
        max_evaluations=1 if warms_up else None,
        run_dir=None if warms_up else run_dir(options.out, name, int(seed)),
        workers=options.workers,
        threads_per_trial=1,
        devices="cpu",
        seed=int(seed),
        progress=False,
    )


def contender(name: str, options: argparse.Namespace) -> tuple[en.Strategy, Pruner | None]:
    """Returns strategy and pruner of a contender (or of the warm-up, which trains one network)."""
    if name == "warm-up":
        return en.RandomSearch(), None
    if name == "published":
        population = scaled_population(options.expected)
        return en.Generational(population, elite=max(1, population // 10), **PUBLISHED), None
    pruner = PRUNERS[options.pruner]() if name.endswith("pruning") else None
    return en.SurrogateEvolution(row_every=10), pruner


def scaled_population(n_trainings: int) -> int:
    """Returns the published GA's population for a budget of about so many trainings.

    Example:
        >>> scaled_population(1250), scaled_population(40)
        (50, 9)
    """
    return max(4, round(math.sqrt(2 * n_trainings)))


def run_dir(out: Path, name: str, seed: int) -> Path:
    """Returns the directory of a run."""
    return out / f"{name.replace(' + ', '-')}-{seed}"


def _in_another_process(
    options: argparse.Namespace, settings: dict[str, Any], name: str, seed: int
) -> None:
    command = [sys.executable, "-m", "benchmarks.time_to_quality", "--search", name, str(seed)]
    command += ["--out", str(options.out), "--precision", settings["precision"]]
    for option, value in settings["arguments"].items():
        if value is not None:
            command += [f"--{option.replace('_', '-')}", str(value)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise SystemExit(f"{name} of seed {seed} ended with {status}: the same command goes on")


def _is_done(folder: Path, seconds: float) -> bool:
    return (folder / "run.db").exists() and en.open_run(folder).seconds >= seconds


# -- what came of it -----------------------------------------------------------------------------


def outcome_of(result: en.Result, seconds: float) -> Outcome:
    """Returns what a run did in its first `seconds`, over all its starts."""
    spent, starts = 0.0, []
    for session in result.sessions:
        starts.append((session["started_at"], spent))
        spent += session["seconds"]
    ended = []
    for entry in result.evaluations:
        began, before = max(start for start in starts if start[0] <= entry.started_at)
        moment = before + entry.started_at + entry.seconds - began
        if moment <= seconds and entry.status is not en.Status.INVALID:
            ended.append((moment, entry))
    steps: list[tuple[float, float]] = []
    for moment, entry in sorted(ended, key=lambda pair: pair[0]):
        if entry.status is en.Status.OK and (not steps or entry.values[0] > steps[-1][1]):
            steps.append((moment, entry.values[0]))
    statuses = [entry.status for _, entry in ended]
    return Outcome(
        tuple(steps),
        len(statuses),
        statuses.count(en.Status.PRUNED),
        sum(status.is_failure for status in statuses),
    )


def table(outcomes: dict[str, list[Outcome]], seconds: float) -> str:
    """Returns the table for people."""
    heads = [f"{part:.0%} ({part * seconds:.0f} s)" for part in PARTS]
    lines = [
        "best validation accuracy so far, mean ± standard deviation over seeds",
        f"{'':<20} " + " ".join(f"{head:>18}" for head in heads)
        + f" {'n':>3} {'trained':>14} {'pruned':>14} {'failed':>7}",
    ]  # fmt: skip
    for name, runs in outcomes.items():
        cells = [_spread([run.best_at(part * seconds) for run in runs], ".4f") for part in PARTS]
        lines.append(
            f"{name:<20} " + " ".join(f"{cell:>18}" for cell in cells) + f" {len(runs):>3}"
            f" {_spread([float(run.trained) for run in runs], '.1f'):>14}"
            f" {_spread([float(run.pruned) for run in runs], '.1f'):>14}"
            f" {sum(run.failed for run in runs):>7}"
        )
    baseline = outcomes[CONTENDERS[0]]
    for name in CONTENDERS[1:]:
        gains = [
            ours.best_at(seconds) - theirs.best_at(seconds)
            for ours, theirs in zip(outcomes[name], baseline, strict=True)
        ]
        sooner = [
            _seconds_to(ours, theirs.best_at(seconds)) / seconds
            for ours, theirs in zip(outcomes[name], baseline, strict=True)
        ]
        lines.append(
            f"{name} minus {CONTENDERS[0]} at the end, paired by seed: {_spread(gains, '+.4f')};"
            f" reaches its end after {', '.join(_share(part) for part in sooner)} of the budget"
        )
    return "\n".join(lines)


def _seconds_to(run: Outcome, accuracy: float) -> float:
    return next((moment for moment, best in run.steps if best >= accuracy), math.inf)


def _share(part: float) -> str:
    return f"{part:.0%}" if math.isfinite(part) else "more than 100%"


def _spread(values: Sequence[float], style: str) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    deviation = statistics.stdev(known) if len(known) > 1 else math.nan
    missing = "" if len(known) == len(values) else f" (n={len(known)})"
    return f"{statistics.mean(known):{style}} ± {deviation:{style.lstrip('+')}}{missing}"


def plot(outcomes: dict[str, list[Outcome]], seconds: float, file: Path) -> None:
    """Draws the mean best accuracy over seconds, and each seed's own.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'evonas[bench]'") from None
    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    moments = [seconds * step / 400 for step in range(401)]
    for (name, runs), colour in zip(outcomes.items(), COLOURS, strict=True):
        curves = [[run.best_at(moment) for moment in moments] for run in runs]
        for curve in curves:
            axes.step(moments, curve, where="post", color=colour, linewidth=0.7, alpha=0.4)
        mean = [statistics.fmean(column) for column in zip(*curves, strict=True)]
        axes.step(moments, mean, where="post", color=colour, linewidth=2.2, label=name)
    axes.set(xlabel="seconds", ylabel="best validation accuracy so far", xlim=(0, seconds))
    axes.grid(color="#e3e7eb")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, title=f"mean of {len(runs)} seeds (thin: each)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


# -- options and settings ------------------------------------------------------------------------

KEPT = (
    "data_root", "seconds", "train_samples", "val_samples", "epochs", "batch_size", "workers",
    "expected", "pruner",
)  # fmt: skip


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what all searches share, kept in `--out` by the first start.

    Raises:
        SystemExit: This start has other arguments.
    """
    given = {name: getattr(options, name) for name in KEPT}
    given["data_root"] = options.data_root and str(options.data_root.absolute())
    file = options.out / "settings.json"
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        for name, value in given.items():
            if value != kept["arguments"][name]:
                raise SystemExit(
                    f"{options.out} was begun with --{name.replace('_', '-')}"
                    f" {kept['arguments'][name]}, here {value}: name another --out"
                )
        return kept
    settings = {
        "arguments": given,
        # Chosen once, so that all searches train in the same one.
        "precision": options.precision or choose_precision("cpu", 1),
        "hardware": describe("torch"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")
    return settings


def _header(options: argparse.Namespace, settings: dict[str, Any]) -> str:
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    population = scaled_population(options.expected)
    return (
        f"hardware   {settings['hardware']}\n"
        f"           {options.workers} workers of one thread; load average now {load}\n"
        f"job        {SPACE} on {options.data_root or 'digits'}: {options.train_samples} images to"
        f" train on, {options.val_samples} to validate on, {options.epochs} epochs in batches of"
        f" {options.batch_size}, {settings['precision']}\n"
        f"budget     {options.seconds:g} s a search, {options.seeds} seeds;"
        f" published GA with {population} individuals, pruner {options.pruner}\n"
        f"runs       {options.out}"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality", description=str(__doc__).split("\n\n")[0]
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="images as train/CLASS/FILE (CIFAR-10); else digits")
    add("--out", type=Path, required=True, help="where the runs are kept")
    add("--seconds", type=float, default=230.0, help="of each search (default 230)")
    add("--seeds", type=int, default=3, help="default 3; more may be added later")
    add("--train-samples", type=int, default=4000)
    add("--val-samples", type=int, default=2000)
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=128)
    add("--workers", type=int, default=2, help="trainings at once (default 2)")
    add("--expected", type=int, default=40, help="trainings that the budget is likely to allow, "
        "to which the published GA's population is scaled (default 40)")  # fmt: skip
    add("--pruner", choices=PRUNERS, default="median", help="default median")
    add("--precision", choices=["float32", "bfloat16"], help="default: the faster one here")
    add("--plot", type=Path, metavar="FILE", help="a picture of the curves (.svg, .png)")
    add("--search", nargs=2, metavar=("CONTENDER", "SEED"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

"""Evolves AlexNet-like networks on CIFAR-10 (or on your own images).

    python examples/cifar10_alexnet.py                       # the published search
    python examples/cifar10_alexnet.py --preset quick        # digits, under 90 s on two cores
    python examples/cifar10_alexnet.py --space alexnet-small --train-samples 8000 --population 16
    python examples/cifar10_alexnet.py --dataset imagefolder --data-root IMAGES
    python examples/cifar10_alexnet.py --minutes 30          # search and train, in this time
    python examples/cifar10_alexnet.py --strategy auto --max-evaluations 100 --pruner median
    python examples/cifar10_alexnet.py --strategy nsga2 --objectives accuracy params

Without options it is the published search: 50 individuals, 25 generations, the 5 best carried
over; each child from two tournaments of 3, one-point crossover, each gene mutated with
probability 0.15; every network trained for 5 epochs in batches of 128. Stop it as you like: the
same command goes on where it stopped.

`--minutes` does all in a given time: it searches the space `resnet`, which begins with a network
written down by hand, trains the best one on all images, and ends with its test accuracy. How the
time is divided follows from how fast networks train here. `--max-macs` and `--max-params` limit
what a network may cost.

`--strategy surrogate` trains what a model of all trainings so far holds to be promising (`auto`
chooses it for most budgets); `--pruner` ends poor trainings early. With several `--objectives` the
search ends with the Pareto front: the networks that no other beats in one of them without losing in
another. `latency` is measured: use one worker then, and expect no two runs to be the same.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from in_minutes import add_minutes_options, in_minutes, metadata_of, settle_minutes
from no_search import print_comparison
from search_options import (
    Parser,
    add_strategy_options,
    budget,
    count,
    front_table,
    make_objectives,
    make_pruner,
    make_strategy,
    settle,
)
from tqdm import tqdm

import evonas as en
from evonas.callbacks import ProgressBar, RunInfo, format_duration
from evonas.execution import SerialExecutor
from evonas.execution.choice import available_cores
from evonas.execution.torch_env import resolve_device
from evonas.nas import FAMILIES, ImageClassificationProblem, NasRunFiles
from evonas.nas.datasets import (
    DATASETS,
    dataset_label,
    dataset_opener,
    has_part,
    open_dataset,
    val_opener,
)
from evonas.run.repeats import weights_text

PUBLISHED: dict[str, Any] = {
    "dataset": "cifar10",
    "space": "alexnet",
    "train_samples": None,
    "val_samples": None,
    "population": 50,
    "generations": 25,
    "elite": 5,
    "epochs": 5,
    "batch_size": 128,
    "threads": None,
    "seed": None,
    "run_dir": None,
}
PRESETS: dict[str, dict[str, Any]] = {
    "published": PUBLISHED,
    # Digits are learned in few steps, so smaller batches make a network show what it can do.
    "quick": {
        **PUBLISHED,
        "dataset": "digits",
        "space": "alexnet-small",
        "train_samples": 500,
        "val_samples": 500,
        "population": 10,
        "generations": 5,
        "elite": 2,
        "epochs": 3,
        "batch_size": 32,
        # Networks this small lose more by waiting for a second thread than it computes.
        "threads": 1,
        "seed": 0,
        "run_dir": "runs/cifar10-alexnet-quick",
    },
}
LONG_SECONDS = 6 * 3600.0


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one-cycle": {"optimizer": "nesterov", "schedule": "one_cycle"},
}


def main(argv: list[str] | None = None) -> int:
    """Runs the search that the command line asks for; returns the exit status."""
    parser = make_parser()
    options = parse(parser, argv)
    try:
        return search(parser, options)
    except KeyboardInterrupt as stopped:  # SearchInterrupted says what is saved
        print(f"\n{str(stopped) or 'stopped: the same command goes on'}", file=sys.stderr)
        return 130
    except (en.EvonasError, FileNotFoundError) as error:  # no run to start warm from
        print(f"\nerror: {error}", file=sys.stderr)
        return 1


def search(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Searches, confirms, and prints what was found."""
    try:
        device = resolve_device(options.device)
        if options.minutes is not None:
            return in_minutes(parser, options, device)
        problem = make_problem(options, device)
        strategy = make_strategy(options)
    except (ValueError, TypeError) as wrong:  # of the options: each names its own
        parser.error(str(wrong))
    describe(problem, options, device)
    observers: list[en.Observer] = [Forecast(device, options.quiet)]
    if not options.quiet:
        observers.append(ProgressBar(rows=sys.stdout))
    start = FAMILIES[options.space].start
    result = en.evolve(
        problem,
        strategy=strategy,
        **budget(options),
        patience=options.patience,
        pruner=make_pruner(options),
        initial=[] if start is None else [start()],
        warm_start=options.warm_start,
        run_dir=options.run_dir,
        workers=options.workers,
        devices=device,
        threads_per_trial=options.threads,
        deterministic=options.deterministic,
        seed=options.seed,
        progress=False,
        callbacks=observers,
        metadata=metadata_of(options),
    )
    if options.confirm_seeds:
        confirm(problem, options, device)
        result = en.open_run(options.run_dir)
    report(problem, result, options)
    if options.preset == "quick" and has_part(options.dataset, options.data_root, "test"):
        print_comparison(
            problem,
            result,
            open_dataset(
                options.dataset, root=options.data_root, part="test", size=options.image_size
            ),
            NasRunFiles(options.run_dir, problem).champion.with_suffix(".trained.pt"),
            flips=options.dataset != "digits",
            device=device,
            threads=options.threads,
        )
    return 0


def make_problem(options: argparse.Namespace, device: str) -> ImageClassificationProblem:
    """Returns the problem of the options; opens (and downloads) the images."""
    if options.dataset == "imagefolder" and options.data_root is None:
        raise ValueError("--dataset imagefolder needs --data-root, the folder of the images")
    family = FAMILIES[options.space]
    continues = options.strategy == "hyperband"
    return ImageClassificationProblem(
        with_epochs(family.space(), options.epochs) if continues else family.space(),
        family.network,
        dataset_opener(options.dataset, options.data_root, size=options.image_size),
        val=val_opener(options.dataset, options.data_root, size=options.image_size),
        n_epochs=options.epochs,
        batch_size=options.batch_size,
        n_train=options.train_samples,
        n_val=options.val_samples,
        split_seed=options.split_seed,
        augment=options.augment,
        **RECIPES[options.recipe],
        device=device,
        threads=options.threads or max(1, available_cores() // (options.workers or 1)),
        precision=options.precision,
        objectives=make_objectives(options),
        name="alexnet" if options.space.startswith("alexnet") else options.space,
        dataset=dataset_label(options.dataset, options.data_root),
    )


def with_epochs(space: en.SearchSpace, most: int) -> en.SearchSpace:
    """Returns the space with the gene `n_epochs`, for trainings that go on where others ended."""
    return en.SearchSpace(
        {**dict(space.items()), "n_epochs": en.Integer(1, most)},
        conditions=space.conditions,
        constraints=space.constraints,
    )


def describe(problem: ImageClassificationProblem, options: argparse.Namespace, device: str) -> None:
    """Prints what is about to be searched."""
    train, val = problem.splits
    size = "x".join(map(str, problem.in_shape))
    n_points = problem.space.cardinality
    points = "continuous" if math.isinf(n_points) else f"{n_points:,} points"
    chosen = ""
    if options.strategy != "published":
        chosen = f"strategy {options.strategy}, for {' and '.join(options.objectives)}\n"
    print(
        f"{problem.dataset}: {len(train):,} training and {len(val):,} validation images of {size},"
        f" {problem.n_classes} classes\n"
        f"space {options.space} ({points}), {options.epochs} epochs a network, on {device}\n"
        f"{chosen}run {options.run_dir}",
        flush=True,
    )


class Forecast(en.Observer):
    """Says how long the search will take, after the first training of this start."""

    def __init__(self, device: str, quiet: bool) -> None:
        self._device, self._due = device, not quiet

    def on_start(self, info: RunInfo) -> None:
        """Keeps what is known of the run, and says where it goes on."""
        self._info = info
        if info.resumed and self._due:
            print(f"going on after {info.counts.evaluated} trainings", flush=True)

    def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
        """Prints the forecast once."""
        most = self._info.max_evaluations
        if not self._due or evaluation.status is not en.Status.OK or most is None:
            return
        self._due = False
        seconds = without_warming_up(evaluation)
        left = (most - self._info.counts.evaluated) * seconds
        lines = [
            f"one training takes about {format_duration(seconds)}; up to {most:,} are planned:"
            f" about {format_duration(left)} to go"
        ]
        if left > LONG_SECONDS and self._device == "cpu":
            lines += [
                "on this CPU, rather use one of:",
                "  --preset quick                                  (digits, a minute)",
                "  --space alexnet-small --train-samples 8000 --val-samples 2000 --population 16"
                " --generations 10",
                "  --device cuda                                   (on a machine that has a GPU)",
                "Ctrl-C stops; every finished training is kept",
            ]
        tqdm.write("\n".join(lines), file=sys.stdout)


def without_warming_up(evaluation: en.Evaluation) -> float:
    """Returns the seconds that a training like this takes once torch has loaded its kernels."""
    epochs = evaluation.epochs
    if len(epochs) < 2:
        return evaluation.seconds
    return (epochs[-1].seconds - epochs[0].seconds) / (len(epochs) - 1) * len(epochs)


def confirm(problem: ImageClassificationProblem, options: argparse.Namespace, device: str) -> None:
    """Trains the best five again on fresh seeds and prints their means."""
    n_seeds = options.confirm_seeds
    print(f"\nthe best five again, each on {n_seeds} fresh seeds:")
    with tqdm(total=5 * n_seeds, unit="", disable=options.quiet or None, leave=False) as bar:
        confirmed = en.confirm(
            problem,
            options.run_dir,
            top=5,
            repeats=n_seeds,
            executor=SerialExecutor(device),
            on_repeat=lambda evaluation, repeat: bar.update(),
        )
    print(f"{'network':>8} {'search':>8} {'mean':>8} {'std':>8}")
    for entry in confirmed:
        print(
            f"{entry.evaluation.number:>8} {entry.evaluation.values[0]:>8.4f}"
            f" {entry.mean:>8.4f} {entry.std:>8.4f}"
        )


def report(
    problem: ImageClassificationProblem, result: en.Result, options: argparse.Namespace
) -> None:
    """Prints the champion, its files, and what to do with it."""
    champion, counts = result.champion, result.counts
    pruned = counts.by_status.get("pruned", 0)
    first = options.objectives[0]
    named = "validation accuracy" if first == "accuracy" else first
    files = NasRunFiles(Path(options.run_dir), problem)
    print(
        f"\n{result.stop_reason}: {counts.evaluated} networks trained"
        + (f" ({pruned} of them pruned)" if pruned else "")
        + f", {counts.reused} duplicates reused,"
        f" {counts.by_status.get('invalid', 0)} without a valid shape,"
        f" {counts.failed} failed, in {format_duration(result.seconds)}\n"
        f"\nchampion: network {champion.number}, {named} {champion.values[0]:.4f}"
        + "".join(
            f" (mean of {len(entry.values)} fresh seeds: {entry.mean:.4f})"
            for entry in result.confirmed
            if entry.evaluation.key == champion.key
        )
        + f", {champion.metrics['params']:,} weights"
    )
    width = max(map(len, champion.genes))
    for name, value in champion.genes.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"  {name:<{width}}  {shown}")
    if len(result.objectives) > 1:
        print(f"\n{front_table(result, 'network')}")
    weights = weights_text(champion, result.objectives) if champion.repeats else ""
    trainer = Path(sys.argv[0]).with_name("train_champion.py")
    print(
        f"\nits code:     {files.champion}   (runs alone: python {files.champion.name} IMAGE)\n"
        f"its weights:  {files.champion_weights}{weights and f'   ({weights})'}\n"
        f"every network: {files.architecture(0).parent}, {files.statistics(0).parent}\n"
        "\ntrain it for longer, on all training images, and test it:\n"
        f"  python {shlex.quote(str(trainer))} {shlex.quote(str(options.run_dir))} --epochs 50"
    )


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Returns the options: those given, else the preset's."""
    options = parser.parse_args(argv)
    settle_minutes(parser, options)
    settle(parser, options, PRESETS[options.preset])
    if options.run_dir is None:
        options.run_dir = f"runs/{options.dataset}-{options.space}"
    options.run_dir = Path(options.run_dir)
    if options.data_root is None and options.dataset == "cifar10":
        options.data_root = Path("data")
    return options


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser; options that a preset sets have no default of their own."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    preset: dict[str, Any] = {"default": argparse.SUPPRESS}
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="published", help="defaults of all other options")
    add_minutes_options(parser)
    add("--run-dir", **preset, help="where everything is kept (default: runs/DATASET-SPACE)")
    add("--seed", type=count(0), **preset, help="of everything random (default: drawn, and kept)")

    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--dataset", choices=DATASETS, **preset, help="default: cifar10, downloaded")
    add("--data-root", type=Path, help="of the images; CIFAR-10 is kept there (default: data)")
    add("--image-size", type=count(8), default=32, help="of imagefolder and digits (default 32)")
    add("--train-samples", type=count(1), **preset, help="default: all that are not validated on")
    add("--val-samples", type=count(1), **preset, help="default: a fifth of the images")
    add("--split-seed", type=count(0), default=0, help="which images are validated on")
    add("--augment", action="store_true", help="flip and crop the training images")
    add("--recipe", choices=RECIPES, default="plain",
        help="a constant rate (as published, the default), or Nesterov in one cycle")  # fmt: skip

    group = parser.add_argument_group("search")
    add = group.add_argument
    add("--space", choices=FAMILIES, **preset, help="default: alexnet")
    add("--population", type=count(2), **preset, help="default 50")
    add("--generations", type=count(1), **preset, help="default 25; a finished run goes on to it")
    add("--elite", type=count(0), **preset, help="carried over unchanged (default 5)")
    kinds = ["tournament", "roulette", "best"]
    add("--selection", choices=kinds, **preset, help="default tournament")
    add("--tournament", type=count(1), **preset, help="individuals in one (default 3)")
    kinds = ["one_point", "two_point", "uniform", "blend"]
    add("--crossover", choices=kinds, **preset, help="default one_point")
    add("--crossover-prob", type=float, **preset, help="default 1")
    add("--mutation-prob", type=float, **preset, help="of each gene (default 0.15)")
    add("--max-seconds", type=float, help="stop after so many seconds, over all starts")
    add("--patience", type=count(1), help="stop after so many generations without a better best")
    add("--confirm-seeds", type=count(1), metavar="N", help="train the best 5 on N fresh seeds")
    costs = ("params", "macs", "latency", "train_seconds")
    add_strategy_options(parser, costs, with_epochs=True)

    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=count(1), **preset, help="of each network (default 5)")
    add("--batch-size", type=count(1), **preset, help="default 128")
    add("--device", default="auto", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    add("--workers", type=count(1), help="trainings at once, each in a process (default: one)")
    add("--threads", type=count(1), **preset, help="of one training (default: cores / workers)")
    add("--precision", choices=["float32", "bfloat16"], help="default: the faster one here")
    add("--deterministic", action="store_true", help="bit-identical runs on a GPU too, slower")
    add("--quiet", action="store_true", help="no bar and no line per generation")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""What `cifar10_alexnet.py --minutes` does: search, training and test, all in that time."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from search_options import GA_OPTIONS, count

from evonas.callbacks import ProgressBar, format_duration
from evonas.nas import FAMILIES, search_and_train
from evonas.nas.datasets import dataset_label, dataset_opener, has_part, open_dataset, val_opener
from evonas.nas.time_plan import TimePlan
from evonas.training.resumable import Progress

__all__ = [
    "add_minutes_options",
    "in_minutes",
    "metadata_of",
    "print_progress",
    "settle_minutes",
]

SETTLED_BY_MINUTES = (
    *GA_OPTIONS, "train_samples", "val_samples", "epochs", "augment", "max_evaluations",
    "max_seconds", "patience", "confirm_seeds", "warm_start", "workers", "precision",
    "deterministic",
)  # fmt: skip
DEFAULTS = {
    "strategy": "published", "recipe": "plain", "pruner": "none", "objectives": ["accuracy"],
}  # fmt: skip
LIMITS = ("max_macs", "max_params")


def add_minutes_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--minutes` and the limits that go with it."""
    add = parser.add_argument_group("in a given time").add_argument
    add("--minutes", type=float, help="search and train what is found, all in this time")
    add("--max-macs", type=count(1), help="most multiply-adds of an image, with --minutes")
    add("--max-params", type=count(1), help="most weights of a network, with --minutes")


def settle_minutes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Chooses the space, and ends the program where options exclude `--minutes` or need it."""
    if options.minutes is None:
        if options.max_macs or options.max_params:
            parser.error("--max-macs and --max-params need --minutes")
        return
    if not hasattr(options, "space"):
        options.space = "resnet"
    given = [name for name in SETTLED_BY_MINUTES if getattr(options, name, None)]
    given += [name for name, value in DEFAULTS.items() if getattr(options, name) != value]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        parser.error(f"{named} cannot be given with --minutes, which settles it")


def in_minutes(parser: argparse.ArgumentParser, options: argparse.Namespace, device: str) -> int:
    """Searches and trains the champion in the minutes of the options; prints the test accuracy."""
    family = FAMILIES[options.space]
    if family.start is None:
        known = ", ".join(name for name, entry in FAMILIES.items() if entry.start)
        parser.error(f"--minutes needs --space {known}, which begins with a hand-made network")
    where = {"root": options.data_root, "size": options.image_size}
    if not has_part(options.dataset, options.data_root, "test"):
        parser.error(f"--minutes needs test images to end with: {options.data_root} has no test/")
    test = open_dataset(options.dataset, part="test", **where)
    limits = {name: getattr(options, name) for name in LIMITS if getattr(options, name)}
    if limits:
        limits["in_shape"] = test.shape
    found = search_and_train(
        family.space(**limits),
        family.network,
        dataset_opener(options.dataset, **where),
        test,
        start=family.start(**limits),
        seconds=60 * options.minutes,
        run_dir=options.run_dir,
        val=val_opener(options.dataset, **where),
        flips=options.dataset != "digits",
        batch_size=options.batch_size,
        device=device,
        threads=options.threads,
        seed=options.seed or 0,
        name=options.space,
        dataset=dataset_label(options.dataset, options.data_root),
        progress=False,
        callbacks=[] if options.quiet else [ProgressBar(rows=sys.stdout)],
        metadata=metadata_of(options),
        on_plan=partial(describe_plan, options, device),
        report=None if options.quiet else print_progress,
    )
    champion, final = found.result.champion, found.final
    print(
        f"\n{f'champion of {found.n_trained} networks' if found.n_trained else 'hand-made'}:"
        f" {champion.metrics['params']:,} weights, {champion.metrics['macs']:,} multiply-adds;"
        f" trained for {final.progress.steps:,} steps, {final.progress.epoch} epochs\n"
        f"its code:     {found.code}\nits weights:  {found.weights}"
        f'   (load("{found.weights.name}") in {found.code.name})'
    )
    if final.score != final.plain_score:
        print(f"averaged over each test image and its mirror image: {final.score:.4f}")
    print(f"test accuracy {final.plain_score:.4f}")
    return 0


def describe_plan(options: argparse.Namespace, device: str, plan: TimePlan) -> None:
    """Prints how the minutes are divided."""
    search, final = plan.search_seconds / 60, (plan.seconds - plan.search_seconds) / 60
    if search:
        divided = (
            f"{search:.1f} minutes of search ({plan.n_epochs} epochs of {plan.n_train:,} images a"
            f" network), {final:.1f} of training what it finds"
        )
    else:
        divided = f"too slow for a search in {final:.1f} minutes, which train this network"
    print(
        f"{options.dataset}: space {options.space}, on {device}, run {options.run_dir}\n"
        f"an epoch of the hand-made network takes about {format_duration(plan.epoch_seconds)}:"
        f" {divided}",
        flush=True,
    )


def print_progress(progress: Progress) -> None:
    """Prints a line after each epoch of the final training."""
    left = progress.seconds / max(progress.share, 1e-9) * (1 - progress.share)
    print(
        f"epoch {progress.epoch:>4}  training loss {progress.loss:.4f}"
        f"  {format_duration(left)} to go",
        flush=True,
    )


def metadata_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what `train_champion.py` reads from the run."""
    return {
        "example": "cifar10_alexnet",
        "dataset": options.dataset,
        "data_root": None if options.data_root is None else str(options.data_root.absolute()),
        "image_size": options.image_size,
        "space": options.space,
    }

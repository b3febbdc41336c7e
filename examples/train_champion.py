"""Trains the champion of a search for longer, on all training images, and tests it.

    python examples/train_champion.py runs/cifar10-alexnet --epochs 50

The champion's genes and data come from the run. What differs from the search: the validation
images are trained on too (where there is a test part), and the training follows the recipe `long`
of `evonas.nas.recipes`: flips, crops and cutout, a learning rate that rises to the champion's and
falls to zero, averaged weights. The test images decide nothing: they are looked at once, at the
end. Stop it as you like: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from in_minutes import print_progress

import evonas as en
from evonas.exceptions import DataError, RunMismatchError
from evonas.execution import TrialSettings
from evonas.execution.choice import available_cores
from evonas.execution.torch_env import resolve_device
from evonas.nas import FAMILIES, ImageClassificationProblem, NasRunFiles
from evonas.nas.datasets import dataset_label, has_part, open_dataset, val_opener
from evonas.nas.final_training import train_final
from evonas.nas.recipes import recipe
from evonas.records import Genes
from evonas.training import Examples, FlipCrop
from evonas.training.data.parts import matched

AUGMENTATIONS = {
    "flip-crop": FlipCrop(),
    "crop": FlipCrop(flip=False, pad=2),
    "cutout": FlipCrop(pad=2, cutout=8),
    "none": False,
}


def main(argv: list[str] | None = None) -> int:
    """Trains and tests; returns the exit status."""
    options = make_parser().parse_args(argv)
    try:
        train(options)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on", file=sys.stderr)
        return 130
    except (en.EvonasError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(options: argparse.Namespace) -> float:
    """Trains the champion, prints and returns its test accuracy, and saves its weights."""
    result = en.open_run(options.run)
    problem = open_problem(result, options)
    champion = result.champion
    genes = with_overrides(champion.genes, options)
    metadata = result.record.metadata
    learnt, test, part = parts(problem, metadata, options.data_root or metadata["data_root"])
    device = resolve_device(options.device)
    precision = problem.configure(None)["precision"]
    print(
        f"network {champion.number} of {options.run}: validation accuracy {champion.values[0]:.4f}"
        f" in the search\n{len(learnt):,} training and {len(test):,} {part} images,"
        f" {options.epochs} epochs, {problem.transform}, {precision} on {device}"
    )
    files = NasRunFiles(options.run, problem)
    weights = files.champion.with_name(f"{files.champion.stem}-trained.pt")
    final = train_final(
        problem,
        genes,
        learnt,
        test,
        weights=weights,
        n_epochs=options.epochs,
        settings=TrialSettings(
            seed=options.seed,
            device=device,
            threads=options.threads or available_cores(),
            process=result.record.process,
        ),
        report=print_progress,
    )
    if problem.test_time_flip:
        print(f"\naveraged over each {part} image and its mirror image: {final.score:.4f}")
    print(
        f"\n{part} accuracy {final.plain_score:.4f}\n"
        f'weights: {weights}   (load("{weights.name}") in {files.champion.name})'
    )
    return final.plain_score


def parts(
    problem: ImageClassificationProblem, metadata: Mapping[str, Any], root: Path | None
) -> tuple[Examples, Examples, str]:
    """Returns the images to train on, those to report on, and what to call these."""
    if not has_part(metadata["dataset"], root, "test"):
        print(f"{root} has no test/: trained without the validation images, and reported on them")
        learnt, held_out = (problem.data.subset(indices) for indices in problem.splits)
        return learnt, held_out, "validation"
    test = open_dataset(metadata["dataset"], root, size=metadata["image_size"], part="test")
    # Normalised as in the search, so that the weights fit the champion's module.
    return problem.data, matched(test, problem.data, "test"), "test"


def open_problem(result: en.Result, options: argparse.Namespace) -> ImageClassificationProblem:
    """Returns the problem of a run on the same images, with the recipe of a long training.

    Raises:
        RunMismatchError: The run is not one of the architecture search.
        DataError: The images are not those of the run.
    """
    metadata, found = result.record.metadata, result.record.fingerprint
    if metadata.get("example") != "cifar10_alexnet":
        raise RunMismatchError(
            f"{result.run_dir} must be a run of examples/cifar10_alexnet.py, which keeps its data"
            f" set in the run; found {metadata or 'nothing'}"
        )
    root = options.data_root or metadata["data_root"]
    flips, side = metadata["dataset"] != "digits", metadata["image_size"]
    data = open_dataset(metadata["dataset"], root, size=side)
    training = recipe(
        "long", flips=flips, side=side, n_images=len(data),
        n_params=int(result.champion.metrics["params"]), n_epochs=options.epochs,
    )  # fmt: skip
    if options.augment is not None:
        training["augment"] = AUGMENTATIONS[options.augment]
        training["test_time_flip"] = options.augment in ("flip-crop", "cutout")
    family = FAMILIES[metadata["space"]]
    problem = ImageClassificationProblem(
        family.space(),
        family.network,
        data,
        val=val_opener(metadata["dataset"], root, size=metadata["image_size"]),
        batch_size=found["batch_size"],
        n_train=found["n_train"],
        n_val=found["n_val"],
        split_seed=found["split_seed"],
        precision=found["precision"],
        **training,
        name="alexnet" if metadata["space"].startswith("alexnet") else metadata["space"],
        dataset=dataset_label(metadata["dataset"], root),
    )
    if problem.fingerprint()["data"] != found["data"]:
        raise DataError(
            f"the images in {root} are not those of the run {result.run_dir}: pass the right ones"
            " with --data-root"
        )
    return problem


def with_overrides(genes: Genes, options: argparse.Namespace) -> Genes:
    """Returns the genes with the learning rate and weight decay of the command line."""
    changed = dict(genes)
    if options.lr is not None:
        changed["lr"] = options.lr
    if options.weight_decay is not None:
        changed["weight_decay"] = options.weight_decay
    # The published space has none; for fifty epochs instead of five a network needs some.
    changed.setdefault("weight_decay", 5e-4)
    return changed


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="the run's directory")
    add("--epochs", type=int, default=50)
    add("--lr", type=float, help="the highest learning rate (default: the champion's)")
    add("--weight-decay", type=float, help="default: the champion's, else 5e-4")
    add("--augment", choices=AUGMENTATIONS, help="default: cutout, for digits crop")
    add("--data-root", type=Path, help="where the images are now (default: where they were)")
    add("--device", default="auto", help="cpu, cuda, … (default: a GPU if there is one)")
    add("--threads", type=int, help="default: all cores")
    add("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())

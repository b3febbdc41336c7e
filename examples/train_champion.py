"""Trains the champion of a search for longer, on all training images, and tests it.

    python examples/train_champion.py runs/cifar10-alexnet --epochs 50

The champion's genes and data come from the run. What differs from the search: the validation
images are trained on too (where there is a test part), the images are flipped and cropped at
random, and the learning rate rises to the champion's and then falls to zero (one cycle). The test
images decide nothing: they are reported on after each epoch, and the last one counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

import evonas as en
from evonas.callbacks import format_duration
from evonas.exceptions import DataError, RunMismatchError
from evonas.execution import TrialSettings
from evonas.execution.choice import available_cores
from evonas.execution.torch_env import resolve_device, torch_environment
from evonas.nas import FAMILIES, ImageClassificationProblem, NasRunFiles
from evonas.nas.datasets import dataset_label, dataset_opener, has_part, open_dataset, val_opener
from evonas.nas.problem import GRAD_CLIP
from evonas.records import Genes
from evonas.training import Examples, FlipCrop, fit, place

AUGMENTATIONS = {"flip-crop": FlipCrop(), "crop": FlipCrop(flip=False, pad=2), "none": None}
WARMUP = 0.15  # of all steps


def main(argv: list[str] | None = None) -> int:
    """Trains and tests; returns the exit status."""
    options = make_parser().parse_args(argv)
    try:
        train(options)
    except KeyboardInterrupt:
        print("\nstopped: nothing was saved", file=sys.stderr)
        return 130
    except (en.EvonasError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(options: argparse.Namespace) -> float:
    """Trains the champion, prints and returns its test accuracy, and saves its weights."""
    result = en.open_run(options.run)
    problem = open_problem(result, options.data_root)
    champion = result.champion
    genes = with_overrides(champion.genes, options)
    metadata = result.record.metadata
    learnt, test, part = parts(problem, metadata, options.data_root or metadata["data_root"])
    device = resolve_device(options.device)
    precision = problem.configure(None)["precision"]
    augment = options.augment or ("crop" if metadata["dataset"] == "digits" else "flip-crop")
    n_train, n_test = len(learnt), len(test)
    print(
        f"network {champion.number} of {options.run}: validation accuracy {champion.values[0]:.4f}"
        f" in the search\n{n_train:,} training and {n_test:,} {part} images,"
        f" {options.epochs} epochs, {augment}, {precision} on {device}"
    )
    settings = TrialSettings(
        seed=options.seed,
        device=device,
        threads=options.threads or available_cores(),
        process=result.record.process,
    )
    with torch_environment(settings):
        model = place(problem.build(genes), device)
        n_steps = options.epochs * -(-n_train // problem.batch_size)
        accuracy = fit(
            model,
            learnt.to(device),
            test.to(device),
            n_epochs=options.epochs,
            batch_size=problem.batch_size,
            optimizer=problem.optimizer(model, genes),
            scheduler=partial(
                OneCycleLR,
                max_lr=problem.prm(genes)["lr"],
                total_steps=n_steps,
                pct_start=WARMUP,
                cycle_momentum=False,
            ),
            step_scheduler=True,
            seed=options.seed,
            loss_function=problem.loss_function(genes),
            precision=precision,
            augment=AUGMENTATIONS[augment],
            grad_clip=GRAD_CLIP,
            report=Lines(options.epochs, part),
        )
    files = NasRunFiles(options.run, problem)
    weights = files.champion.with_name(f"{files.champion.stem}-trained.pt")
    save(model, weights)
    print(
        f"\n{part} accuracy {accuracy:.4f}\n"
        f'weights: {weights}   (load("{weights.name}") in {files.champion.name})'
    )
    return accuracy


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
    return problem.data, test.normalised_like(problem.data), "test"


def open_problem(result: en.Result, data_root: Path | None) -> ImageClassificationProblem:
    """Returns the problem of a run, on the same images.

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
    root = data_root or metadata["data_root"]
    family = FAMILIES[metadata["space"]]
    problem = ImageClassificationProblem(
        family.space(),
        family.network,
        dataset_opener(metadata["dataset"], root, size=metadata["image_size"]),
        val=val_opener(metadata["dataset"], root, size=metadata["image_size"]),
        n_epochs=found["n_epochs"],
        batch_size=found["batch_size"],
        n_train=found["n_train"],
        n_val=found["n_val"],
        split_seed=found["split_seed"],
        precision=found["precision"],
        optimizer=found["optimizer"],
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


class Lines:
    """Prints a line per epoch, and a bar below them."""

    def __init__(self, n_epochs: int, part: str) -> None:
        self._began = time.monotonic()
        self._n_epochs = n_epochs
        print(f"{'epoch':>5} {'train loss':>10} {part + ' accuracy':>19} {'time left':>10}")

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Prints the epoch's line."""
        left = (time.monotonic() - self._began) / (epoch + 1) * (self._n_epochs - epoch - 1)
        print(
            f"{epoch + 1:>5} {metrics['train_loss']:>10.4f} {metrics['accuracy']:>19.4f}"
            f" {format_duration(left):>10}",
            flush=True,
        )


def save(model: torch.nn.Module, path: Path) -> None:
    """Writes the weights, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    torch.save(weights, part)
    part.replace(path)


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
    add("--augment", choices=AUGMENTATIONS, help="default: flip-crop, for digits crop")
    add("--data-root", type=Path, help="where the images are now (default: where they were)")
    add("--device", default="auto", help="cpu, cuda, … (default: a GPU if there is one)")
    add("--threads", type=int, help="default: all cores")
    add("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())

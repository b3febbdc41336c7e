"""Finds which blocks of a pretrained ResNet-18 to freeze when it is fine-tuned on your images.

    python examples/resnet_freezing.py --data-root IMAGES              # downloads the weights
    python examples/resnet_freezing.py --data-root IMAGES --weights resnet18.pth
    python examples/resnet_freezing.py --weights none                  # digits, untrained: a try

`--data-root` holds `train/` and `test/` (or `val/`) with a folder for each class. Masks are scored
on images held out of the training folder; the test images are used once, for the table at the end.
`--strategy`, `--objectives`, `--pruner` and `--warm-start` are those of all examples.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from freezing_options import (
    add_search_options,
    compute_options,
    kind_of_problem,
    parse,
    run_script,
    search,
)
from search_options import count
from torch import nn

from evonas.exceptions import DataError
from evonas.freezing import Examples
from evonas.freezing.images import as_imagenet
from evonas.nas.datasets import has_part, open_dataset
from evonas.training import split
from evonas.training.data.split import sample

PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        "train_samples": None,
        "val_samples": None,
        "test_samples": None,
        "population": 16,
        "generations": 8,
        "elite": 2,
        "mutation_prob": 0.15,
        "epochs": 3,
        "batch_size": 64,
        "lr": 1e-3,
        "granularity": "block",
        "confirm_seeds": 3,
        "random_masks": 3,
        "seed": None,
        "workers": None,
        "threads": None,
        "run_dir": "runs/resnet-freezing",
    }
}


@dataclass(frozen=True)
class ResNet18:
    """A model factory: ResNet-18 with a new last layer.

    Args:
        weights: `imagenet` (downloaded by torchvision once), the file of a state_dict, or `none`.
        n_classes: Outputs of the last layer.
    """

    weights: str
    n_classes: int

    def __call__(self) -> nn.Module:
        """Returns the model; its last layer is initialised from torch's global generator.

        Raises:
            DataError: The weights cannot be downloaded or read, or are another model's.
        """
        from torchvision.models import ResNet18_Weights, resnet18

        model: nn.Module = resnet18()
        try:
            if self.weights == "imagenet":
                state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True)
                model.load_state_dict(state)
            elif self.weights != "none":
                state = torch.load(self.weights, map_location="cpu", weights_only=True)
                model.load_state_dict({k: v for k, v in state.items() if "fc." not in k}, False)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(
                f"the weights {self.weights!r} of ResNet-18 could not be loaded ({reason}): pass "
                "--weights FILE (a state_dict of torchvision's resnet18), or --weights none"
            ) from error
        model.fc = nn.Linear(model.fc.in_features, self.n_classes)
        return model


def main(options: argparse.Namespace) -> None:
    """Reads the images, searches, and prints the table."""
    name = "digits" if options.data_root is None else "imagefolder"
    images = open_dataset(name, options.data_root, size=options.image_size)
    train, val = parts(name, images, options)
    factory = ResNet18(options.weights, images.n_classes)
    problem = kind_of_problem(options)(
        factory,
        as_imagenet(train),
        as_imagenet(val),
        **compute_options(options),
    )
    search(
        problem,
        test_examples(name, images, options),
        options,
        metadata={"example": "resnet_freezing", "weights": options.weights},
    )


def parts(name: str, images: Examples, options: argparse.Namespace) -> tuple[Examples, Examples]:
    """Returns what to train and to validate on: the folder's own validation part if it has one."""
    n_train, n_val, seed = options.train_samples, options.val_samples, options.split_seed
    if not has_part(name, options.data_root, "val"):
        train, val = split(images, seed=seed, n_train=n_train, n_val=n_val)
        return images.subset(train), images.subset(val)
    given = open_dataset(name, options.data_root, size=options.image_size, part="val")
    return (
        images.subset(sample(images.targets, min(n_train or len(images), len(images)), seed)),
        given.subset(sample(given.targets, min(n_val or len(given), len(given)), seed)),
    )


def test_examples(name: str, images: Examples, options: argparse.Namespace) -> Examples | None:
    """Returns the test images, None where the folder has none.

    Raises:
        DataError: Their classes are others.
    """
    try:
        test = open_dataset(name, options.data_root, size=options.image_size, part="test")
    except DataError as missing:
        if "found no test/" not in str(missing):
            raise
        return None
    if test.classes != images.classes:
        raise DataError(f"the test images have other classes: {test.classes}, not {images.classes}")
    if options.test_samples is not None and options.test_samples < len(test):
        test = test.subset(split(test, n_val=options.test_samples, seed=options.split_seed)[1])
    return as_imagenet(test)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser; options that a preset sets have no default of their own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="full", help=argparse.SUPPRESS)
    add("--data-root", type=Path, help="of the images (default: scikit-learn's digits)")
    add("--image-size", type=count(32), default=64, help="height and width (default 64)")
    add("--weights", default="imagenet", help="imagenet (default), the file of a state_dict, none")
    add("--split-seed", type=count(0), default=0, help="which images are drawn and held out")
    add_search_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(main, parse(make_parser(), PRESETS, None)))

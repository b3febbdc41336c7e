"""A whole transfer-learning story in a minute: pretrain on some digits, fine-tune on the others.

    python examples/custom_freezing.py

A small convolutional network is trained on the digits 0 to 4 (scikit-learn's, no download). Then it
is fine-tuned on 5 to 9, of which there are only a few examples: which of its blocks should be
frozen? Copy this script, freezing_options.py and search_options.py into one folder, and put your
own network and data in the two marked places.
`--objectives accuracy trainable_share --strategy nsga2` asks for the best mask of each size.
"""

from __future__ import annotations

import argparse
import copy
import sys
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
from torch import Tensor, nn

from evonas.nas.datasets import open_dataset
from evonas.training import Examples, fit, seeded, split

PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        "train_samples": 60,
        "val_samples": 150,
        "test_samples": None,
        "population": 12,
        "generations": 4,
        "elite": 2,
        "mutation_prob": 0.2,
        "epochs": 8,
        "batch_size": 10,
        "lr": 3e-3,
        "granularity": "stage",
        "confirm_seeds": 5,
        "random_masks": 3,
        "seed": 0,
        "workers": None,
        # Networks this small lose more by waiting for a second thread than it computes.
        "threads": 1,
        "run_dir": "runs/custom-freezing",
    }
}
OLD, NEW = range(5), range(5, 10)


class Network(nn.Module):
    """Your own network: any module does."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1 = self.block(1, 16)
        self.conv2 = self.block(16, 32)
        self.conv3 = self.block(32, 32)
        self.dense1 = nn.Sequential(nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Dropout(0.2))
        self.dense2 = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, n_classes)

    @staticmethod
    def block(n_in: int, n_out: int) -> nn.Module:
        """Returns a convolution that halves height and width, with batch norm."""
        return nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scores `(B, classes)` of images `(B, 1, 32, 32)`."""
        features = self.conv3(self.conv2(self.conv1(images)))
        return self.head(self.dense2(self.dense1(features.flatten(1))))


def main(options: argparse.Namespace) -> None:
    """Pretrains, searches, and prints the table."""
    digits = open_dataset("digits")
    pretrained = pretrain(only(digits, OLD), options.split_seed)

    def factory() -> nn.Module:
        model = copy.deepcopy(pretrained)
        model.head = nn.Linear(64, len(NEW))  # its classes are new
        return model

    # Your own data: Examples, or (inputs, targets).
    new = only(digits, NEW)
    train, val = split(
        new, seed=options.split_seed, n_train=options.train_samples, n_val=options.val_samples
    )
    problem = kind_of_problem(options)(
        factory, new.subset(train), new.subset(val), **compute_options(options)
    )
    test = only(open_dataset("digits", part="test"), NEW)
    search(problem, test, options, metadata={"example": "custom_freezing"})


def pretrain(images: Examples, seed: int) -> nn.Module:
    """Returns the network trained on the old classes."""
    train, val = split(images, seed=seed)
    with seeded(seed):
        model = Network(len(OLD))
        accuracy = fit(
            model,
            images.subset(train),
            images.subset(val),
            n_epochs=6,
            batch_size=32,
            optimizer=lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3),
            seed=seed,
        )
    print(f"pretrained on {len(train)} digits 0 to 4: validation accuracy {accuracy:.3f}")
    return model


def only(images: Examples, digits: range) -> Examples:
    """Returns the images of some digits, numbered from 0."""
    chosen = torch.isin(images.targets, torch.tensor(digits)).nonzero().flatten()
    part = images.subset(chosen)
    names = tuple(str(digit) for digit in digits)
    return Examples(part.inputs, part.targets - digits.start, names, mean=part.mean, std=part.std)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser; options that a preset sets have no default of their own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="full", help=argparse.SUPPRESS)
    add("--split-seed", type=count(0), default=0, help="of pretraining, and of the examples drawn")
    add_search_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(main, parse(make_parser(), PRESETS, None)))

"""Pretrained models and small data for them, for `benchmarks.recipes`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evonas.exceptions import DataError
from evonas.freezing import Examples
from evonas.freezing.images import EfficientNetLite0, as_imagenet
from evonas.freezing.text import MINILM, TextClassifier, tokenise
from evonas.nas.datasets import open_dataset
from evonas.training import fit, load_image_folder, seeded, split
from evonas.training.data.corpora import hold_out, read_tsv

__all__ = ["STORIES", "Story"]

N_VAL = {400: 400, 2_000: 1_000, 256: 512, 2_048: 1_000}
N_TEST = 2_000


@dataclass(frozen=True)
class Story:
    """What is fine-tuned on what.

    Attributes:
        factory: Of the pretrained model.
        train: The training examples.
        val: The examples by which recipes and rates are chosen.
        test: The examples of the table.
        settings: Arguments of `RecipeProblem`.
    """

    factory: Callable[[], nn.Module]
    train: Examples
    val: Examples
    test: Examples
    settings: dict[str, Any]


class Net(nn.Module):
    """A small residual network, pretrained by the story that uses it.

    Args:
        n_in: Channels of an image.
        widths: Of its stages, each of which halves height and width.
        n_classes: Outputs.
    """

    def __init__(self, n_in: int, widths: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(n_in, widths[0], 3, padding=1, bias=False),
                                  nn.BatchNorm2d(widths[0]), nn.ReLU())  # fmt: skip
        pairs = list(zip((widths[0], *widths[:-1]), widths, strict=True))
        self.stages = nn.ModuleList(_Stage(n, m) for n, m in pairs)
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scores `(B, classes)` of images `(B, C, H, W)`."""
        features = self.stem(images)
        for stage in self.stages:
            features = stage(features)
        return self.head(features.amax((2, 3)))


class _Stage(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(n, m, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(m), nn.ReLU()
        )
        self.more = nn.Sequential(
            nn.Conv2d(m, m, 3, padding=1, bias=False), nn.BatchNorm2d(m), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.more(x)


def digits(folder: Path) -> Story:
    """Digits 5 to 9 with 60 images, pretrained on 0 to 4."""
    old, new = (_only(open_dataset("digits"), low) for low in (0, 5))
    model = _pretrained(Net(1, (16, 32, 32), 5), old, n_epochs=6, file=folder / "digits.pt")
    train, val = split(new, n_train=60, n_val=150, seed=0)
    test = _only(open_dataset("digits", part="test"), 5)
    settings = {"n_epochs": 8, "batch_size": 10, "lr": (1e-3, 3e-3, 1e-2)}
    return Story(_WithHead(model, 5), new.subset(train), new.subset(val), test, settings)


def cifar_half(folder: Path) -> Story:
    """Five classes of CIFAR-10 with 400 images, pretrained on the other five."""
    root = _folder("cifar10")
    old = _only(load_image_folder(root, split="train", limit=30_000), 0)
    new = _only(load_image_folder(root, split="train", limit=3_000, seed=1), 5)
    test = _only(load_image_folder(root, split="test", limit=2 * N_TEST), 5)
    widths = (32, 64, 128)
    model = _pretrained(Net(3, widths, 5), old, n_epochs=6, file=folder / "cifar-half.pt")
    train, val = split(new, n_train=400, n_val=500, seed=0)
    settings = {"n_epochs": 6, "batch_size": 32, "lr": (1e-3, 3e-3, 1e-2), "ranks": (8,)}
    return Story(_WithHead(model, 5), new.subset(train), new.subset(val), test, settings)


def efficientnet(folder: Path, n_train: int) -> Story:
    """CIFAR-10 for an EfficientNet-Lite0 with ImageNet weights, at 64 pixels."""
    root, n_val = _folder("cifar10"), N_VAL[n_train]
    both = as_imagenet(load_image_folder(root, size=64, split="train", limit=n_train + n_val))
    test = as_imagenet(load_image_folder(root, size=64, split="test", limit=N_TEST))
    train, val = split(both, n_val=n_val, seed=0)
    settings = {
        "n_epochs": 3, "lr": (3e-4, 1e-3, 3e-3), "granularity": "stage", "ranks": (8,),
    }  # fmt: skip
    return Story(EfficientNetLite0(10, 64), both.subset(train), both.subset(val), test, settings)


def minilm(folder: Path, n_train: int) -> Story:
    """SST-2 for all-MiniLM-L6-v2: phrases to train and to choose on, whole sentences to test."""
    root, n_val = _folder("sst2"), N_VAL[n_train]
    sentences, test = read_tsv(root / "train.tsv"), read_tsv(root / "test.tsv")
    train, val = hold_out(sentences.sample(n_train + n_val, 0), n_val, 0)
    factory = TextClassifier(MINILM, 2)
    tokenizer = factory.tokenizer()
    parts = [tokenise(tokenizer, part.texts, part.labels) for part in (train, val, test)]
    settings = {"n_epochs": 2, "lr": (5e-5, 2e-4, 5e-4), "ranks": (8,)}
    return Story(factory, *parts, settings)


STORIES: dict[str, Callable[[Path], Story]] = {
    "digits": digits,
    "cifar-half": cifar_half,
    "efficientnet-400": lambda folder: efficientnet(folder, 400),
    "efficientnet-2000": lambda folder: efficientnet(folder, 2_000),
    "minilm-256": lambda folder: minilm(folder, 256),
    "minilm-2048": lambda folder: minilm(folder, 2_048),
}
"""Name to a function of the folder in which pretrained weights are kept."""


class _WithHead:
    """A model factory: a copy of a pretrained network with a new head."""

    def __init__(self, model: Net, n_classes: int) -> None:
        self.model, self.n_classes = model, n_classes

    def __call__(self) -> nn.Module:
        model = copy.deepcopy(self.model)
        model.head = nn.Linear(model.head.in_features, self.n_classes)
        return model


def _pretrained(model: Net, images: Examples, *, n_epochs: int, file: Path) -> Net:
    """Trains a network, once: its weights are kept in the file."""
    if not file.exists():
        train, val = split(images, n_val=len(images) // 10, seed=0)
        with seeded(0):
            accuracy = fit(
                model, images.subset(train), images.subset(val), n_epochs=n_epochs, batch_size=64,
                optimizer=lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3), seed=0,
            )  # fmt: skip
        print(f"pretrained on {len(train):,} images: validation accuracy {accuracy:.3f}")
        torch.save(model.state_dict(), file)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model


def _only(images: Examples, low: int) -> Examples:
    """Returns the images of five classes from one on, numbered from 0."""
    chosen = ((images.targets >= low) & (images.targets < low + 5)).nonzero().flatten()
    part = images.subset(chosen)
    names = (part.classes or ())[low : low + 5]
    return Examples(part.inputs, part.targets - low, names, mean=part.mean, std=part.std)


def _folder(name: str) -> Path:
    root = Path(os.environ.get("EVONAS_DATA", "")) / name
    if "EVONAS_DATA" not in os.environ or not root.is_dir():
        raise DataError(f"EVONAS_DATA must name a folder with {name}/: found no {root}")
    return root

"""Validation and test examples as a model that learnt from the training examples needs them."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import torch

from evonas.evolution.random_state import borrowed_global_rng
from evonas.exceptions import DataError
from evonas.space.naming import readable_name
from evonas.training.data.batches import BatchSource
from evonas.training.data.examples import Examples
from evonas.training.data.structure import tensors_in
from evonas.training.seeding import seeded

__all__ = ["matched", "preprocessing_of", "refuse_other_shapes"]

_N_READ = 3  # batches, of which the shapes of images are known


def matched(part: Examples, train: Examples, name: str) -> Examples:
    """Returns `part`, labelled and normalised like the training examples.

    Labels follow the names of the classes: a part that lacks one would else number the others
    differently. Images are normalised by the training images' mean and standard deviation.

    Args:
        part: What a model is judged by.
        train: What it learns from.
        name: What an error calls `part`.

    Raises:
        DataError: `part` has a class that `train` has not, or images of another shape.
        ValueError: It has images of another dtype.
    """
    if part.classes and train.classes and part.classes != train.classes:
        unknown = [each for each in part.classes if each not in train.classes]
        if unknown:
            raise DataError(
                f"{name} has classes that train has not: {', '.join(unknown)}; those of train are "
                f"{', '.join(train.classes)}"
            )
        numbers = torch.tensor([train.classes.index(each) for each in part.classes])
        part = part.relabelled(numbers[part.targets.cpu()], train.classes)
    if not (part.is_images and train.is_images):
        return part
    dtypes = [each.inputs_dtype for each in (train, part)]
    if torch.uint8 in dtypes and dtypes[0] != dtypes[1]:
        raise ValueError(
            f"{name} must have images of the dtype of train, {dtypes[0]}, got {dtypes[1]}: uint8 "
            "is normalised, other images are taken as they are"
        )
    refuse_other_shapes(part, train, name)
    is_alike = (part.mean, part.std) == (train.mean, train.std)
    return part if is_alike or part.shape[0] != train.shape[0] else part.normalised_like(train)


def refuse_other_shapes(part: BatchSource, train: BatchSource, name: str) -> None:
    """Refuses images of another size, or with other channels, than those to train on.

    Of a data set or a loader a few batches are read; where their images differ among themselves,
    they may.

    Args:
        part: What a model is judged by.
        train: What it learns from.
        name: What an error calls `part`.

    Raises:
        DataError: All images of the one have a shape, and those of the other another.
    """
    found = _image_shapes(part)
    expected = _image_shapes(train) if found else ()
    for shape, wanted in zip(found, expected, strict=False):
        if shape != wanted:
            raise DataError(
                f"{name} must have images (C, H, W) of the shape of train, {wanted}, got {shape}: "
                f"read both in one size (load_image_folder(..., size={wanted[-1]})), or resize "
                "and convert them in the data set's transform"
            )


def _image_shapes(source: BatchSource) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes (C, H, W) of the images among the inputs; (): they have no single one."""
    if isinstance(source, Examples):
        batches = [source.gather(torch.arange(1))]
    else:
        with seeded(0), borrowed_global_rng(random.Random(0)):
            batches = [inputs for inputs, _ in islice(source.batches(1), _N_READ)]
    found = {
        tuple(tuple(image.shape[1:]) for image in tensors_in(inputs) if image.ndim == 4)
        for inputs in batches
    }
    return found.pop() if len(found) == 1 else ()


def preprocessing_of(train: Any) -> dict[str, Any]:
    """Returns how inputs become what a model takes, as JSON: what its users must do, too.

    `(input / scale - mean) / std` for each channel and the `size` (height, width) of the images,
    where they are normalised, the name of the `transform` of the user's that follows, and the names
    of the `classes`; {}: it is not known, or nothing is done.
    """
    if not isinstance(train, Examples):
        return {}
    found: dict[str, Any] = {}
    if train.mean:
        scale = 255 if train.inputs_dtype == torch.uint8 else 1
        found = {"scale": scale, "mean": list(train.mean), "std": list(train.std)}
        if train.is_images:
            found["size"] = list(train.shape[1:])
    if train.transform is not None:
        found["transform"] = " ".join(readable_name(train.transform, "lambda").split())
    return {**found, "classes": list(train.classes)} if train.classes else found

"""The data sets that the examples know by name, each with a part that no search ever sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from evonas.exceptions import DataError
from evonas.training import Examples, load_cifar10, load_digits, load_image_folder, split
from evonas.training.data.sources import Part, image_parts

__all__ = [
    "DATASETS",
    "dataset_label",
    "dataset_opener",
    "has_part",
    "open_dataset",
    "val_opener",
]

DATASETS = ("cifar10", "imagefolder", "digits")
_N_DIGITS_FOR_TEST = 360
_DIGITS_SEED = 0  # of the division into training and test images, which is the same for everyone


def open_dataset(
    name: str, root: str | Path | None = None, *, size: int = 32, part: Part = "train"
) -> Examples:
    """Returns the training, validation or test images of a data set.

    * `cifar10`: in `root` (default `data`), downloaded where it is not there.
    * `imagefolder`: the parts that `load_image_folder` finds in `root`; where its folders are
      classes, all images are for training.
    * `digits`: scikit-learn's, 1,437 training and 360 test images, the same for everyone.

    Args:
        name: One of `DATASETS`.
        root: Where the images are.
        size: Height and width to which images of `imagefolder` and `digits` are brought.
        part: Which images.

    Raises:
        ValueError: The name is unknown, or `imagefolder` has no root.
        DataError: The images are missing or damaged.
    """
    if part == "val" and name in ("cifar10", "digits"):
        raise DataError(f"the data set {name} has no validation part of its own")
    if name == "cifar10":
        return load_cifar10(root or "data", train=part == "train")
    if name == "digits":
        digits = load_digits(size)
        train, test = split(digits, n_val=_N_DIGITS_FOR_TEST, seed=_DIGITS_SEED)
        return digits.subset(train if part == "train" else test)
    if name != "imagefolder":
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if root is None:
        raise ValueError("the data set imagefolder needs the root of its images (--data-root)")
    if part != "train" and not has_part(name, root, part):
        raise DataError(f"{root} must hold a folder for each class in {part}/: found no {part}/")
    return load_image_folder(root, size=size, split=None if part == "train" else part)


def has_part(name: str, root: str | Path | None, part: Part) -> bool:
    """Whether a data set comes with its own validation or test images."""
    if name != "imagefolder":
        return part != "val"
    return root is not None and part in image_parts(root)


def dataset_opener(
    name: str, root: str | Path | None = None, *, size: int = 32, part: Part = "train"
) -> Callable[[], Examples]:
    """Returns a function that opens images: what a problem wants as its data.

    The root becomes absolute, so that a worker in another directory finds it.
    """
    absolute = None if root is None else str(Path(root).expanduser().absolute())
    return partial(open_dataset, name, absolute, size=size, part=part)


def val_opener(
    name: str, root: str | Path | None = None, *, size: int = 32
) -> Callable[[], Examples] | None:
    """Returns a function that opens the validation images, or None where there are none given."""
    return (
        dataset_opener(name, root, size=size, part="val") if has_part(name, root, "val") else None
    )


def dataset_label(name: str, root: str | Path | None = None) -> str:
    """Returns the data set's name in the names of a run's files.

    Example:
        >>> dataset_label("cifar10"), dataset_label("imagefolder", "/data/My Flowers")
        ('cifar-10', 'my-flowers')
    """
    if name == "cifar10":
        return "cifar-10"
    if name == "imagefolder" and root is not None:
        folder = Path(root).expanduser().absolute().name.lower()
        return re.sub(r"[^a-z0-9]+", "-", folder).strip("-")[:64] or name
    return name

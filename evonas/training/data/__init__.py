"""Data in memory: one container for examples of any kind, where it comes from, its batches.

- `Examples`: inputs and targets, gathered a batch at a time on the training device.
- `load_cifar10`, `load_image_folder`, `load_digits`, `from_dataset`, `from_tensors`: sources.
- `split`: a seeded, stratified division.
- `FlipCrop`, `Augment`: random changes of training images.
"""

from __future__ import annotations

from evonas.training.data.batches import Augment, Batch, BatchSource, FlipCrop, Inputs
from evonas.training.data.examples import Examples, as_bytes, as_examples
from evonas.training.data.sources import (
    from_dataset,
    from_tensors,
    load_cifar10,
    load_digits,
    load_image_folder,
)
from evonas.training.data.split import split

__all__ = [
    "Augment",
    "Batch",
    "BatchSource",
    "Examples",
    "FlipCrop",
    "Inputs",
    "as_bytes",
    "as_examples",
    "from_dataset",
    "from_tensors",
    "load_cifar10",
    "load_digits",
    "load_image_folder",
    "split",
]

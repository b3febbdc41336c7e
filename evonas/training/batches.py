"""Data that lives on the training device and is normalised and augmented there, a batch a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from evonas.training.data import ImageData, as_index

__all__ = ["Augment", "Batch", "BatchSource", "DeviceData", "FlipCrop"]

Inputs = Tensor | Mapping[str, Tensor] | Sequence[Tensor]
Batch = tuple[Inputs, Tensor]
"""`(inputs, targets)`: inputs are a tensor, or a mapping that is passed as keyword arguments."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""`(images (B, C, H, W) before normalisation, CPU generator)` to images of the same shape."""


class BatchSource(Protocol):
    """What `fit` trains and validates on; `DeviceData` for images, anything alike for others."""

    def __len__(self) -> int:
        """How many examples there are."""

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        augment: Any = None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Iterates once over the examples, on the training device."""


@dataclass(frozen=True, slots=True)
class FlipCrop:
    """Random horizontal flips and shifted crops of a whole batch, on its device.

    Args:
        flip: Whether each image is mirrored with probability 1/2.
        pad: Each image is padded by so many black pixels on every side and cropped back at a
            random place. 0: no crop.

    Raises:
        ValueError: `pad` is negative.

    Example:
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> FlipCrop(pad=4)(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """

    flip: bool = True
    pad: int = 4

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad must be at least 0, got {self.pad}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns new images `(B, C, H, W)`; draws 3 numbers for each image from `generator`."""
        n, _, height, width = images.shape
        # Drawn on the CPU whatever the device: the same seed gives the same crops everywhere.
        draws = torch.rand(3, n, generator=generator).to(images.device)
        if self.pad:
            padded = functional.pad(images, (self.pad,) * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, P, P, H, W)
            y, x = (draws[:2] * (2 * self.pad + 1)).long()
            images = windows[torch.arange(n, device=images.device), :, y, x]
        if self.flip:
            images = torch.where((draws[2] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
        return images


class DeviceData:
    """Examples on the training device, stored as they came (uint8) and normalised per batch.

    On the CPU a memory-mapped cache stays mapped (nothing is copied where the layout fits), so
    several worker processes share its pages.

    Args:
        data: The examples.
        device: Where to train.
        indices: The examples to use, in order; None uses all.
        dtype: Of the inputs that `batches` yields.
        channels_last: Whether 4-D inputs come in channels-last memory (faster convolutions).

    Raises:
        TypeError: `indices` are not integers.
        ValueError: `indices` are none, or outside the data.

    Example:
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> data = DeviceData(ImageData(images, torch.tensor([0, 1, 0, 1]), ("a", "b")), "cpu")
        >>> [len(labels) for inputs, labels in data.batches(3, seed=0, shuffle=True)]
        [3, 1]
    """

    def __init__(
        self,
        data: ImageData,
        device: str | torch.device,
        *,
        indices: Sequence[int] | Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.n_classes = data.n_classes
        self.channels_last = channels_last and data.images.ndim == 4
        # Stored with channels where a batch wants them, so that gathering rows is all there is.
        stored = data.images.movedim(1, -1) if self.channels_last else data.images
        self._index: Tensor | None = None
        labels = data.labels
        if indices is not None:
            index = as_index(indices, len(data))
            labels = labels[index]
            if self.device.type == "cpu":
                self._index = index
            else:
                stored = stored[index]
        self._stored = stored.contiguous().to(self.device)
        self._labels = labels.to(self.device)
        self._scale, self._shift = _affine(data, self.channels_last, self.device)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """The labels `(N,)` in stored order, on the device."""
        return self._labels

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        augment: Augment | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterates over `(inputs (B, C, H, W), labels (B,))`, each example once.

        Args:
            batch_size: Examples a batch; the last may have fewer.
            seed: Decides order and augmentation; needed for either. Nothing global is drawn from.
            shuffle: Whether to draw the order; else the stored order.
            augment: Applied to each batch before it is normalised.
            drop_last: Whether to leave out a last batch with fewer examples.

        Raises:
            ValueError: `batch_size` is below 1, the seed is missing, or nothing would come out.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if (shuffle or augment is not None) and seed is None:
            raise ValueError("seed must be given where batches are shuffled or augmented, got None")
        if drop_last and len(self) < batch_size:
            raise ValueError(
                f"drop_last leaves no batch: batch_size is {batch_size}, examples are {len(self)}"
            )
        return self._iterate(batch_size, seed, shuffle, augment, drop_last)

    def _iterate(
        self,
        batch_size: int,
        seed: int | None,
        shuffle: bool,
        augment: Augment | None,
        drop_last: bool,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed or 0)
        n = len(self)
        order = torch.randperm(n, generator=generator) if shuffle else torch.arange(n)
        order = order.to(self.device)
        for chosen in torch.split(order, batch_size):
            if drop_last and len(chosen) < batch_size:
                return
            rows = chosen if self._index is None else self._index[chosen]
            images = self._stored.index_select(0, rows)
            labels = self._labels.index_select(0, chosen)
            if augment is not None:
                # An augmentation sees (B, C, H, W), whatever the memory behind it.
                images = images.movedim(-1, 1) if self.channels_last else images
                images = augment(images, generator)
                images = images.movedim(1, -1).contiguous() if self.channels_last else images
            yield self._normalise(images), labels

    def _normalise(self, images: Tensor) -> Tensor:
        if self._scale is not None and self._shift is not None:
            # float32 first: bfloat16 has too few digits for the product.
            images = torch.addcmul(self._shift, images.float(), self._scale)
        images = images.to(self.dtype)
        return images.movedim(-1, 1) if self.channels_last else images


def _affine(
    data: ImageData, channels_last: bool, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Returns `(scale, shift)` with `normalised = stored * scale + shift`, broadcastable."""
    if not data.mean or not data.std:
        return None, None
    unit = 255.0 if data.images.dtype == torch.uint8 else 1.0
    mean, std = torch.tensor(data.mean).double(), torch.tensor(data.std).double()
    shape = (-1,) if channels_last else (-1,) + (1,) * (data.images.ndim - 2)
    scale = (1 / (unit * std)).float().view(shape).to(device)
    shift = (-mean / std).float().view(shape).to(device)
    return scale, shift

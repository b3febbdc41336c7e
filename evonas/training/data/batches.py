"""What a training asks for batch by batch, and random changes of a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augment", "Batch", "BatchSource", "FlipCrop", "Inputs"]

Inputs = Tensor | Mapping[str, Tensor] | Sequence[Tensor]
Batch = tuple[Inputs, Tensor]
"""`(inputs, targets)`: inputs are a tensor, or a mapping that is passed as keyword arguments."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""`(images (B, C, H, W) before normalisation, CPU generator)` to images of the same shape."""


class BatchSource(Protocol):
    """What `fit` trains and validates on: `Examples`, or anything alike."""

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
        pad: Black pixels added on every side before each image is cropped back at a random place.
            0: no crop.

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

"""What a training asks for batch by batch, and random changes of a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from evonas.arguments import check_int
from evonas.execution.accelerator import moved

__all__ = ["Augment", "Batch", "BatchSource", "FlipCrop", "Inputs", "batch_order"]

_POOL = 16  # batches that are sorted by length together: some order is left to chance

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


def batch_order(
    n: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    *,
    lengths: Tensor | None = None,
    drop_last: bool = False,
) -> list[Tensor]:
    """Returns the example numbers of each batch of one pass over `n` examples, on the CPU.

    Args:
        n: How many examples there are.
        batch_size: Examples a batch; some may have fewer.
        generator: Draws the order. None: the stored order.
        lengths: Of each example `(N,)`, where they are sequences: batches then hold examples of
            similar length, drawn within random pools of 16 batches.
        drop_last: Whether to leave out a batch with fewer examples.

    Raises:
        ValueError: `batch_size` is below 1, or `drop_last` leaves no batch.
    """
    check_int("batch_size", batch_size, minimum=1)
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    if lengths is None:
        batches = list(torch.split(order, batch_size))
    else:
        batches = []
        for pool in torch.split(order, n if generator is None else _POOL * batch_size):
            pool = pool[lengths[pool].sort(stable=True).indices]
            batches += torch.split(pool, batch_size)
        if generator is not None:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
    if not drop_last:
        return batches
    if n < batch_size:
        raise ValueError(f"drop_last leaves no batch: batch_size is {batch_size}, examples are {n}")
    return [ids for ids in batches if len(ids) == batch_size]


@dataclass(frozen=True, slots=True)
class FlipCrop:
    """Random horizontal flips, shifted crops and black squares of a whole batch, on its device.

    Args:
        flip: Whether each image is mirrored with probability 1/2.
        pad: Black pixels added on every side before each image is cropped back at a random place.
            0: no crop.
        cutout: Side of a square of each image that is made black, at a random place within it
            (DeVries and Taylor 2017). 0: none.

    Raises:
        ValueError: `pad` or `cutout` is negative.

    Example:
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> FlipCrop(pad=4)(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """

    flip: bool = True
    pad: int = 4
    cutout: int = 0

    def __post_init__(self) -> None:
        check_int("pad", self.pad, minimum=0)
        check_int("cutout", self.cutout, minimum=0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns new images `(B, C, H, W)`; draws 3 to 5 numbers for each from `generator`."""
        n, _, height, width = images.shape
        # Drawn on the CPU whatever the device: the same seed gives the same crops everywhere.
        draws = moved(torch.rand(3, n, generator=generator), images.device)
        if self.pad:
            padded = functional.pad(images, (self.pad,) * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, P, P, H, W)
            y, x = (draws[:2] * (2 * self.pad + 1)).long()
            images = windows[torch.arange(n, device=images.device), :, y, x]
        if self.flip:
            images = torch.where((draws[2] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
        if self.cutout:
            places = moved(torch.rand(2, n, generator=generator), images.device)
            rows, columns = (
                self._covered(place, side)
                for place, side in zip(places, (height, width), strict=True)
            )
            images = images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
        return images

    def _covered(self, places: Tensor, side: int) -> Tensor:
        """Returns for each image `(B, side)` which rows (or columns) its square covers."""
        first = (places * (max(0, side - self.cutout) + 1)).long()[:, None]
        row = torch.arange(side, device=places.device)
        return (row >= first) & (row < first + self.cutout)

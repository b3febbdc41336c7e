"""Mean and standard deviation of channels, and their use on a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from evonas.arguments import check_number

__all__ = ["Affine", "affine_of", "channel_statistics", "check_normalisation", "normalise"]

_CHUNK = 1024  # images summed at a time: bounds the memory of the copies

Affine = tuple[Tensor, Tensor]
"""`(scale, shift)`, float32, that broadcast with channels last."""


def channel_statistics(
    stored: Tensor, index: Tensor | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel; a channel that never varies has 1.

    Args:
        stored: `(N, H, W, C)`, uint8 (the result is in units of [0, 1]) or floating.
        index: Which of the N count. None: all.
    """
    chosen = torch.arange(len(stored)) if index is None else index.cpu()
    count = len(chosen) * stored.shape[1] * stored.shape[2]
    exact = stored.dtype == torch.uint8
    # Integer sums are exact, so the statistics do not depend on the thread count; floats are
    # summed in float64 and rounded below to where a thread count cannot reach.
    wide = torch.int64 if exact else torch.float64
    total = torch.zeros(stored.shape[3], dtype=wide)
    squares = torch.zeros(stored.shape[3], dtype=wide)
    for part in torch.split(chosen, _CHUNK):
        chunk = stored[part].to(torch.int32 if exact else torch.float64)
        total += chunk.sum((0, 1, 2))
        squares += (chunk * chunk).sum((0, 1, 2))
    mean = total.double() / count
    std = (squares.double() / count - mean**2).clamp_min(0).sqrt()
    scale = 255.0 if exact else 1.0
    return (
        tuple(round(value / scale, 6) for value in mean.tolist()),
        tuple(round(value / scale, 6) or 1.0 for value in std.tolist()),
    )


def check_normalisation(n_channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Refuses statistics that do not fit.

    Raises:
        TypeError, ValueError: There is not one number per channel, or a deviation is not positive.
    """
    for name, values in (("mean", mean), ("std", std)):
        for value in values:
            check_number(f"an entry of {name}", value)
    if len(mean) != n_channels or len(std) != n_channels:
        raise ValueError(
            f"mean and std must have one value for each of {n_channels} channels, "
            f"got {len(mean)} and {len(std)}"
        )
    if not min(std) > 0:
        raise ValueError(f"std must be positive, got {min(std)}")


def affine_of(mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> Affine:
    """Returns `(scale, shift)` with `normalised = stored * scale + shift`."""
    unit = 255.0 if dtype == torch.uint8 else 1.0
    centre, spread = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    return (1 / (unit * spread)).float(), (-centre / spread).float()


def normalise(stored: Tensor, affine: Affine) -> Tensor:
    """Returns a batch `(..., C)` in torch's default dtype, normalised in one pass."""
    scale, shift = affine
    dtype = torch.get_default_dtype()  # which is that of a model's weights
    return torch.addcmul(shift.to(dtype), stored.to(dtype), scale.to(dtype))

"""A seeded, stratified division of examples into training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evonas.arguments import check_int, check_number

if TYPE_CHECKING:
    from evonas.training.data.examples import Examples

__all__ = ["as_index", "sample", "split"]


def split(
    data: Examples,
    *,
    val_fraction: float = 0.2,
    seed: int,
    n_train: int | None = None,
    n_val: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns `(train_indices, val_indices)`: disjoint, seeded, stratified by label.

    Targets other than int64 `(N,)` are divided at random. Every class takes the same share of both
    parts, to within two examples, also where `n_train` or `n_val` asks for less than everything.
    The validation part depends on `seed` and `n_val` only, so searches on more or fewer training
    examples are judged on the same images.

    Args:
        data: What to split.
        val_fraction: In (0, 1); the share of the validation part where `n_val` is None.
        seed: Decides the order; nothing global is drawn from.
        n_train: How many to train on. None: all that are not in the validation part.
        n_val: How many to validate on.

    Returns:
        Two ascending int64 tensors.

    Raises:
        ValueError: A part would be empty, or both together exceed the data.
    """
    n = len(data)
    check_int("seed", seed, minimum=0, maximum=2**63 - 1)
    check_number("val_fraction", val_fraction)
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be in (0, 1), got {val_fraction}")
    for name, count in (("n_train", n_train), ("n_val", n_val)):
        if count is not None:
            check_int(name, count, minimum=1)
    n_val = round(val_fraction * n) if n_val is None else n_val
    n_train = n - n_val if n_train is None else n_train
    if n_train < 1 or n_val < 1:
        raise ValueError(
            f"both parts need an example, got {n_train} for training and {n_val} for validation "
            f"of {n}: pass other n_train, n_val or val_fraction, or more data"
        )
    if n_train + n_val > n:
        raise ValueError(
            f"n_train + n_val must be at most the {n} examples there are, got {n_train} + {n_val}"
        )
    order = _stratified_order(data.targets, seed)
    return order[n_val : n_val + n_train].sort().values, order[:n_val].sort().values


def sample(labels: Tensor, n: int | None, seed: int, name: str = "n") -> Tensor:
    """Returns the ascending indices of `n` examples, seeded and stratified by label; None: of all.

    Raises:
        ValueError: `n`, called `name`, is not from 1 to the number of examples.
    """
    if n is None:
        return torch.arange(len(labels))
    check_int(name, n, minimum=1)
    if n > len(labels):
        raise ValueError(f"{name} must be from 1 to the {len(labels)} examples there are, got {n}")
    return _stratified_order(labels, seed)[:n].sort().values


def as_index(indices: Sequence[int] | Tensor, n: int) -> Tensor:
    """Returns `indices` as an int64 tensor.

    Raises:
        TypeError: They are not one-dimensional integers.
        ValueError: There are none, or one is not in `[0, n)`.
    """
    index = torch.as_tensor(indices)
    if index.numel() == 0:
        raise ValueError("indices must name at least one example, got none")
    if index.ndim != 1 or index.dtype.is_floating_point or index.dtype == torch.bool:
        raise TypeError(
            f"indices must be one-dimensional integers, got {index.dtype} {tuple(index.shape)}"
        )
    if int(index.min()) < 0 or int(index.max()) >= n:
        raise ValueError(
            f"indices must be in [0, {n}), got {int(index.min())} to {int(index.max())}"
        )
    return index.long()


def _stratified_order(labels: Tensor, seed: int) -> Tensor:
    """Returns all indices in a random order of which every prefix is stratified by int labels."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    if labels.dtype != torch.int64 or labels.ndim != 1:
        return shuffled
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels).tolist():
        members = (labels[shuffled] == label).nonzero().squeeze(1)
        position[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    # Stable: equal positions (classes of one size) stay in shuffled order, so that no class is
    # favoured by its number.
    return shuffled[position.sort(stable=True).indices]

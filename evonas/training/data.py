"""Images and labels as one tensor each, what they are worth as an identity, and their split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

__all__ = ["ImageData", "as_index", "split"]

_CHUNK = 1024  # images hashed or summed at a time: bounds the memory of the copies


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled examples in one tensor, decoded once.

    Images are uint8 `(N, C, H, W)`, kept channels-last in memory where a source of ours decoded
    them. Other data (float features of any shape, token ids) is float32 `(N, ...)`.

    Attributes:
        images: uint8 `(N, C, H, W)`, or float32 `(N, ...)`.
        labels: int64 `(N,)`, in `[0, len(classes))`.
        classes: The name of each label.
        mean: Per channel, in units of [0, 1] for uint8 and of the data for float32; empty where
            nothing is to be normalised. Given together with `std` or not at all; None computes
            both from `images` (float32 data that is not 4-D stays as it is).
        std: Like `mean`. A channel that never varies has 1.
        identity: SHA-256 of images, labels and classes, whatever their layout in memory: what a
            problem's fingerprint says of its data. Empty computes it.

    Raises:
        TypeError: Images or labels have another dtype.
        ValueError: Shapes do not fit, a label has no class, or there are no examples.

    Example:
        >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> data = ImageData(images, torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
        >>> data.shape, data.n_classes, len(data.subset([0, 2]))
        ((3, 8, 8), 2, 2)
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    identity: str = field(default="")

    def __post_init__(self) -> None:
        _check(self.images, self.labels, self.classes)
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together, got only one of them")
        if self.mean is None or self.std is None:
            mean, std = _statistics(self.images)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)
        else:
            _check_normalisation(self.images, self.mean, self.std)
        if not self.identity:
            object.__setattr__(self, "identity", _identity(self))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example: `(C, H, W)` for images."""
        return tuple(self.images.shape[1:])

    @property
    def n_classes(self) -> int:
        """How many classes there are, with or without examples."""
        return len(self.classes)

    def subset(self, indices: Sequence[int] | Tensor) -> ImageData:
        """Returns a copy with the examples at `indices`, in that order, normalised like this.

        To train on a part without copying it, pass `indices` to `DeviceData`.
        """
        index = as_index(indices, len(self))
        return replace(
            self, images=_take(self.images, index), labels=self.labels[index], identity=""
        )

    def normalised_from(self, indices: Sequence[int] | Tensor) -> ImageData:
        """Returns the same data with mean and std computed from the examples at `indices`.

        So that validation images do not enter the normalisation of the training.
        """
        mean, std = _statistics(self.images, as_index(indices, len(self)))
        return replace(self, mean=mean, std=std)

    def normalised_like(self, other: ImageData) -> ImageData:
        """Returns the same data with the mean and std of `other` (a test set: the training's)."""
        return replace(self, mean=other.mean, std=other.std)


def split(
    data: ImageData,
    *,
    val_fraction: float = 0.2,
    seed: int,
    n_train: int | None = None,
    n_val: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns `(train_indices, val_indices)`: disjoint, seeded, stratified by label.

    Every class takes the same share of both parts, to within two examples, also where `n_train` or
    `n_val` asks for less than everything. The validation part depends on `seed` and `n_val` only,
    so searches on more or fewer training examples are judged on the same images.

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
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be in (0, 1), got {val_fraction}")
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
    order = _stratified_order(data.labels, seed)
    return order[n_val : n_val + n_train].sort().values, order[:n_val].sort().values


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
    """Returns all indices in a random order of which every prefix is stratified."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels).tolist():
        members = (labels[shuffled] == label).nonzero().squeeze(1)
        position[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    # Stable: equal positions (classes of one size) stay in shuffled order, so that no class is
    # favoured by its number.
    return shuffled[position.sort(stable=True).indices]


def _check(images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"images must be uint8 or float32, got {images.dtype}")
    if images.dtype == torch.uint8 and images.ndim != 4:
        raise ValueError(f"uint8 images must be (N, C, H, W), got shape {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise TypeError(
            f"labels must be int64 of shape (N,), got {labels.dtype} {tuple(labels.shape)}"
        )
    if len(images) != len(labels):
        raise ValueError(f"images and labels must be as many, got {len(images)} and {len(labels)}")
    if len(labels) == 0:
        raise ValueError("data must hold at least one example, got none")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise ValueError(
            f"labels must be in [0, {len(classes)}) (the classes given), got {low} to {high}"
        )


def _check_normalisation(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not mean and not std:
        return
    n_channels = images.shape[1] if images.ndim > 1 else 0
    if len(mean) != n_channels or len(std) != n_channels:
        raise ValueError(
            f"mean and std must have one value for each of {n_channels} channels, "
            f"got {len(mean)} and {len(std)}"
        )
    if min(std) <= 0:
        raise ValueError(f"std must be positive, got {min(std)}")


def _statistics(
    images: Tensor, index: Tensor | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if images.ndim != 4:
        return (), ()
    chosen = torch.arange(len(images)) if index is None else index
    count = len(chosen) * images.shape[2] * images.shape[3]
    exact = images.dtype == torch.uint8
    # Integer sums are exact, so the statistics do not depend on the thread count; float32 data is
    # summed in float64 and rounded below to where a thread count cannot reach.
    wide = torch.int64 if exact else torch.float64
    total = torch.zeros(images.shape[1], dtype=wide)
    squares = torch.zeros(images.shape[1], dtype=wide)
    for part in torch.split(chosen, _CHUNK):
        chunk = images[part].to(torch.int32 if exact else torch.float64)
        total += chunk.sum((0, 2, 3))
        squares += (chunk * chunk).sum((0, 2, 3))
    mean = total.double() / count
    std = (squares.double() / count - mean**2).clamp_min(0).sqrt()
    scale = 255.0 if exact else 1.0
    return (
        tuple(round(value / scale, 6) for value in mean.tolist()),
        tuple(round(value / scale, 6) or 1.0 for value in std.tolist()),
    )


def _identity(data: ImageData) -> str:
    digest = hashlib.sha256()
    header = (str(data.images.dtype), tuple(data.images.shape), data.classes)
    digest.update(repr(header).encode())
    # Channels last: the layout of our own sources, which are then hashed without a copy.
    ordered = data.images.movedim(1, -1) if data.images.ndim == 4 else data.images
    for chunk in torch.split(ordered, _CHUNK):
        digest.update(chunk.contiguous().numpy().data)
    digest.update(data.labels.contiguous().numpy().data)
    return digest.hexdigest()


def _take(images: Tensor, index: Tensor) -> Tensor:
    if images.ndim == 4:  # keep channels-last memory channels-last
        return images.movedim(1, -1).index_select(0, index).movedim(-1, 1)
    return images.index_select(0, index)

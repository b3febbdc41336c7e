"""Examples that can be asked for by number: fixed-size tensors, or sequences of any length."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from evonas.training import Augment, Batch, ImageData, fingerprint_of

__all__ = ["Examples", "Layout", "as_bytes", "as_examples"]

_POOL = 16  # batches that are sorted by length together: some order is left to chance
_FILL_BATCH = 64
_FILL_TOKENS = 4096
_SEVERAL = 'Examples({"ids": ids, "mask": mask}, targets)'


@dataclass(frozen=True)
class Layout:
    """Where sequences of different lengths lie in one tensor, end to end.

    Attributes:
        lengths: int64 `(N,)`, on the CPU: so that no batch waits for an accelerator.
        side: Where a padded batch has its padding.
    """

    lengths: Tensor
    side: Literal["right", "left"] = "right"

    @functools.cached_property
    def n_rows(self) -> int:
        """Rows of all sequences together; the row behind them stands for padding."""
        return int(self.lengths.sum())

    @functools.cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    def rows(self, ids: Tensor) -> Tensor:
        """Returns the row of each position of a padded batch `(B, L)`; padding is row `n_rows`."""
        ids = ids.cpu()
        counts = self.lengths[ids].unsqueeze(1)  # (B, 1)
        starts = self._starts[ids].unsqueeze(1)
        width = int(counts.max())
        position = torch.arange(width).unsqueeze(0)  # (1, L)
        if self.side == "left":
            position = position - (width - counts)
        inside = (position >= 0) & (position < counts)
        return torch.where(inside, starts + position, self.n_rows)


class Examples:
    """Inputs and targets in memory, gathered by example number; a `BatchSource` for `fit`.

    Sequences are kept end to end without padding. Their batches hold examples of similar length
    (sorted within pools of 16 batches) and are padded only to their own longest, which on short
    sentences saves most of the arithmetic: 1,024 phrases of SST-2 have 13 tokens on average,
    random batches of 32 are padded to 40.

    Args:
        inputs: A tensor `(N, ...)`, or a mapping of the model's keyword arguments to tensors
            `(N, ...)` or to N sequences of numbers (what a tokenizer returns without padding).
        targets: A tensor `(N, ...)`, or a sequence of N numbers.
        device: Where to keep them and to train.
        padding: Value of the padding by keyword; 0 where it is not given. For `input_ids` give
            the tokenizer's `pad_token_id`.
        padding_side: Where the model wants its padding.
        transform: Applied to each batch of inputs, after any augmentation; it must not be random.

    Raises:
        TypeError: The inputs are something else.
        ValueError: There are no examples, or their numbers or lengths differ.

    Example:
        >>> data = Examples({"input_ids": [[5, 6], [7], [8, 9, 3]]}, [0, 1, 0])
        >>> data.gather(torch.tensor([1, 0]))
        {'input_ids': tensor([[7, 0],
                [5, 6]])}
    """

    def __init__(
        self,
        inputs: Tensor | Mapping[str, Any],
        targets: Tensor | Sequence[float],
        *,
        device: str | torch.device = "cpu",
        padding: Mapping[str, float] | None = None,
        padding_side: Literal["right", "left"] = "right",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.targets = torch.as_tensor(targets).to(self.device)
        self.transform = transform
        self._single = isinstance(inputs, Tensor)
        if not isinstance(inputs, (Tensor, Mapping)):
            raise TypeError(
                f"inputs must be a tensor or a mapping of the model's keyword arguments, got "
                f"{type(inputs).__name__}{_way_out_of_inputs(inputs)}"
            )
        columns: Mapping[str, Any] = {"": inputs} if isinstance(inputs, Tensor) else inputs
        self._fixed: dict[str, Tensor] = {}
        self._ragged: dict[str, Tensor] = {}  # (n_rows + 1, ...), the last row is the padding
        self.layout: Layout | None = None
        for name, column in columns.items():
            if len(column) != len(self):
                raise ValueError(
                    f"inputs and targets must be as many, got {len(column)} and {len(self)}"
                    + (f" for {name!r}" if name else "")
                )
            if isinstance(column, Tensor):
                self._fixed[name] = column.to(self.device)
            else:
                self._add_ragged(name, column, (padding or {}).get(name, 0), padding_side)
        if len(self) == 0 or not columns:
            raise ValueError("examples must be at least one, got none")

    @classmethod
    def from_images(
        cls,
        data: ImageData,
        *,
        indices: Sequence[int] | Tensor | None = None,
        device: str | torch.device = "cpu",
        channels_last: bool = True,
    ) -> Examples:
        """Returns images as they are stored, normalised a batch at a time with `data`'s statistics.

        Args:
            data: The images.
            indices: The examples to use, in order; None uses all.
            device: Where to keep them.
            channels_last: Whether 4-D batches come in channels-last memory.
        """
        index = torch.arange(len(data)) if indices is None else torch.as_tensor(indices).long()
        images, device = data.images[index], torch.device(device)
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        shape = (1, -1) + (1,) * (images.ndim - 2)
        mean = torch.tensor(data.mean or (0.0,)).view(shape).to(device)
        std = torch.tensor(data.std or (1.0,)).view(shape).to(device)
        transform = _Normalise(unit * mean, unit * std, channels_last and images.ndim == 4)
        return cls(images, data.labels[index], device=device, transform=transform)

    def to(self, device: str | torch.device) -> Examples:
        """Returns these examples on a device: themselves where they are there already."""
        device = torch.device(device)
        if device == self.device:
            return self
        other = copy.copy(self)
        other.device = device
        other.targets = self.targets.to(device)
        other._fixed = {name: column.to(device) for name, column in self._fixed.items()}
        other._ragged = {name: column.to(device) for name, column in self._ragged.items()}
        if isinstance(self.transform, _Normalise):
            other.transform = self.transform.to(device)
        return other

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def identity(self) -> str:
        """SHA-256 of inputs and targets, padding, lengths and the transform's name included."""
        names = sorted(self._fixed), sorted(self._ragged)
        digest = hashlib.sha256(repr(names).encode())
        tensors = [*self._fixed.values(), *self._ragged.values(), self.targets]
        if isinstance(self.transform, _Normalise):
            tensors += [self.transform.shift, self.transform.scale]
        elif self.transform is not None:
            digest.update(fingerprint_of(self.transform).encode())
        if self.layout is not None:
            digest.update(self.layout.side.encode())
            tensors.append(self.layout.lengths)
        for tensor in tensors:
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(as_bytes(tensor))
        return digest.hexdigest()

    @property
    def lengths(self) -> Tensor | None:
        """The length of each sequence `(N,)`, None where all examples have one size."""
        return None if self.layout is None else self.layout.lengths

    def width(self, ids: Tensor) -> int:
        """Returns the padded length of a batch of the examples `ids`; 1 where all have one size."""
        return 1 if self.layout is None else int(self.layout.lengths[ids.cpu()].max())

    def gather(self, ids: Tensor) -> Any:
        """Returns the inputs of the examples `ids` `(B,)`, padded to the longest of them."""
        return self._transformed(self._rows(ids))

    def targets_of(self, ids: Tensor) -> Tensor:
        """Returns the targets of the examples `ids`."""
        return self.targets.index_select(0, ids.to(self.device, non_blocking=True))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        augment: Augment | None = None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Iterates once over `(inputs, targets)`; see `batches_of_ids` for the order.

        Args:
            batch_size: Examples a batch; some may have fewer.
            seed: Decides order and augmentation; needed for either.
            shuffle: Whether to draw the order.
            augment: Applied to inputs that are one tensor.
            drop_last: Whether to leave out a batch with fewer examples.

        Raises:
            ValueError: See `batches_of_ids`; or the inputs cannot be augmented.
        """
        if augment is not None and (seed is None or not self._single):
            raise ValueError("augment needs a seed, and inputs that are one tensor")
        generator = torch.Generator().manual_seed(0 if seed is None else seed + 1)
        order = self.batches_of_ids(batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last)
        for ids in order:
            rows = self._rows(ids)
            rows = rows if augment is None else augment(rows, generator)
            yield self._transformed(rows), self.targets_of(ids)

    def batches_of_ids(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
    ) -> list[Tensor]:
        """Returns the example numbers of each batch of one pass, on the CPU.

        Sequences come sorted by length: shuffled, within random pools of 16 batches, whose
        batches then come in random order. Nothing global is drawn from.

        Raises:
            ValueError: `batch_size` is below 1, or shuffling has no seed.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if shuffle and seed is None:
            raise ValueError("seed must be given where batches are shuffled, got None")
        generator = torch.Generator().manual_seed(seed or 0)
        n = len(self)
        order = torch.randperm(n, generator=generator) if shuffle else torch.arange(n)
        if self.layout is None:
            batches = list(torch.split(order, batch_size))
        else:
            lengths = self.layout.lengths
            batches = []
            for pool in torch.split(order, _POOL * batch_size if shuffle else n):
                pool = pool[lengths[pool].sort(stable=True).indices]
                batches += torch.split(pool, batch_size)
            if shuffle:
                batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
        return [ids for ids in batches if len(ids) == batch_size or not drop_last]

    def fill_order(self) -> list[Tensor]:
        """Returns the batches in which a prefix is computed: always the same, by length."""
        batches: list[Tensor] = []
        for ids in self.batches_of_ids(_FILL_BATCH):
            size = max(1, min(_FILL_BATCH, _FILL_TOKENS // self.width(ids)))
            batches += torch.split(ids, size)
        return batches

    def _add_ragged(self, name: str, column: Sequence[Any], padding: float, side: Any) -> None:
        rows = [torch.as_tensor(row) for row in column]
        lengths = torch.tensor([len(row) for row in rows])
        if len(rows) and int(lengths.min()) == 0:
            raise ValueError(f"every sequence of {name!r} must hold something, got an empty one")
        if self.layout is None:
            self.layout = Layout(lengths, side)
        elif not torch.equal(self.layout.lengths, lengths):
            raise ValueError(f"sequences of {name!r} must be as long as those of other inputs")
        values = torch.cat(rows) if rows else torch.empty(0)
        pad = torch.full_like(values[:1], padding)
        self._ragged[name] = torch.cat([values, pad]).to(self.device)

    def _rows(self, ids: Tensor) -> Any:
        index = ids.to(self.device, non_blocking=True)
        gathered = {name: column.index_select(0, index) for name, column in self._fixed.items()}
        if self.layout is not None:
            rows = self.layout.rows(ids)  # (B, L)
            flat = rows.flatten().to(self.device, non_blocking=True)
            for name, column in self._ragged.items():
                gathered[name] = column.index_select(0, flat).view(*rows.shape, *column.shape[1:])
        return gathered[""] if self._single else gathered

    def _transformed(self, inputs: Any) -> Any:
        return inputs if self.transform is None else self.transform(inputs)


def as_examples(data: Any, name: str) -> Examples:
    """Returns `Examples`, `ImageData` or `(inputs, targets)` as `Examples`.

    Raises:
        TypeError: It is something else; the error calls it `name`.
        ValueError: It is empty.
    """
    if isinstance(data, Examples):
        return data
    n = len(data) if isinstance(data, ImageData) else None
    if isinstance(data, tuple) and len(data) == 2:
        n = len(data[1])
    if n is None:
        raise TypeError(
            f"{name} must be Examples, ImageData or a tuple (inputs, targets), "
            f"got {_in_words(data)}{_way_out(data)}"
        )
    if n == 0:
        raise ValueError(f"{name} must hold at least one example, got none")
    return Examples.from_images(data) if isinstance(data, ImageData) else Examples(*data)


def _in_words(data: Any) -> str:
    return f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__


def _way_out(data: Any) -> str:
    """Returns how to pass what people have instead of examples, if that is known."""
    if isinstance(data, tuple) and len(data) > 2:
        return f": for a model of several inputs pass {_SEVERAL}"
    if isinstance(data, TensorDataset):
        if len(data.tensors) > 2:
            return f": pass {_SEVERAL}, of its .tensors"
        return ": pass its .tensors"
    if isinstance(data, DataLoader):
        return (
            ": batches are made here; pass what the loader reads, as tensors (inputs, targets), "
            f"or for several inputs {_SEVERAL}"
        )
    if isinstance(data, Dataset):
        return (
            ": stack its examples into tensors, (torch.stack([x for x, _ in data]), "
            "torch.tensor([y for _, y in data]))"
        )
    return ""


def _way_out_of_inputs(inputs: Any) -> str:
    if isinstance(inputs, (tuple, list)) and inputs and isinstance(inputs[0], Tensor):
        return f": for several inputs pass {_SEVERAL}, by the names in the model's forward"
    return ": pass torch.as_tensor(inputs)"


def as_bytes(tensor: Tensor) -> memoryview:
    """Returns the values of a tensor of any dtype and device as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True, eq=False)
class _Normalise:
    shift: Tensor
    scale: Tensor
    channels_last: bool

    def to(self, device: torch.device) -> _Normalise:
        return _Normalise(self.shift.to(device), self.scale.to(device), self.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        normalised = (images.float() - self.shift) / self.scale
        if self.channels_last:
            return normalised.contiguous(memory_format=torch.channels_last)
        return normalised

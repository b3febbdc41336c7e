"""The container of all training data: inputs and targets, gathered by example number."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evonas.arguments import (
    check_callable,
    check_choice,
    check_list,
    check_mapping,
    check_one_of,
)
from evonas.exceptions import DataError
from evonas.execution.accelerator import as_device, moved
from evonas.space.naming import fingerprint_of
from evonas.training.data.batches import Augment, Batch, batch_order
from evonas.training.data.finite import NotFinite, finite, first_not_finite
from evonas.training.data.layout import Side, pack
from evonas.training.data.mistakes import (
    refuse_parts,
    way_out_of_data,
    way_out_of_inputs,
    words_for,
)
from evonas.training.data.normalisation import (
    Affine,
    affine_of,
    channel_statistics,
    check_normalisation,
    normalise,
)
from evonas.training.data.split import as_index

__all__ = ["Examples", "as_bytes", "as_examples"]

_CHUNK = 1024  # examples hashed at a time: bounds the memory of the copies


class Examples:
    """Inputs and targets in memory, gathered by example number; a `BatchSource` for `fit`.

    Images `(N, C, H, W)` are kept as they came (uint8 is a quarter of the memory), channels last,
    and normalised a batch at a time on their device; a memory-mapped cache stays mapped on the
    CPU, so that worker processes share its pages.

    Sequences are kept end to end without padding. Their batches hold examples of similar length
    (sorted within pools of 16 batches) and are padded only to their own longest, which on short
    sentences saves most of the arithmetic: 1,024 phrases of SST-2 have 13 tokens on average,
    random batches of 32 are padded to 40.

    Args:
        inputs: A tensor `(N, ...)`, or a mapping of the model's keyword arguments to tensors
            `(N, ...)` or to N sequences of numbers (what a tokenizer returns without padding).
        targets: A tensor `(N, ...)`, or a sequence of N numbers.
        classes: The name of each label, for targets that are labels: int64 `(N,)` in
            `[0, len(classes))`. Empty: targets of any kind.
        mean: Per channel, in units of [0, 1] for uint8 and of the data for others; empty where
            nothing is to be normalised. Given together with `std` or not at all. None: computed
            for uint8 images, empty for other inputs.
        std: Like `mean`. A channel that never varies has 1.
        device: Where to keep them and to train.
        padding: Value of the padding by keyword; 0 where it is not given. For `input_ids` give
            the tokenizer's `pad_token_id`.
        padding_side: Where the model wants its padding.
        transform: Applied to each batch of inputs, after any augmentation; it must not be random.

    Raises:
        TypeError: The inputs are something else, or labels are not int64 `(N,)`.
        ValueError: There are no examples, their numbers or lengths differ, a label has no class,
            or mean and std do not fit.

    Example:
        >>> data = Examples({"input_ids": [[5, 6], [7], [8, 9, 3]]}, [0, 1, 0])
        >>> data.gather(torch.tensor([1, 0]))
        {'input_ids': tensor([[7, 0],
                [5, 6]])}
        >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> data = Examples(images, torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
        >>> data.shape, data.n_classes, len(data.subset([0, 2]))
        ((3, 8, 8), 2, 2)
    """

    def __init__(
        self,
        inputs: Tensor | Mapping[str, Any],
        targets: Tensor | Sequence[float],
        classes: Sequence[str] = (),
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        device: str | torch.device = "cpu",
        padding: Mapping[str, float] | None = None,
        padding_side: Side = "right",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if not isinstance(inputs, (Tensor, Mapping)):
            raise TypeError(
                f"inputs must be a tensor or a mapping of the model's keyword arguments, got "
                f"{type(inputs).__name__}{way_out_of_inputs(inputs)}"
            )
        if padding is not None:
            check_mapping("padding", padding)
        check_choice("padding_side", padding_side, ("left", "right"))
        if transform is not None:
            check_callable("transform", transform)
        self.device = as_device(device)
        try:
            self.targets = torch.as_tensor(targets).to(self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"targets must be a tensor, or a list of numbers ({error}): of classes their "
                "numbers from 0, whose names are classes=[...]"
            ) from None
        if self.targets.ndim == 0:
            raise TypeError(f"targets must be one for each example, got {targets!r}")
        self.classes = tuple(check_list("classes", classes, "the names of the classes"))
        for name in self.classes:
            check_one_of("an entry of classes", name, str, "a string, the name of a class")
        self.transform = transform
        self._index: Tensor | None = None  # of the rows that these examples are; None: all
        self._single = isinstance(inputs, Tensor)
        columns: Mapping[str, Any] = {"": inputs} if isinstance(inputs, Tensor) else inputs
        if not columns:
            raise ValueError("inputs must have at least one entry, got none")
        for name, column in columns.items():
            is_list = hasattr(column, "__getitem__") and not isinstance(column, (str, bytes))
            if not is_list or getattr(column, "ndim", 1) == 0:
                what = f"inputs[{name!r}]" if name else "inputs"
                raise TypeError(f"{what} must have an entry for each example, got {column!r}")
            if len(column) != len(self.targets):
                raise ValueError(
                    f"inputs and targets must be as many, got {len(column)} and "
                    f"{len(self.targets)}" + (f" for {name!r}" if name else "")
                )
        if len(self.targets) == 0:
            raise ValueError("examples must be at least one, got none")
        if self.classes:
            _check_labels(self.targets, len(self.classes))
        self._fixed = {
            name: _stored(column).to(self.device)
            for name, column in columns.items()
            if isinstance(column, Tensor)
        }
        ragged = {name: column for name, column in columns.items() if name not in self._fixed}
        packed, self.layout = pack(ragged, padding or {}, padding_side)
        self._ragged = {name: column.to(self.device) for name, column in packed.items()}
        self._set_normalisation(mean, std)

    def _set_normalisation(
        self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError("mean and std must be given together, got only one of them")
        if mean is None or std is None:
            rows = self._fixed.get("")
            is_image = rows is not None and rows.ndim == 4 and rows.dtype == torch.uint8
            mean, std = channel_statistics(rows) if is_image and rows is not None else ((), ())
        else:
            mean = tuple(check_list("mean", mean, "a number for each channel"))
            std = tuple(check_list("std", std, "a number for each channel"))
            n_channels = self._fixed[""].shape[-1] if self._single and self.n_dims > 1 else 0
            if mean or std:
                check_normalisation(n_channels, mean, std)
        self.mean, self.std = mean, std
        self._affine: Affine | None = None
        if self.mean:
            scale, shift = affine_of(self.mean, self.std, self._fixed[""].dtype)
            self._affine = scale.to(self.device), shift.to(self.device)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_dims(self) -> int:
        """Dimensions of inputs that are one tensor, the examples' included."""
        return self._fixed[""].ndim

    @property
    def inputs(self) -> Tensor:
        """The inputs `(N, ...)` where they are one tensor, as they came: not normalised.

        Raises:
            TypeError: They are a mapping.
        """
        if not self._single:
            raise TypeError("inputs are a mapping of tensors: ask for batches with gather(ids)")
        rows = self._fixed[""] if self._index is None else self._fixed[""][self._index]
        return rows.movedim(-1, 1) if rows.ndim == 4 else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, where inputs are one tensor: `(C, H, W)` for images."""
        rows = self._fixed[""]
        return (rows.shape[3], *rows.shape[1:3]) if rows.ndim == 4 else tuple(rows.shape[1:])

    @property
    def inputs_dtype(self) -> torch.dtype:
        """Of inputs that are one tensor, as they came."""
        return self._fixed[""].dtype

    @property
    def is_images(self) -> bool:
        """Whether the inputs are one tensor `(N, C, H, W)`."""
        return self._single and self.n_dims == 4

    @property
    def is_tokens(self) -> bool:
        """Whether the inputs are one tensor `(N, length)` of int64."""
        rows = self._fixed.get("")
        return rows is not None and rows.ndim == 2 and rows.dtype == torch.int64

    @property
    def n_classes(self) -> int:
        """How many classes there are, with or without examples."""
        return len(self.classes)

    def subset(self, indices: Sequence[int] | Tensor) -> Examples:
        """Returns the examples at `indices`, in that order, normalised like these.

        Of a training part by its own images: `data.normalised_from(indices).subset(indices)`.

        On the CPU they share the memory of these.

        Raises:
            TypeError, ValueError: The indices are not integers, none, or out of range.
        """
        if self.layout is not None:
            raise TypeError("sequences of different lengths have no subset: pass fewer of them")
        index = as_index(indices, len(self)).to(self.device)
        other = self._copied()
        other.targets = self.targets[index]
        other._index = index if self._index is None else self._index[index]
        if self.device.type != "cpu":
            other._materialise()
        return other

    def _copied(self) -> Examples:
        """Returns a copy, without what was computed of these."""
        other = copy.copy(self)
        for name in ("identity", "not_finite"):
            other.__dict__.pop(name, None)
        return other

    def _materialise(self) -> None:
        if self._index is not None:
            self._fixed = {name: column[self._index] for name, column in self._fixed.items()}
            self._index = None

    def joined(self, other: Examples) -> Examples:
        """Returns these images and, behind them, those of `other`, normalised like these.

        Raises:
            DataError: Shapes, dtypes, classes or transforms differ.
        """
        for name in ("shape", "classes", "transform"):
            found = getattr(self, name), getattr(other, name)
            if found[0] != found[1] and fingerprint_of(found[0]) != fingerprint_of(found[1]):
                raise DataError(
                    f"both parts of the data must have one {name}, got {found[0]} and {found[1]}"
                )
        if self.inputs.dtype != other.inputs.dtype:
            raise DataError(
                f"both parts of the data must have one dtype, got {self.inputs.dtype} and "
                f"{other.inputs.dtype}"
            )
        inputs = torch.cat([self.inputs, other.inputs])
        targets = torch.cat([self.targets, other.targets])
        return Examples(
            inputs, targets, self.classes, mean=self.mean, std=self.std, transform=self.transform
        )

    def normalised_from(self, indices: Sequence[int] | Tensor) -> Examples:
        """Returns the same images with mean and std computed from the examples at `indices`.

        So that validation images do not enter the normalisation of the training.
        """
        index = as_index(indices, len(self))
        rows = index if self._index is None else self._index[index]
        return self._normalised_by(*channel_statistics(self._fixed[""], rows))

    def normalised_like(self, other: Examples) -> Examples:
        """Returns the same images with the mean and std of `other` (a test set: the training's)."""
        return self._normalised_by(other.mean, other.std)

    def relabelled(self, targets: Tensor, classes: tuple[str, ...]) -> Examples:
        """Returns the same inputs with other labels."""
        other = self._copied()
        other.targets, other.classes = targets.to(self.device), classes
        return other

    def _normalised_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Examples:
        other = self._copied()
        other._set_normalisation(mean, std)
        return other

    def to(self, device: str | torch.device) -> Examples:
        """Returns these examples on a device: themselves where they are there already."""
        device = torch.device(device)
        if device == self.device:
            return self
        other = copy.copy(self)
        other._materialise()
        other.device = device
        other.targets = other.targets.to(device)
        other._fixed = {name: column.to(device) for name, column in other._fixed.items()}
        other._ragged = {name: column.to(device) for name, column in other._ragged.items()}
        if other._affine is not None:
            other._affine = other._affine[0].to(device), other._affine[1].to(device)
        return other

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all that a batch depends on: inputs, targets, normalisation, transform."""
        digest = hashlib.sha256()
        about = [self.classes, self.mean, self.std, sorted(self._fixed), sorted(self._ragged)]
        if self.transform is not None:
            about.append(fingerprint_of(self.transform))
        tensors = [*self._ragged.values(), self.targets]
        if self.layout is not None:
            about.append(self.layout.side)
            tensors.append(self.layout.lengths)
        digest.update(repr(about).encode())
        rows = torch.arange(len(self), device=self.device) if self._index is None else self._index
        for _, column in sorted(self._fixed.items()):
            digest.update(repr((column.dtype, tuple(column.shape[1:]))).encode())
            for part in torch.split(rows, _CHUNK):
                digest.update(as_bytes(column[part]))
        for tensor in tensors:
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(as_bytes(tensor))
        return digest.hexdigest()

    @functools.cached_property
    def not_finite(self) -> NotFinite | None:
        """The first NaN or infinity among inputs and targets; looked for once.

        Inputs that a `transform` changes may hold what it takes out: they are not looked at.
        """
        names = [] if self.transform is not None else [*self._fixed, *self._ragged]
        for name in names:
            is_fixed = name in self._fixed
            if is_fixed or self.layout is None:
                found = first_not_finite(self._fixed[name], self._index)
            else:  # the row behind the last is the padding
                found = first_not_finite(self._ragged[name][: self.layout.n_rows])
            if found is not None:
                value, row = found
                if not is_fixed and self.layout is not None:
                    row = self.layout.example_of(row)
                return NotFinite(f"inputs[{name!r}]" if name else "inputs", value, row)
        found = first_not_finite(self.targets)
        return None if found is None else NotFinite("targets", *found)

    def width(self, ids: Tensor) -> int:
        """Returns the padded length of a batch of the examples `ids`; 1 where all have one size."""
        return 1 if self.layout is None else int(self.layout.lengths[ids.cpu()].max())

    def gather(self, ids: Tensor) -> Any:
        """Returns the inputs of the examples `ids` `(B,)`, padded to the longest of them.

        Images come as float32 `(B, C, H, W)` in channels-last memory where they are normalised.
        """
        return self._finished(self._rows(ids))

    def targets_of(self, ids: Tensor) -> Tensor:
        """Returns the targets of the examples `ids`."""
        return self.targets.index_select(0, moved(ids, self.device))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        augment: Augment | None = None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Iterates over `(inputs, targets)`, each example once; see `batches_of_ids`.

        Args:
            batch_size: Examples a batch; some may have fewer.
            seed: Decides order and augmentation; needed for either. Nothing global is drawn from.
            shuffle: Whether to draw the order; else the stored order.
            augment: Applied to images `(B, C, H, W)` before they are normalised.
            drop_last: Whether to leave out a batch with fewer examples.

        Raises:
            ValueError: See `batches_of_ids`; or the inputs cannot be augmented.
        """
        if augment is not None and (seed is None or not self._single):
            raise ValueError("augment needs a seed, and inputs that are one tensor")
        order, generator = self._order(batch_size, seed, shuffle, drop_last)
        return self._iterate(order, augment, generator)

    def _iterate(
        self, order: Sequence[Tensor], augment: Augment | None, generator: torch.Generator
    ) -> Iterator[Batch]:
        if self.layout is None:  # one copy to the device for all batches
            whole = moved(torch.cat(list(order)), self.device)
            order = torch.split(whole, [len(ids) for ids in order])
        for ids in order:
            rows = self._rows(ids)
            if augment is not None:
                rows = _stored(augment(rows.movedim(-1, 1) if rows.ndim == 4 else rows, generator))
            yield self._finished(rows), self.targets_of(ids)

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
            ValueError: `batch_size` is below 1, shuffling has no seed, or `drop_last` leaves none.
        """
        return self._order(batch_size, seed, shuffle, drop_last)[0]

    def _order(
        self, batch_size: int, seed: int | None, shuffle: bool, drop_last: bool
    ) -> tuple[list[Tensor], torch.Generator]:
        """Returns the batches, and the generator that drew them, to go on drawing from."""
        if shuffle and seed is None:
            raise ValueError("seed must be given where batches are shuffled, got None")
        generator = torch.Generator().manual_seed(seed or 0)
        batches = batch_order(
            len(self),
            batch_size,
            generator if shuffle else None,
            lengths=None if self.layout is None else self.layout.lengths,
            drop_last=drop_last,
        )
        return batches, generator

    def _rows(self, ids: Tensor) -> Any:
        """Returns the stored inputs of examples: images channels last, not normalised."""
        index = moved(ids, self.device)
        index = index if self._index is None else self._index[index]
        gathered = {name: column.index_select(0, index) for name, column in self._fixed.items()}
        if self.layout is not None:
            rows = self.layout.rows(ids)  # (B, L)
            flat = moved(rows.flatten(), self.device)
            for name, column in self._ragged.items():
                gathered[name] = column.index_select(0, flat).view(*rows.shape, *column.shape[1:])
        return gathered[""] if self._single else gathered

    def _finished(self, rows: Any) -> Any:
        if self._affine is not None:
            rows = normalise(rows, self._affine)
        if self._single:
            rows = _shown(rows)
        else:
            rows = {name: _shown(column) for name, column in rows.items()}
        return rows if self.transform is None else self.transform(rows)


def _stored(inputs: Tensor) -> Tensor:
    """Returns images `(N, C, H, W)` as `(N, H, W, C)` in memory, so that a batch is rows of it."""
    return (inputs.movedim(1, -1) if inputs.ndim == 4 else inputs).contiguous()


def _shown(rows: Tensor) -> Tensor:
    return rows.movedim(-1, 1) if rows.ndim == 4 else rows


def _check_labels(labels: Tensor, n_classes: int) -> None:
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise TypeError(
            f"labels must be int64 of shape (N,), got {labels.dtype} {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise ValueError(
            f"labels must be in [0, {n_classes}) (the classes given), got {low} to {high}"
        )


def as_examples(data: Any, name: str) -> Examples:
    """Returns `Examples` or `(inputs, targets)` as `Examples`.

    Raises:
        TypeError: It is something else; the error calls it `name`.
        ValueError: It is empty.
        DataError: A number of it is not finite.
    """
    if isinstance(data, Examples):
        return finite(data, name)
    if not (isinstance(data, tuple) and len(data) == 2):
        raise TypeError(
            f"{name} must be Examples or a tuple (inputs, targets), "
            f"got {words_for(data)}{way_out_of_data(data)}"
        )
    refuse_parts(data, name)
    if len(data[1]) == 0:
        raise ValueError(f"{name} must hold at least one example, got none")
    return finite(Examples(*data), name)


def as_bytes(tensor: Tensor) -> memoryview:
    """Returns the values of a tensor of any dtype and device as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

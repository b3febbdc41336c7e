"""Data sets and loaders of torch as a source of batches, of any structure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from evonas.arguments import check_function
from evonas.exceptions import DataError
from evonas.space.naming import fingerprint_of
from evonas.training.data.batches import Batch, BatchSource
from evonas.training.data.datasets import TARGETS, class_labels, refuse_other_labels
from evonas.training.data.examples import Examples, as_examples
from evonas.training.data.identity import identity_of
from evonas.training.data.mistakes import way_out_of_data, words_for
from evonas.training.data.parts import matched
from evonas.training.data.structure import map_tensors, shapes_of

__all__ = ["Data", "GivenData", "LoaderSource", "Unpack", "as_source"]

Data = Examples | tuple[Any, Any] | Dataset[Any] | DataLoader[Any]

Unpack = Callable[[Any], tuple[Any, Any]]
"""A batch as a loader yields it to `(inputs, targets)`."""


class LoaderSource:
    """A `BatchSource` of a map-style `Dataset`, or of a `DataLoader`.

    Of a dataset it makes a loader for each pass, whose order comes from the pass's seed. A loader
    keeps its own batch size, order and workers; a generator of its own is seeded for each pass.

    A batch is `(inputs, targets)`; `(a, b, …, targets)`, of which `(a, b, …)` are the inputs; or a
    mapping with `labels` or `targets`, whose other entries are the inputs. For others give
    `unpack`. Where the data name their classes (`class_to_idx`, `classes`), train and val must
    give them the same labels.

    Args:
        data: The dataset or loader.
        unpack: A batch to `(inputs, targets)`.
        device: Where batches are moved to.

    Raises:
        TypeError: It is an iterable dataset, or none.
        ValueError: It is empty.
    """

    def __init__(
        self,
        data: Dataset[Any] | DataLoader[Any],
        unpack: Unpack | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise TypeError(
                f"data must have a length, got {type(data).__name__}: wrap it in a DataLoader "
                "whose length is known, or read it into tensors"
            )
        self._data = data
        self._unpack = unpack or _unpacked
        self._own_unpack = unpack
        self.device = torch.device(device)
        if len(self) == 0:
            raise ValueError(
                f"data must hold at least one example, got an empty {type(data).__name__}"
            )
        if self.n_batches(1) == 0:
            raise ValueError(
                f"a DataLoader must make at least one batch, got none of its {len(self)} examples: "
                "pass drop_last=False or a smaller batch_size"
            )

    def __len__(self) -> int:
        if not isinstance(self._data, DataLoader):
            return len(self._data)
        dataset: Any = self._data.dataset
        own = getattr(self._data.batch_sampler, "sampler", dataset)
        try:
            return len(self._data.sampler if self._data.batch_size else own)  # type: ignore[arg-type]
        except TypeError:  # an iterable dataset behind a loader that knows how many batches it has
            known = hasattr(dataset, "__len__")
            return len(dataset) if known else len(self._data) * (self._data.batch_size or 1)

    @property
    def makes_batches(self) -> bool:
        """Whether it is a loader, whose batches are those that it makes."""
        return isinstance(self._data, DataLoader)

    @property
    def batch_size(self) -> int | None:
        """That of a loader; None: it is not known, or as for a dataset the one that is wanted."""
        size = self._data.batch_size if isinstance(self._data, DataLoader) else None
        own = getattr(getattr(self._data, "batch_sampler", None), "batch_size", None)
        return own if size is None and isinstance(own, int) else size

    @property
    def n_dropped(self) -> int:
        """How many examples of each pass a loader leaves out (`drop_last`), as far as known."""
        makers = self._data, getattr(self._data, "batch_sampler", None)
        drops = any(getattr(each, "drop_last", False) for each in makers)
        return len(self) % self.batch_size if drops and self.batch_size is not None else 0

    def n_batches(self, batch_size: int) -> int:
        """Returns how many batches a pass has: a loader's own number, or of so many examples."""
        if isinstance(self._data, DataLoader):
            return len(self._data)
        return -(-len(self) // batch_size)

    @property
    def class_labels(self) -> dict[str, int]:
        """The label of each class by its name; empty: see `datasets.class_labels`."""
        data = self._data
        return class_labels(data.dataset if isinstance(data, DataLoader) else data)

    @property
    def identity(self) -> str:
        """What the data are known by (see `identity_of`), and the code of `unpack`."""
        named = identity_of(self._data, len(self))
        return named if self._own_unpack is None else f"{named}, {fingerprint_of(self._own_unpack)}"

    def to(self, device: str | torch.device) -> LoaderSource:
        """Returns this source with batches on another device."""
        other = copy.copy(self)
        other.device = torch.device(device)
        return other

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        augment: Any = None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Iterates over `(inputs, targets)` on the device.

        Raises:
            ValueError: `augment` is given: a dataset's transform is the place for it.
            DataError: A batch has no targets, or a worker of the loader died.
        """
        if augment is not None:
            raise ValueError("augment is for Examples; give the dataset a transform instead")
        loader = self._loader(batch_size, seed or 0, shuffle, drop_last)
        iterator = iter(loader)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                raise DataError(
                    f"a worker process of the DataLoader died ({error}): num_workers=0 shows why; "
                    "in a container give more shared memory"
                ) from error
            unpacked = self._unpack(batch)
            if not isinstance(unpacked, tuple) or len(unpacked) != 2:
                raise DataError(
                    f"a batch must be (inputs, targets), got {shapes_of(unpacked)}: pass unpack=, "
                    "a function of a batch to (inputs, targets)"
                )
            yield map_tensors(lambda t: t.to(self.device, non_blocking=True), unpacked)

    def _loader(
        self, batch_size: int, seed: int, shuffle: bool, drop_last: bool
    ) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(seed)
        if not isinstance(self._data, DataLoader):
            return DataLoader(
                self._data, batch_size, shuffle=shuffle, generator=generator, drop_last=drop_last
            )
        for owner in (self._data, self._data.sampler):
            own = getattr(owner, "generator", None)
            if isinstance(own, torch.Generator):
                own.manual_seed(seed)
        return self._data


def as_source(data: Any, name: str, unpack: Unpack | None = None) -> BatchSource:
    """Returns data of any kind as a source of batches on the CPU; tensors as `Examples`.

    Raises:
        TypeError: It is something else; the error calls it `name`.
        ValueError: It is empty.
    """
    if unpack is not None:
        check_function("unpack", unpack)
    if isinstance(data, Mapping):  # inputs by name, with the targets among them
        data = _unpacked(data)
    is_pair = isinstance(data, TensorDataset) and len(data.tensors) == 2
    if is_pair and unpack is None:
        return as_examples(tuple(data.tensors), name)
    if isinstance(data, (Dataset, DataLoader)) or _is_map_style(data):
        try:
            return LoaderSource(data, unpack)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    if isinstance(data, Examples) or (isinstance(data, tuple) and len(data) == 2):
        return as_examples(data, name).to("cpu")
    if isinstance(data, tuple) or not hasattr(data, "batches"):
        raise TypeError(
            f"{name} must be Examples, a tuple (inputs, targets), a Dataset, a DataLoader, or a "
            f"function that opens one of them, got {words_for(data)}{way_out_of_data(data)}"
        )
    return data  # type: ignore[no-any-return]


class GivenData:
    """The training and validation examples as the user gave them, or as functions open them.

    Pickling: where a function was given, only it travels.

    Args:
        train: Examples of any kind, or a function that opens them.
        val: Likewise.
        unpack: See `LoaderSource`.
    """

    def __init__(self, train: Any, val: Any, unpack: Unpack | None = None) -> None:
        self._given = {"train": train, "val": val}
        self._unpack = unpack
        self._opened: dict[str, BatchSource] = {}
        self._identity: dict[str, Any] = {}
        self._on: dict[str, tuple[BatchSource, BatchSource]] = {}
        sources = self.on("cpu")
        if unpack is not None and not any(isinstance(part, LoaderSource) for part in sources):
            raise ValueError(
                "unpack is for batches of a Dataset or a DataLoader, and there is none"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What the sources say that they hold."""
        for name in self._given:
            self._source(name)
        return dict(self._identity)

    def on(self, device: str) -> tuple[BatchSource, BatchSource]:
        """Returns both parts with batches on the device, copied there once."""
        if device not in self._on:
            parts = [self._source(name) for name in self._given]
            moved = [part.to(device) if hasattr(part, "to") else part for part in parts]
            self._on[device] = moved[0], moved[1]
        return self._on[device]

    def _source(self, name: str) -> BatchSource:
        if name not in self._opened:
            given = self._given[name]
            is_function = _is_function(given)
            source = as_source(given() if is_function else given, name, self._unpack)
            train = self._source("train") if name == "val" else None
            if name == "val":
                _refuse_dropped(source)
            if isinstance(source, Examples) and isinstance(train, Examples):
                source = matched(source, train, name)
            elif train is not None:
                refuse_other_labels(_labels_of(source), _labels_of(train), name, "train")
            found = getattr(source, "identity", "")
            if self._identity.setdefault(name, found) != found:
                raise DataError(
                    f"the examples that {name} opens are not those that the search began with: "
                    "restore the data, or start another run"
                )
            self._opened[name] = source
        return self._opened[name]

    def __getstate__(self) -> dict[str, Any]:
        kept = {
            name: source
            for name, source in self._opened.items()
            if not _is_function(self._given[name])
        }
        return {**self.__dict__, "_opened": kept, "_on": {}}


def _refuse_dropped(val: BatchSource) -> None:
    """Refuses a loader that would leave examples out of the score.

    Raises:
        ValueError: It has `drop_last`, and examples that fill no batch.
    """
    if n_dropped := getattr(val, "n_dropped", 0):
        n = len(val)
        raise ValueError(
            f"val: its DataLoader has drop_last=True, so only {n - n_dropped} of {n} examples "
            "would be scored: pass drop_last=False"
        )


def _labels_of(source: Any) -> dict[str, int]:
    """Returns the label of each class by its name; {}: the classes have no names but numbers."""
    if not isinstance(source, Examples):
        return dict(getattr(source, "class_labels", {}))
    labels = {each: label for label, each in enumerate(source.classes)}
    return {} if all(each == str(label) for each, label in labels.items()) else labels


def _is_map_style(data: Any) -> bool:
    """Whether it is a dataset of another library (of Hugging Face, say): neither list nor array."""
    has_items = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    plain = isinstance(data, (tuple, list, Mapping, str, bytes, Examples, type))
    return has_items and not plain and not hasattr(data, "dtype")


def _is_function(given: Any) -> bool:
    return callable(given) and not isinstance(given, (Dataset, DataLoader, Examples))


def _unpacked(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        for name in TARGETS:
            if name in batch:
                return {key: entry for key, entry in batch.items() if key != name}, batch[name]
        return batch
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        *inputs, targets = batch
        return (inputs[0] if len(inputs) == 1 else tuple(inputs)), targets
    return batch

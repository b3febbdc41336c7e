"""What data sets and loaders of torch are known by: some of their examples, and their settings."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from evonas.evolution.random_state import borrowed_global_rng
from evonas.space.naming import fingerprint_of
from evonas.training.data.datasets import datasets_in
from evonas.training.data.examples import as_bytes
from evonas.training.seeding import seeded

__all__ = ["identity_of"]

_N_READ = 8  # examples, of which a dataset is known


def identity_of(data: Any, n: int) -> str:
    """Returns what a data set or a loader is known by: its class, examples, settings and batches.

    A few examples are read for it; those that change from one reading to the next (random
    transforms) do not count. The settings of a data set are the attributes that a class of the
    user's has (see `fingerprint_of`), its transforms and the indices of a `Subset`, and those of
    the data sets that it wraps; of a loader they are the batch size, `drop_last`, the sampler and
    the functions that it got.

    Args:
        data: The data set or loader.
        n: How many examples it has.
    """
    dataset = data.dataset if isinstance(data, DataLoader) else data
    named = [fingerprint_of(type(dataset)), f"{n} examples"]
    if hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
        named.append(_digest_of_some(dataset, n))
    settings = "\n".join(_settings(dataset, []))
    named.append(f"settings {hashlib.sha256(settings.encode()).hexdigest()[:16]}")
    if isinstance(data, DataLoader):
        named += _loader_settings(data)
    return ", ".join(filter(None, named))


def _settings(dataset: Any, seen: list[Any]) -> Iterator[str]:
    seen.append(dataset)
    kind = fingerprint_of(type(dataset))
    is_own = kind != type(dataset).__name__  # of a package, a class is known by its name
    yield fingerprint_of(dataset) if is_own else kind
    if isinstance(dataset, Subset):
        yield _digest(dataset.indices)
    for name, value in sorted(getattr(dataset, "__dict__", {}).items()):
        if callable(value) and not isinstance(value, type):
            yield from (f"{name} {each}" for each in _functions(value))
    for each in datasets_in(dataset):
        if all(each is not one for one in seen):
            yield from _settings(each, seen)


def _functions(transform: Any) -> Iterator[str]:
    """Yields what a function is known by, and those in it (`Compose` keeps them in a list)."""
    yield fingerprint_of(transform)
    inner = getattr(transform, "transforms", ())
    for each in inner if isinstance(inner, (list, tuple)) else ():
        yield from _functions(each)


def _loader_settings(loader: DataLoader[Any]) -> Iterator[str]:
    """Yields how a loader makes batches."""
    sampler: Any = loader.sampler
    if loader.batch_size is None and loader.batch_sampler is not None:
        yield _sampler_of(loader.batch_sampler)
        sampler = getattr(loader.batch_sampler, "sampler", None)
    else:
        yield f"batches of {loader.batch_size}"
    if sampler is not None:
        yield _sampler_of(sampler)
    if loader.drop_last:
        yield "drop_last"
    for function in (loader.collate_fn, loader.worker_init_fn):
        if function is not None and function is not default_collate:
            yield fingerprint_of(function)


def _sampler_of(sampler: Any) -> str:
    if isinstance(sampler, Sequence):  # the examples themselves, in a list
        return f"{type(sampler).__name__} {_digest(sampler)}"
    numbers = {
        name: value
        for name, value in getattr(sampler, "__dict__", {}).items()
        if isinstance(value, (Tensor, Sequence)) and not isinstance(value, str)
    }
    named, kind = fingerprint_of(sampler), type(sampler)
    is_own = fingerprint_of(kind) != kind.__name__  # whose lists may change as it is used
    return named if is_own or not numbers else f"{named} {_digest(numbers)}"


def _digest_of_some(dataset: Any, n: int) -> str:
    """Returns a digest of a few examples of a map-style dataset; "" where they are random."""
    found = []
    for seed in (0, 1):
        with seeded(seed), borrowed_global_rng(random.Random(seed)):
            rows = sorted({n * place // _N_READ for place in range(_N_READ)})
            found.append(_digest([dataset[index] for index in rows]))
    return found[0] if found[0] == found[1] else ""


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _note(digest, value)
    return digest.hexdigest()[:16]


def _note(digest: Any, value: Any) -> None:
    """Adds the numbers and texts of an example to a digest."""
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode() + bytes(as_bytes(value)))
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            digest.update(repr(name).encode())
            _note(digest, entry)
    elif isinstance(value, (tuple, list, range)):
        for entry in value:
            _note(digest, entry)
    elif hasattr(value, "tobytes"):  # an array, an image of Pillow
        digest.update(value.tobytes())
    else:
        is_plain = value is None or isinstance(value, (bool, int, float, str))
        digest.update(repr(value if is_plain else type(value).__qualname__).encode())

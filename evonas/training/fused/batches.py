"""The batches of several candidates: each one's own examples in its own order, stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from evonas.exceptions import FusionError
from evonas.training.data.batches import Augment, Batch, BatchSource
from evonas.training.data.examples import Examples
from evonas.training.data.structure import map_tensors, shapes_of, tensors_in

__all__ = ["stacked_batches"]


def stacked_batches(
    source: BatchSource,
    batch_size: int,
    seeds: Sequence[int],
    *,
    augment: Augment | None = None,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """Iterates once over the examples: batches `(K, B, ...)`, each row as its seed alone orders it.

    Args:
        source: Of the examples.
        batch_size: Examples a batch of each candidate.
        seeds: Of the candidates: they decide order and augmentation.
        augment: Applied to each candidate's batch, with its own draws.
        drop_last: Whether to leave out a batch with fewer examples.

    Raises:
        FusionError: The candidates' batches differ in shape, or in number.
    """
    if augment is None and _can_gather(source):
        yield from _gathered(source, batch_size, seeds, drop_last)  # type: ignore[arg-type]
        return
    iterators = [
        source.batches(batch_size, seed=seed, shuffle=True, augment=augment, drop_last=drop_last)
        for seed in seeds
    ]
    while True:
        batches = [batch for batch in (next(each, None) for each in iterators) if batch is not None]
        if not batches:
            return
        if len(batches) < len(seeds):
            raise FusionError("the candidates have different numbers of batches: train each alone")
        yield _stacked([each[0] for each in batches]), _stacked([each[1] for each in batches])


def _can_gather(source: BatchSource) -> bool:
    """Whether one gather serves all: a transform may look at a batch as a whole."""
    return isinstance(source, Examples) and source.layout is None and source.transform is None


def _gathered(
    source: Examples, batch_size: int, seeds: Sequence[int], drop_last: bool
) -> Iterator[Batch]:
    orders = [
        source.batches_of_ids(batch_size, seed=seed, shuffle=True, drop_last=drop_last)
        for seed in seeds
    ]
    for ids in zip(*orders, strict=True):
        joined = torch.cat(ids)

        def rows(tensor: Tensor) -> Tensor:
            return tensor.view(len(seeds), -1, *tensor.shape[1:])

        yield map_tensors(rows, source.gather(joined)), rows(source.targets_of(joined))


def _stacked(parts: Sequence[Any]) -> Any:
    """Returns structures of the same kind as one, their tensors stacked."""
    columns = [tensors_in(part) for part in parts]
    if len({shapes_of(part) for part in parts}) > 1:
        shapes = ", ".join(dict.fromkeys(map(shapes_of, parts)))
        raise FusionError(
            f"batches of different shapes cannot be trained at once ({shapes}): train each alone"
        )
    stacked = iter([torch.stack(column) for column in zip(*columns, strict=True)])
    return map_tensors(lambda _: next(stacked), parts[0])

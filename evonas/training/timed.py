"""How long the passes over one source take: training seconds are those without validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from evonas.training.data.batches import Batch, BatchSource

__all__ = ["Timed"]

Metric = Callable[[Tensor, Tensor], float]


class Timed:
    """A source that adds up the seconds from each pass's first batch to its end.

    Attributes:
        seconds: So far; those of metrics made by `timed` among them.
    """

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, batch_size: int, **options: Any) -> Iterator[Batch]:
        """Iterates as the source does."""
        began = time.perf_counter()
        yield from self._source.batches(batch_size, **options)
        self.seconds += time.perf_counter() - began

    def timed(self, metric: Metric) -> Metric:
        """Returns the metric, whose seconds are added, too."""

        def measured(outputs: Tensor, targets: Tensor) -> float:
            began = time.perf_counter()
            value = metric(outputs, targets)
            self.seconds += time.perf_counter() - began
            return value

        return measured

"""Sequences of different lengths, end to end in one tensor."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Layout", "pack"]

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Layout:
    """Where each sequence lies.

    Attributes:
        lengths: int64 `(N,)`, on the CPU: so that no batch waits for an accelerator.
        side: Where a padded batch has its padding.
    """

    lengths: Tensor
    side: Side = "right"

    @functools.cached_property
    def n_rows(self) -> int:
        """Rows of all sequences together; the row behind them stands for padding."""
        return int(self.lengths.sum())

    @functools.cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    def example_of(self, row: int) -> int:
        """Returns whose sequence holds a row."""
        return int(torch.searchsorted(self.lengths.cumsum(0), row, right=True))

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


def pack(
    columns: Mapping[str, Sequence[Any]], padding: Mapping[str, float], side: Side
) -> tuple[dict[str, Tensor], Layout | None]:
    """Returns each column as one tensor `(n_rows + 1, ...)`, and where its sequences lie.

    The last row is the padding. Without columns there is no layout.

    Raises:
        ValueError: A sequence is empty, or two columns have sequences of different lengths.
    """
    packed: dict[str, Tensor] = {}
    layout: Layout | None = None
    for name, column in columns.items():
        rows = [torch.as_tensor(row) for row in column]
        lengths = torch.tensor([len(row) for row in rows])
        if len(rows) and int(lengths.min()) == 0:
            raise ValueError(f"every sequence of {name!r} must hold something, got an empty one")
        if layout is None:
            layout = Layout(lengths, side)
        elif not torch.equal(layout.lengths, lengths):
            raise ValueError(f"sequences of {name!r} must be as long as those of other inputs")
        values = torch.cat(rows) if rows else torch.empty(0)
        packed[name] = torch.cat([values, torch.full_like(values[:1], padding.get(name, 0))])
    return packed, layout

"""Whether all numbers of examples are finite: a NaN among them makes every training diverge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evonas.exceptions import DataError

if TYPE_CHECKING:
    from evonas.training.data.examples import Examples

__all__ = ["NotFinite", "finite", "first_not_finite"]

_CHUNK = 1024  # rows looked at at a time: bounds the memory of the answers


@dataclass(frozen=True, slots=True)
class NotFinite:
    """The first number of some examples that is NaN or infinite.

    Attributes:
        what: Where it stands: `inputs`, `inputs['age']`, `targets`.
        value: It.
        row: Of the example, from 0.
    """

    what: str
    value: float
    row: int


def first_not_finite(column: Tensor, rows: Tensor | None = None) -> tuple[float, int] | None:
    """Returns the first NaN or infinity of a column and its row; None: all numbers are finite.

    Args:
        column: `(N, ...)` of any dtype; only floating numbers can be anything else.
        rows: Which of the N are looked at, in this order; the answer counts in these. None: all.
    """
    if not (column.is_floating_point() or column.is_complex()):
        return None
    n = len(column) if rows is None else len(rows)
    for begin in range(0, n, _CHUNK):
        end = begin + _CHUNK
        chunk = column[begin:end] if rows is None else column[rows[begin:end]]
        if not bool(torch.isfinite(chunk).all()):
            flat = chunk.reshape(len(chunk), -1)
            finite = torch.isfinite(flat)
            row = int((~finite.all(1)).nonzero()[0])
            value = flat[row][~finite[row]][0]
            return float(value.real if value.is_complex() else value), begin + row
    return None


def finite(data: Examples, name: str) -> Examples:
    """Returns examples in which every number is finite.

    Raises:
        DataError: One is not; says where the first is.
    """
    if (wrong := data.not_finite) is not None:
        raise DataError(
            f"the {wrong.what} of {name} must be finite, got {wrong.value} in row {wrong.row} "
            "(from 0): fill such numbers in, or leave these examples out"
        )
    return data

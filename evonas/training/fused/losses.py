"""The losses of several candidates: cross entropy for all at once, others one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.training.data.structure import map_tensors
from evonas.training.targets import NoOuterBroadcast

__all__ = ["RowLosses"]

_IGNORED = -100  # the class that torch's cross entropy leaves out


class RowLosses:
    """The loss of each candidate's batch.

    Args:
        functions: Of each candidate, `(outputs as float32, targets)` to a mean.
        device: Of the outputs.
    """

    def __init__(
        self, functions: Sequence[Callable[[Any, Any], Tensor]], device: torch.device
    ) -> None:
        self._functions = list(functions)
        self._has_checked = False
        self._smoothing: Tensor | None = None
        if all(map(_is_plain, functions)):
            shares = [f.label_smoothing for f in functions]  # type: ignore[attr-defined]
            self._smoothing = torch.tensor(shares, dtype=_wide(device), device=device)[:, None]
            self._smooths = any(shares)

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all but these candidates."""
        self._functions = [self._functions[row] for row in rows]
        if self._smoothing is not None:
            self._smoothing = self._smoothing[list(rows)]

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the losses `(K,)` of outputs and targets `(K, B, ...)`."""
        if self._smoothing is not None and _are_classes(outputs, targets):
            return self._cross_entropy(outputs, targets, self._smoothing.to(outputs.dtype))
        losses = []
        with nullcontext() if self._has_checked else NoOuterBroadcast("the loss"):
            for row, function in enumerate(self._functions):
                own = [map_tensors(lambda t, row=row: t[row], v) for v in (outputs, targets)]  # type: ignore[misc]
                losses.append(function(*own))
        self._has_checked = True
        return torch.stack(losses)

    def _cross_entropy(self, outputs: Tensor, targets: Tensor, smoothing: Tensor) -> Tensor:
        logs = functional.log_softmax(outputs, 2)  # (K, B, C)
        taken = targets != _IGNORED
        of_target = logs.gather(2, targets.where(taken, 0)[:, :, None])[:, :, 0]
        losses = -of_target
        if self._smooths:
            losses = (1 - smoothing) * losses - smoothing * logs.mean(2)
        return losses.masked_fill(~taken, 0).sum(1) / taken.sum(1)


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPUs lack


def _is_plain(function: Any) -> bool:
    return (
        type(function) is nn.CrossEntropyLoss
        and function.weight is None
        and function.reduction == "mean"
        and function.ignore_index == _IGNORED
    )


def _are_classes(outputs: Any, targets: Any) -> bool:
    """Whether outputs are `(K, B, C)` and targets class numbers `(K, B)`."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.ndim == 3
        and targets.shape == outputs.shape[:2]
        and targets.dtype == torch.int64
    )

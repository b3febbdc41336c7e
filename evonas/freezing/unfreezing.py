"""Gradual unfreezing: blocks that begin to move in turn, from the head to the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from evonas.training.recipe import Training

__all__ = [
    "AT_ONCE",
    "GRADUAL",
    "START",
    "UNFREEZING",
    "Unfreezing",
    "gradual_scheduler",
    "starts",
]

Unfreezing = Literal["at once", "gradual"]
"""When trained blocks begin to move: all at once, or one after the other from the head on."""

AT_ONCE, GRADUAL = UNFREEZING = get_args(Unfreezing)

START = "start"
"""Key of a parameter group: the share of the steps before which its learning rate is 0."""


def starts(n: int) -> list[float]:
    """Returns the share of a training after which each of `n` parts begins, the head's first.

    Example:
        >>> starts(4)
        [0.0, 0.25, 0.5, 0.75]
    """
    return [place / n for place in range(n)]


def gradual_scheduler(optimizer: Optimizer, training: Training, n_steps: int) -> LambdaLR:
    """Returns the schedule of a training, in which each group's rate is 0 before its `start`.

    Args:
        optimizer: Of groups that may have a `start`, as `Recipe.apply` makes them.
        training: Whose schedule it is.
        n_steps: Of the whole training.
    """
    factors = tuple(_factors(training, n_steps))
    groups = optimizer.param_groups
    shapes: list[Callable[[int], float]] = [
        partial(_factor, factors=factors, start=group.get(START, 0.0) * n_steps) for group in groups
    ]
    return LambdaLR(optimizer, shapes)


def _factor(step: int, *, factors: Sequence[float], start: float) -> float:
    return 0.0 if step < start else factors[min(step, len(factors) - 1)]


def _factors(training: Training, n_steps: int) -> list[float]:
    """Returns the multiple of the rate in each step, read off the schedule itself."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = training.make_scheduler(optimizer, n_steps)
    if scheduler is None:
        return [1.0]
    found = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(n_steps):
        optimizer.step()
        scheduler.step()
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found

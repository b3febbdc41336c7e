"""Fitness values as targets that a model can learn: what matters is who is near the top."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["OFFSETS", "warped"]

Floats = NDArray[np.float64]

OFFSETS = (0.03, 0.1, 0.3, 1.0, 10.0)
"""Offsets to choose from, as fractions of the distance of the median from the best."""


def warped(values: Floats, offset: float) -> tuple[Floats, float]:
    """Returns standardised targets of values (n,), and the logarithm of the warp's slope.

    The target is minus the logarithm of the distance from the best value, with an offset: a small
    one stretches the top and squeezes the rest, a large one leaves the values as they are.

    Args:
        values: The larger the better.
        offset: A fraction of the distance of the median from the best.

    Returns:
        Targets (n,) of mean 0 and standard deviation 1, the larger the better, and the sum over
        the values of log(d target / d value): with it the likelihoods of two warps compare.
    """
    distance = values.max() - values
    spread = float(np.median(distance))
    if spread <= 0.0:
        spread = float(distance.max())
    if spread <= 0.0:
        return np.zeros_like(values), 0.0
    shifted = distance / spread + offset
    targets = -np.log(shifted)
    deviation = float(targets.std())
    log_slope = -float(np.log(shifted).sum()) - len(values) * float(np.log(deviation * spread))
    return (targets - targets.mean()) / deviation, log_slope

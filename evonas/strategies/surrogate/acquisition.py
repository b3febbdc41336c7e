"""What a point is worth trying, by mean and uncertainty of the model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_expected_improvement"]

Floats = NDArray[np.float64]

_FAR = -20.0  # standard deviations below the best, from which on the asymptote is used


def log_expected_improvement(mean: Floats, sd: Floats, best: float) -> Floats:
    """Returns the logarithm of the expected improvement over `best`, (n,).

    The logarithm tells points apart where the improvement itself is too small for a float.

    Args:
        mean: (n,), the larger the better.
        sd: (n,), positive.
        best: What is to be improved upon.

    Source:
        Ament et al. (2023), "Unexpected improvements to expected improvement", section 4.1; ours
        uses the first term of the asymptotic series below -20 standard deviations.
    """
    z = (mean - best) / sd
    near = np.maximum(z, _FAR)
    cumulative = 0.5 * np.array([math.erfc(-each / math.sqrt(2.0)) for each in near])
    found = np.log(near * cumulative + np.exp(_log_density(near)))
    far = _log_density(z) - 2.0 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.where(z < _FAR, far, found) + np.log(sd))


def _log_density(z: Floats) -> Floats:
    return np.asarray(-0.5 * z * z - 0.5 * math.log(2.0 * math.pi))

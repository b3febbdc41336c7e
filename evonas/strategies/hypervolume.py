"""How much of the space of objectives a front dominates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["hypervolume"]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Returns the volume between a reference point and a front; everything is maximised.

    Exact, by slices along the last objective: fine for the tens of points and three or four
    objectives of a search; of two by one pass over the sorted points.

    Args:
        points: (n, n_objectives); those not above the reference in every objective add nothing.
        reference: (n_objectives,).

    Example:
        >>> hypervolume([(1.0, 3.0), (2.0, 1.0)], (0.0, 0.0))
        4.0
    """
    above = [p for p in points if all(x > low for x, low in zip(p, reference, strict=True))]
    if not above:
        return 0.0
    if len(reference) == 1:
        return float(max(point[0] for point in above) - reference[0])
    above.sort(key=_last, reverse=True)
    if len(reference) == 2:
        return _area(above, reference)
    heights = [point[-1] for point in above] + [reference[-1]]
    total = 0.0
    for n, (height, lower) in enumerate(pairwise(heights), start=1):
        if height > lower:
            flat = [point[:-1] for point in above[:n]]
            total += (height - lower) * hypervolume(flat, reference[:-1])
    return total


def _area(above: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Returns the area of points that come highest first."""
    total, reached = 0.0, reference[0]
    for x, y in above:
        if x > reached:
            total += (x - reached) * (y - reference[1])
            reached = x
    return total


def _last(point: Sequence[float]) -> float:
    return point[-1]

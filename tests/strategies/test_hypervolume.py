"""The hypervolume of fronts, held against a count of the cells of a grid."""

from __future__ import annotations

import itertools
import random

import pytest

from evonas.strategies.hypervolume import hypervolume


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_it_counts_what_a_front_dominates(n_objectives: int) -> None:
    rng = random.Random(n_objectives)
    for _ in range(20):
        points = [[float(rng.randint(-1, 6)) for _ in range(n_objectives)] for _ in range(7)]
        cells = itertools.product(range(6), repeat=n_objectives)
        wanted = sum(
            any(all(x > low for x, low in zip(point, cell, strict=True)) for point in points)
            for cell in cells
        )
        assert hypervolume(points, [0.0] * n_objectives) == wanted

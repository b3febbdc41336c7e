"""What a model of the evaluations expects along one gene, held against known functions."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.run.fitness_model import FitnessModel

SPACE = en.SearchSpace({
    "kind": ["a", "b", "c"],
    "rate": en.Float(1e-4, 1e-1, log=True),
    "width": en.Integer(1, 300),
})  # fmt: skip
HEIGHTS = {"a": 100.0, "b": 130.0, "c": 90.0}


def value(genes: Any) -> float:
    return HEIGHTS[genes["kind"]] - 8 * (math.log10(genes["rate"]) + 2.5) ** 2


def model_of(function: Any, n: int = 60, space: en.SearchSpace = SPACE) -> FitnessModel:
    rng = random.Random(0)
    points = [space.sample(rng) for _ in range(n)]
    return FitnessModel(
        space,
        [
            en.Evaluation(i, space.key(genes), genes, en.Status.OK, (0.0, function(genes)))
            for i, genes in enumerate(points)
        ],
        objective=1,
    )


def test_a_slice_is_the_function_in_its_own_units() -> None:
    genes = {"kind": "b", "rate": 1e-3, "width": 50}
    model = model_of(value)
    along = model.slice("rate", genes)
    assert len(along.values) == 61
    assert (along.values[0], along.values[-1]) == pytest.approx((1e-4, 1e-1))
    expected = [value({**genes, "rate": rate}) for rate in along.values]
    assert along.mean == pytest.approx(expected, abs=2.0)
    kinds = model.slice("kind", genes)
    assert kinds.values == ("a", "b", "c")
    assert kinds.mean == pytest.approx([value({**genes, "kind": kind}) for kind in "abc"], abs=2.0)
    assert along.explained == kinds.explained > 0.95
    widths = model.slice("width", genes).values
    assert (widths[0], widths[-1]) == (1, 300)
    assert all(type(width) is int for width in widths)


def test_what_is_far_from_all_evaluations_is_unsure() -> None:
    space = en.SearchSpace({"x": en.Float(0.0, 1.0)})
    entries = [
        en.Evaluation(i, str(i), {"x": x}, en.Status.OK, (np.sin(12 * x),))
        for i, x in enumerate(np.linspace(0.0, 0.5, 12))
    ]
    along = FitnessModel(space, entries).slice("x", {"x": 0.2})
    near, far = along.sd[12], along.sd[-1]  # x = 0.2 and x = 1
    assert far > 5 * near
    assert abs(along.mean[12] - np.sin(12 * 0.2)) < 3 * near + 0.02


def test_the_spread_is_in_the_units_of_the_objective() -> None:
    genes = {"kind": "b", "rate": 1e-3, "width": 50}
    once, hundred = model_of(value), model_of(lambda genes: 100 * value(genes))
    expected = [100 * sd for sd in once.slice("rate", genes).sd]
    assert hundred.slice("rate", genes).sd == pytest.approx(expected, rel=0.01)


def test_a_gene_that_is_not_active_stays_so() -> None:
    space = en.SearchSpace(
        {"deep": en.Boolean(), "extra": en.Integer(1, 8)}, conditions={"extra": {"deep": [True]}}
    )
    model = model_of(lambda genes: genes.get("extra", 0.0), 40, space)
    assert np.ptp(model.slice("extra", {"deep": False}).mean) < 0.1
    assert np.ptp(model.slice("extra", {"deep": True, "extra": 2}).mean) > 5


def test_of_a_run() -> None:
    result = en.evolve(SPACE, lambda genes, trial: value(genes), max_evaluations=40, seed=0)
    along = result.slice("kind")
    champion = result.champion
    expected = along.mean[along.values.index(champion.genes["kind"])]
    assert expected == pytest.approx(champion.fitness, abs=2.0)
    other = result.slice("kind", genes={"kind": "a", "rate": 0.1, "width": 3})
    assert other.mean[0] < along.mean[0] - 5
    with pytest.raises(ValueError, match="no gene 'height': the genes are kind, rate, width"):
        result.slice("height")
    with pytest.raises(ValueError, match="rate"):
        result.slice("kind", genes={"kind": "a"})
    with pytest.raises(ValueError, match="no objective 'speed', only fitness"):
        result.slice("kind", objective="speed")

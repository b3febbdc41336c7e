"""The model behind SurrogateEvolution, held against what it stands for."""

from __future__ import annotations

import random

import numpy as np
import pytest

import evonas as en
from evonas.strategies.surrogate import Encoding, fitted_model
from evonas.strategies.surrogate.model import (
    GaussianProcess,
    Hyperparameters,
    correlation,
    fitted,
    log_posterior,
)
from evonas.strategies.surrogate.strategy import _doubt

SPACE = en.SearchSpace({"kind": ["a", "b", "c"], "x": en.Float(0.0, 1.0), "y": en.Float(0.0, 1.0)})


def points(n: int) -> tuple[Encoding, np.ndarray, np.ndarray]:
    rng = random.Random(0)
    encoding = Encoding(SPACE)
    values = [SPACE.sample_values(rng) for _ in range(n)]
    targets = np.array([np.sin(5 * x) + y * (kind == "a") for kind, x, y in values])
    return encoding, encoding.rows(values), (targets - targets.mean()) / targets.std()


def test_numbers_correlate_by_matern_and_choices_by_an_exponential() -> None:
    found, slope = correlation(np.array([0.0, 0.3, 0.0]), np.array([0.0, 0.0, 1.5]))
    root = np.sqrt(9.0)  # sqrt(6 * 1.5)
    assert found == pytest.approx([1.0, np.exp(-0.3), (1 + root + root**2 / 3) * np.exp(-root)])
    step = 1e-6
    ahead, _ = correlation(np.array([0.2]), np.array([0.7 + step]))
    here, falls = correlation(np.array([0.2]), np.array([0.7]))
    assert -float(falls[0]) == pytest.approx(float((ahead - here)[0]) / step, rel=1e-4)
    assert slope[0] == 1.0  # near 0 a distance counts alike in both


def test_errors_of_points_left_out_are_those_of_models_without_them() -> None:
    encoding, rows, targets = points(12)
    hyper = Hyperparameters.prior(encoding)
    model = GaussianProcess(encoding, rows, targets, hyper)
    found = model.left_out_errors()
    for i in (0, 5, 11):
        others = np.arange(12) != i
        without = GaussianProcess(encoding, rows[others], targets[others], hyper)
        mean, _ = without.predict(rows[i : i + 1])
        # The whole model's mean is that of all twelve; the shift by it is small.
        assert found[i] == pytest.approx(float(targets[i] - mean[0]), abs=0.05)


def test_learning_climbs_and_finds_what_matters() -> None:
    encoding, rows, targets = points(60)
    start = Hyperparameters.prior(encoding)
    learnt = fitted(encoding, rows, targets, start, n_steps=30)
    before = log_posterior(encoding, rows, targets, start)
    assert log_posterior(encoding, rows, targets, learnt) > before + 5
    model = fitted_model(encoding, rows, targets)
    assert float((model.left_out_errors() ** 2).mean()) < 0.05


def test_the_models_doubt_grows_with_the_points() -> None:
    assert [_doubt(n) for n in (0, 20, 35, 50, 500)] == [1.0, 1.0, 1.5, 2.0, 2.0]

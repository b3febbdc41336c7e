"""The model behind SurrogateEvolution, held against what it stands for."""

from __future__ import annotations

import random

import numpy as np
import pytest

import evonas as en
from evonas.strategies.surrogate import Encoding, fitted_model
from evonas.strategies.surrogate import strategy as module
from evonas.strategies.surrogate.model import (
    GaussianProcess,
    Hyperparameters,
    _Posterior,
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


def test_the_gradient_of_the_posterior_is_its_slope() -> None:
    density = _Posterior(*points(15))
    here = np.array([0.3, -0.2, 0.5, -3.0])
    _, gradient = density(here)
    for i in range(4):
        step = np.zeros(4)
        step[i] = 1e-5
        slope = (density(here + step)[0] - density(here - step)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-4)


def told(n: int) -> en.AskTell:
    search = en.AskTell(SPACE, en.SurrogateEvolution(n_initial=10), seed=1)
    for _ in range(n):
        (proposal,) = search.ask(1)
        genes = proposal.genes
        search.tell(proposal, -((genes["x"] - 0.6) ** 2) + (genes["kind"] == "a"))
    return search


def test_points_are_chosen_with_that_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    real = module.log_expected_improvement

    def spy(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
        used.append(sd)
        return real(mean, sd, best)

    search = told(50)
    monkeypatch.setattr(module, "log_expected_improvement", spy)
    monkeypatch.setattr(
        GaussianProcess, "predict", lambda self, rows: (np.zeros(len(rows)), np.ones(len(rows)))
    )
    search.ask(1)
    assert {float(value) for sd in used for value in sd} == {2.0}


def test_a_point_under_way_counts_a_standard_deviation_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    class Spy(GaussianProcess):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append((self, arguments[1], arguments[2]))

    search = told(20)
    monkeypatch.setattr(module, "GaussianProcess", Spy)
    search.ask(2)
    (without, _, known), (_, rows, targets) = made[-2:]
    assert len(targets) == len(known) + 1
    mean, sd = without.predict(rows[-1:])
    assert targets[-1] == pytest.approx(float(mean[0] - sd[0]))
    assert sd[0] > 0

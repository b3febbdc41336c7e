"""The model behind SurrogateEvolution, held against what it stands for."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.strategies.surrogate import Encoding, fitted_model
from evonas.strategies.surrogate import model as model_module
from evonas.strategies.surrogate import strategy as module
from evonas.strategies.surrogate.model import (
    Draw,
    GaussianProcess,
    Hyperparameters,
    _Posterior,
    correlation,
    drawn,
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


SHARED = en.SearchSpace({
    **{f"edge{n}": en.Categorical(["none", "skip", "conv"]) for n in range(5)},
    "x": en.Float(0.0, 1.0), "on": en.Boolean(),
})  # fmt: skip


def shared_points(n: int) -> tuple[Encoding, Any, Any]:
    """Of five edges each counts by whether there is an operation, and hardly by which."""
    rng = random.Random(4)
    points = [SHARED.sample_values(rng) for _ in range(n)]
    targets = [
        sum(value != "none" for value in point[:5]) + 0.1 * (point[0] == "conv") for point in points
    ]
    encoding = Encoding(SHARED)
    return encoding, encoding.rows(points), np.array(targets, dtype=float)


def test_the_slope_of_the_posterior_is_its_slope() -> None:
    encoding, rows, targets = shared_points(30)
    density = _Posterior(encoding, rows, targets)
    place = Hyperparameters.prior(encoding).vector()
    place += np.random.default_rng(0).normal(scale=0.3, size=len(place))
    _, slope = density(place)
    steps = 1e-5 * np.eye(len(place))
    found = [(density(place + step)[0] - density(place - step)[0]) / 2e-5 for step in steps]
    assert slope == pytest.approx(np.array(found), abs=1e-5)
    assert len(place) == 3 + 7 + 1


def test_a_choice_that_is_unlike_all_others_is_learnt_over_all_genes() -> None:
    encoding, rows, targets = shared_points(16)
    start = Hyperparameters.prior(encoding)
    hyper = fitted(encoding, rows, targets, start, n_steps=50)
    conv, none, skip = hyper.choices  # in the order of their names
    assert none > 3 * max(conv, skip)
    assert len(Hyperparameters.from_vector(hyper.vector(), 3).choices) == 3
    rng = random.Random(5)
    new = [SHARED.sample_values(rng) for _ in range(60)]
    wanted = np.array([sum(value != "none" for value in point[:5]) for point in new])
    mean, _ = GaussianProcess(encoding, rows, targets, hyper).predict(encoding.rows(new))
    alike = fitted(Alike(SHARED), rows, targets, Hyperparameters.prior(Alike(SHARED)), n_steps=50)
    other, _ = GaussianProcess(Alike(SHARED), rows, targets, alike).predict(encoding.rows(new))
    assert np.abs(mean - wanted).mean() < 0.6 * np.abs(other - wanted).mean()


class Alike(Encoding):
    """All choices are equally far from each other."""

    def __init__(self, space: en.SearchSpace) -> None:
        super().__init__(space)
        self.n_shared, self.choice_of = 0, np.full(len(self.choice_of), -1)


def test_the_models_doubt_grows_with_the_points() -> None:
    assert [_doubt(n) for n in (0, 20, 35, 50, 500)] == [1.0, 1.0, 1.5, 2.0, 2.0]


def test_draws_have_the_mean_and_spread_of_the_posterior() -> None:
    """Held against the sums over a grid of the two logarithms of a space of one gene."""
    encoding = Encoding(en.SearchSpace({"x": en.Float(0.0, 1.0)}))
    rows = np.linspace(0.0, 1.0, 8)[:, None]
    targets = np.sin(4.0 * rows[:, 0])
    centre = Hyperparameters.prior(encoding).vector()
    axis = np.linspace(-7.0, 7.0, 41)
    grid = centre + np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = _Posterior(encoding, rows, targets)
    weights = np.array([density(vector)[0] for vector in grid])
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    mean = weights @ grid
    spread = np.sqrt(weights @ (grid - mean) ** 2)

    rng = random.Random(0)
    draw, seen = Draw(Hyperparameters.prior(encoding)), []
    for _ in range(2_500):
        draw = drawn(encoding, rows, targets, Draw(draw.hyper), rng)
        seen.append(draw.hyper.vector())
    assert np.array(seen).mean(axis=0) == pytest.approx(mean, abs=0.15)
    assert np.array(seen).std(axis=0) == pytest.approx(spread, rel=0.1)


def test_a_draw_that_is_refused_or_lost_leaves_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, rows, targets = points(40)
    near = fitted(encoding, rows, targets, Hyperparameters.prior(encoding), n_steps=30)
    start = Draw(near, 0.5)
    monkeypatch.setattr(model_module, "_LEAP", 2.4)  # too long: it overshoots
    found = [drawn(encoding, rows, targets, start, random.Random(seed)) for seed in range(10)]
    assert sum(draw.hyper is near for draw in found) >= 5
    monkeypatch.setattr(model_module, "_LEAP", 1e4)
    lost = drawn(encoding, rows, targets, start, random.Random(0))
    assert lost.hyper is near
    assert lost.scale == pytest.approx(0.5 / 1.05**4)


def test_leaps_grow_shorter_until_four_of_five_draws_are_accepted() -> None:
    """200 points without noise make the posterior so narrow that most would be refused."""
    encoding, rows, targets = points(200)
    near = fitted(encoding, rows, targets, Hyperparameters.prior(encoding), n_steps=30)
    draws, rng = [Draw(near)], random.Random(1)
    for _ in range(60):
        draws.append(drawn(encoding, rows, targets, draws[-1], rng))
    refused = [b.hyper is a.hyper for a, b in itertools.pairwise(draws)]
    assert 5 <= sum(refused) <= 20
    assert max(draw.scale for draw in draws) == 1.0
    assert draws[-1].scale < 0.9


def test_few_points_are_fitted_and_more_have_a_chain_of_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits, draws = [], []

    def spy_fitted(*arguments: Any, n_steps: int) -> Hyperparameters:
        fits.append(len(arguments[1]))
        return fitted(*arguments, n_steps=n_steps)

    def spy_drawn(*arguments: Any) -> Draw:
        draws.append((arguments[3], drawn(*arguments)))
        return draws[-1][1]

    monkeypatch.setattr(module, "fitted", spy_fitted)
    monkeypatch.setattr(module, "drawn", spy_drawn)
    told(48)
    assert fits == list(range(10, 40))
    assert len(draws) == 8  # the proposals after 40 to 47 points
    assert all(later[0] is earlier[1] for earlier, later in itertools.pairwise(draws))
    assert len({tuple(draw.hyper.relevance) for _, draw in draws}) >= 5


def test_what_is_on_record_already_is_fitted_before_the_first_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    real = {"fitted": fitted, "drawn": drawn}

    def spy(name: str) -> Any:
        def call(*arguments: Any, **others: Any) -> Any:
            calls.append(name)
            return real[name](*arguments, **others)

        return call

    for name in real:
        monkeypatch.setattr(module, name, spy(name))
    search = told(60)
    strategy = search.strategy
    calls.clear()
    strategy.bind(strategy._context)  # type: ignore[attr-defined]
    for _ in range(2):
        (proposal,) = search.ask(1)
        search.tell(proposal, 0.0)
    assert calls == ["fitted"]  # the second is due after 63 points
    (proposal,) = search.ask(1)
    search.tell(proposal, 0.0)
    search.ask(1)
    assert calls == ["fitted", "drawn"]


def test_the_last_draw_and_the_scale_of_its_leaps_are_in_the_state() -> None:
    strategy, other = told(12).strategy, told(12).strategy
    assert isinstance(strategy, en.SurrogateEvolution)
    assert isinstance(other, en.SurrogateEvolution)
    strategy._draw = Draw(Hyperparameters(np.array([0.5, 1.5, 2.5]), 0.125), 0.375)
    state = json.loads(json.dumps(strategy.state_dict()))
    other.load_state_dict(state, [])
    assert other._draw.hyper.relevance.tolist() == [0.5, 1.5, 2.5]
    assert (other._draw.hyper.noise, other._draw.scale) == (0.125, 0.375)
    del state["own"]["scale"]  # as in runs from before there were draws
    other.load_state_dict(state, [])
    assert other._draw.scale == 1.0


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

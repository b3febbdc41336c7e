"""How minutes are divided between a search and the training of what it found."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evonas.nas.time_plan import plan_time


@pytest.mark.parametrize(
    ("seconds", "rate", "search", "n_epochs"),
    [
        (3600.0, 4000.0, 3600 / 2, 12),  # the final training has half of the time at least
        (3600.0, 2000.0, 3600 - 100 * 50_000 / 2000, 8),  # a hundred epochs
        (7200.0, 320.0, 0.0, 5),  # not enough for sixteen trainings and four longer ones
    ],
)
def test_the_division_follows_from_the_speed(
    seconds: float, rate: float, search: float, n_epochs: int
) -> None:
    plan = plan_time(seconds, images_per_second=rate, n_images=50_000)
    assert plan.search_seconds == pytest.approx(search)
    assert plan.n_epochs == n_epochs
    assert plan.n_train >= 4_000
    if search:
        first = plan.first_round_seconds * rate / (plan.n_epochs * plan.n_train)
        longer = plan.longer(50_000)
        second = 4 * longer["n_epochs"] * longer["n_train"] / rate
        assert first == pytest.approx(16, rel=0.2)
        assert second == pytest.approx(plan.search_seconds / 2, rel=0.2)


def test_a_long_search_of_a_small_problem_leaves_the_training_two_hundred_epochs() -> None:
    plan = plan_time(600.0, images_per_second=20_000.0, n_images=1_000)
    assert plan.epoch_seconds == 0.05
    assert plan.search_seconds == pytest.approx(590.0)
    assert (plan.n_epochs, plan.n_train, plan.n_val) == (12, 800, 200)
    assert plan.final_seconds(spent=400.0) == pytest.approx(10.0)
    assert plan.final_seconds(spent=595.0) == pytest.approx(5.0)
    assert plan.final_seconds(spent=700.0) == 1.0


@given(st.floats(60, 1e5), st.floats(10, 1e5), st.integers(100, 10**6))
def test_every_plan_keeps_its_promises(seconds: float, rate: float, n_images: int) -> None:
    try:
        plan = plan_time(seconds, images_per_second=rate, n_images=n_images)
    except ValueError as error:
        needed = float(re.findall(r"at least (\S+)$", str(error))[0])
        assert needed * 60 > seconds
        plan_time(needed * 60, images_per_second=rate, n_images=n_images)
        return
    assert 0 <= plan.search_seconds < seconds
    final = seconds - plan.search_seconds
    assert final >= min(0.5 * seconds, 200 * plan.epoch_seconds) * (1 - 1e-9)
    assert final >= 2 * plan.epoch_seconds * (1 - 1e-9)
    assert plan.n_train + plan.n_val <= n_images
    assert 5 <= plan.n_epochs <= 12
    assert plan.max_growth >= 1
    assert plan.final_epochs == pytest.approx(final / plan.epoch_seconds)
    longer = plan.longer(n_images)
    assert longer["n_train"] + longer["n_val"] <= n_images
    assert longer["n_epochs"] >= 1


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"images_per_second": 0.0}, {"n_images": 0}])
def test_numbers_must_be_above_zero(wrong: dict[str, float]) -> None:
    given = {"seconds": 100.0, "images_per_second": 10.0, "n_images": 10, **wrong}
    with pytest.raises(ValueError, match="must be"):
        plan_time(given.pop("seconds"), **given)  # type: ignore[arg-type]

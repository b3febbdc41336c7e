"""How large trainings may be that end in a given time."""

from __future__ import annotations

import re
from typing import Any

import pytest

from evonas.freezing.time_plan import FineTuningPlan, plan_fine_tuning

COSTS = {48: 0.006, 64: 0.011, 96: 0.02, 224: 0.1}


def plan(minutes: float = 10, **options: Any) -> FineTuningPlan:
    usual: dict[str, Any] = {
        "n_train": 50_000, "n_test": 10_000, "n_val": None, "n_rivals": 10, "n_rates": 3,
        "n_workers": 2,
    }  # fmt: skip
    costs = options.pop("costs", COSTS)
    return plan_fine_tuning(60 * minutes, costs, **{**usual, **options})


def n_passes(found: FineTuningPlan) -> float:
    return found.n_epochs * (found.n_train + found.n_val / 3)


def test_more_time_is_larger_images_then_more_examples() -> None:
    found = [plan(minutes) for minutes in (10, 20, 60, 600)]
    assert [each.size for each in found] == sorted(each.size for each in found)
    assert found[0].size < found[-1].size == 224
    assert all(n_passes(each) > 1_000 for each in found)
    assert plan(60, costs={64: 0.011}).n_train > 2 * plan(10, costs={64: 0.011}).n_train


def test_the_search_takes_the_time_that_was_planned() -> None:
    """As many full fine-tunings as rivals at each rate, and half as many again, fit into it."""
    for minutes in (10, 45):
        found = plan(minutes)
        one = n_passes(found) * COSTS[found.size]
        together = 1.5 * 10 * 3 * 0.6 * one / (2 * 0.75)
        assert together == pytest.approx(found.search_seconds, rel=0.05)
        assert found.search_seconds == pytest.approx(0.55 * 60 * minutes)
        assert found.training_seconds == pytest.approx(one / 0.75, rel=0.05)


def test_few_examples_are_passed_more_often_and_ten_times_at_most() -> None:
    found = plan(30, n_train=200, n_val=150, costs={64: 0.011})
    assert (found.n_train, found.n_val, found.n_epochs) == (200, 150, 10)
    halved = plan(30, n_train=400, costs={64: 0.011})
    assert halved.n_train + halved.n_val == 400
    assert plan(n_test=30).n_test == 30
    assert plan(n_test=0).n_test == 0


def test_each_rival_has_room_at_each_rate_in_the_first_population() -> None:
    assert plan().n_initial * 3 // 4 >= 10 * 3


def test_a_time_that_is_too_short_says_which_is_long_enough() -> None:
    with pytest.raises(ValueError, match="0.5 minutes are too short") as refused:
        plan(0.5)
    needed = re.search(r"need about (\d+) minutes", str(refused.value))
    assert needed is not None
    found = plan(int(needed[1]))
    assert found.n_train >= 200
    assert found.size == 48


@pytest.mark.parametrize(("mean", "wanted"), [(0.5, 5), (10.0, 3), (100.0, 2)])
def test_the_table_has_as_many_seeds_as_fit(mean: float, wanted: int) -> None:
    assert plan().n_seeds(13 * mean, 2) == wanted  # of 210 seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [({"minutes": 0}, "seconds"), ({"n_train": 0}, "n_train"), ({"n_workers": 0}, "n_workers")],
)
def test_wrong_numbers_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**options)

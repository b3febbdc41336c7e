"""Objectives, and what a fitness function may return."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from evonas.exceptions import FitnessError
from evonas.objectives import Objective, as_objectives, fitness_values

ONE = (Objective("accuracy"),)
TWO = (Objective("accuracy"), Objective("params", "min"))


class FakeTensor:
    """As much of a torch tensor as matters here."""

    def item(self) -> float:
        return 1.0

    def __repr__(self) -> str:
        return "tensor(1.)"


class TestObjective:
    def test_better_and_weight(self) -> None:
        assert Objective("a").weight == 1.0
        assert Objective("a").better(2.0, than=1.0)
        assert not Objective("a").better(1.0, than=1.0)
        assert Objective("a", "min").weight == -1.0
        assert Objective("a", "min").better(1.0, than=2.0)

    def test_refuses_wrong_arguments(self) -> None:
        with pytest.raises(ValueError, match="objective name must be a non-empty string, got ''"):
            Objective("")
        with pytest.raises(ValueError, match="objective name must be a non-empty string, got 3"):
            Objective(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'a': direction must be 'max' or 'min', got 'up'"):
            Objective("a", "up")  # type: ignore[arg-type]

    def test_as_objectives(self) -> None:
        assert as_objectives(None) == (Objective("fitness"),)
        assert as_objectives(ONE[0]) == ONE
        assert as_objectives(list(TWO)) == TWO
        with pytest.raises(ValueError, match="objectives is empty"):
            as_objectives([])
        with pytest.raises(ValueError, match="two objectives have the same name: a, a"):
            as_objectives([Objective("a"), Objective("a", "min")])
        with pytest.raises(TypeError, match=r"must be Objective\(name, direction\), got 'a' \(str"):
            as_objectives(["a"])  # type: ignore[list-item]


class TestFitnessValues:
    @pytest.mark.parametrize(
        "returned",
        [0.5, (0.5,), [0.5], np.float32(0.5), Fraction(1, 2), {"accuracy": 0.5}],
        ids=repr,
    )
    def test_one_objective(self, returned: Any) -> None:
        values, extra = fitness_values(returned, ONE)
        assert values == (0.5,)
        assert type(values[0]) is float
        assert extra == {}

    @pytest.mark.parametrize("returned", [3, np.int64(3), np.uint8(3)])
    def test_whole_numbers_become_floats(self, returned: Any) -> None:
        ((value,), _) = fitness_values(returned, ONE)
        assert (value, type(value)) == (3.0, float)

    @pytest.mark.parametrize("returned", [(0.5, 70), [0.5, 70], {"params": 70, "accuracy": 0.5}])
    def test_several_objectives_in_their_order(self, returned: Any) -> None:
        assert fitness_values(returned, TWO) == ((0.5, 70.0), {})

    def test_other_entries_of_a_dict_are_metrics(self) -> None:
        returned = {
            "accuracy": 0.5,
            "loss": np.float32(0.25),
            "n": np.int64(3),
            "ok": True,
            "note": "x",
            "curve": (1, np.float64(2.0)),
            "nested": {"a": [None]},
            3: math.nan,
        }
        values, extra = fitness_values(returned, ONE)
        assert values == (0.5,)
        assert math.isnan(extra.pop("3"))
        assert extra == {
            "loss": 0.25,
            "n": 3,
            "ok": True,
            "note": "x",
            "curve": [1, 2.0],
            "nested": {"a": [None]},
        }
        assert [type(extra[name]) for name in ("loss", "n", "ok")] == [float, int, bool]

    def test_nan_and_infinity_pass(self) -> None:
        assert fitness_values(math.inf, ONE)[0] == (math.inf,)
        assert math.isnan(fitness_values((math.nan,), ONE)[0][0])

    @pytest.mark.parametrize(
        ("returned", "objectives", "message"),
        [
            (None, ONE, r"returned None, expected a number \(accuracy\): is a `return` missing"),
            (None, TWO, r"returned None, expected 2 values \(accuracy, params\): is a `return`"),
            ("0.5", ONE, r"must return a number for 'accuracy', got '0\.5' \(str\)"),
            (True, ONE, r"must return a number for 'accuracy', got True \(bool\)"),
            (np.bool_(True), ONE, r"must return a number for 'accuracy', got .*bool"),
            (1j, ONE, r"must return a number for 'accuracy', got 1j \(complex\)"),
            (Decimal(1), ONE, r"must return a number for 'accuracy', got .*\(Decimal\)"),
            (
                FakeTensor(),
                ONE,
                r"got tensor\(1\.\) \(FakeTensor\): of a tensor or array .* \.item",
            ),
            (np.array(0.5), ONE, r"\(ndarray\): of a tensor or array return \.item\(\)"),
            ((0.5, FakeTensor()), TWO, r"number for 'params', got tensor.*return \.item\(\)"),
            ({"accuracy": FakeTensor()}, ONE, r"number for 'accuracy', .*return \.item\(\)"),
            ((), ONE, r"returned 0 values \(\(\)\), expected a number \(accuracy\)"),
            ((0.5, 1), ONE, r"returned 2 values \(\(0\.5, 1\)\), expected a number \(accuracy\)"),
            (0.5, TWO, r"returned 1 value \(0\.5\), expected 2 values \(accuracy, params\)"),
            ((0.5, None), TWO, r"must return a number for 'params', got None \(NoneType\)"),
            ([[0.5]], ONE, r"must return a number for 'accuracy', got \[0\.5\] \(list\)"),
            ({}, ONE, "a dict without 'accuracy': expected a number .accuracy., got the keys noth"),
            (
                {"acc": 0.5, "params": 3},
                TWO,
                r"a dict without 'accuracy': expected 2 values .* got the keys 'acc', 'params'",
            ),
            (10**400, ONE, "an int for 'accuracy' that no float can hold"),
            (
                {"accuracy": 1, "loss": FakeTensor()},
                ONE,
                r"the metric 'loss' must be JSON .*, got FakeTensor; for a tensor .*\.item\(\)",
            ),
            ({"accuracy": 1, "x": {"y": [int]}}, ONE, "the metric 'x' must be JSON .*, got type"),
        ],
    )
    def test_refuses(self, returned: Any, objectives: tuple[Objective, ...], message: str) -> None:
        with pytest.raises(FitnessError, match=message):
            fitness_values(returned, objectives)

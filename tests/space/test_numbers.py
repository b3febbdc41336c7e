"""Genes that are numbers: `Integer` and `Float`."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from evonas.space.genes import Categorical, Float, Integer


class TestInteger:
    def test_grid(self) -> None:
        gene = Integer(1, 10, step=4)
        assert list(gene.all_values()) == [1, 5, 9]
        assert gene.cardinality == 3
        assert list(gene.neighbours(1)) == [5]
        assert list(gene.neighbours(5)) == [1, 9]
        assert list(gene.neighbours(9)) == [5]
        assert gene.decode([1.0]) == 9

    def test_sampling_is_uniform(self) -> None:
        rng = random.Random(1)
        gene = Integer(10, 30, step=10)
        seen = Counter(gene.sample(rng) for _ in range(6000))
        assert set(seen) == {10, 20, 30}
        assert all(1850 < count < 2150 for count in seen.values())

    def test_log_sampling_favours_small_values(self) -> None:
        rng = random.Random(1)
        gene = Integer(1, 7, log=True)
        seen = Counter(gene.sample(rng) for _ in range(30000))
        assert set(seen) == set(range(1, 8))
        for value, count in seen.items():
            expected = 30000 * math.log((value + 1) / value) / math.log(8)
            assert abs(count - expected) < 5 * math.sqrt(expected)

    def test_a_small_sigma_moves_one_step_either_way(self) -> None:
        rng = random.Random(11)
        gene = Integer(0, 100)
        seen = Counter(gene.mutate(50, rng, 1e-6) for _ in range(6000))
        assert set(seen) == {49, 51}
        assert min(seen.values()) > 2800
        assert {gene.mutate(0, rng, 1e-6) for _ in range(50)} == {1}
        assert {gene.mutate(100, rng, 1e-6) for _ in range(50)} == {99}

    def test_sigma_is_a_fraction_of_the_range(self) -> None:
        rng = random.Random(2)
        gene = Integer(0, 1000)
        moves = [gene.mutate(500, rng, 0.05) - 500 for _ in range(4000)]
        assert 48 < np.std(moves) < 52

    def test_log_mutation_moves_by_factors(self) -> None:
        rng = random.Random(2)
        gene = Integer(1, 100_000, log=True)
        moves = [math.log(gene.mutate(1000, rng, 0.05) / 1000) for _ in range(4000)]
        assert 0.95 < np.std(moves) / (0.05 * math.log(100_000)) < 1.05

    @pytest.mark.parametrize("value", [3.0, np.int64(3), np.float32(3.0), 3])
    def test_validate_returns_an_int(self, value: Any) -> None:
        valid = Integer(1, 5).validate("g", value)
        assert (valid, type(valid)) == (3, int)

    @pytest.mark.parametrize("value", [0, 6, 10**400, 2, 3.5, math.nan, math.inf, -math.inf])
    def test_validate_refuses_numbers_off_the_grid(self, value: Any) -> None:
        with pytest.raises(
            ValueError, match=r"'k' must be a whole number from Integer\(1, 5, step=2\), got"
        ):
            Integer(1, 5, step=2).validate("k", value)

    @pytest.mark.parametrize("value", [True, np.bool_(True), "3", None, [3], 3j])
    def test_validate_refuses_other_types(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"'k' must be a whole number from .*, got .*\("):
            Integer(1, 5).validate("k", value)

    def test_takes_numpy_bounds(self) -> None:
        assert Integer(np.int64(1), np.int32(5)).to_json() == Integer(1, 5).to_json()

    @pytest.mark.parametrize(
        ("arguments", "settings", "error", "message"),
        [
            ((5, 1), {}, ValueError, "low must not exceed high, got 5 > 1"),
            ((1, 5), {"step": 0}, ValueError, "step must be at least 1, got 0"),
            ((0, 5), {"log": True}, ValueError, "log=True needs low >= 1, got low=0"),
            ((0, 2**60), {}, ValueError, r"within ±2\*\*53"),
            ((0.5, 5), {}, TypeError, "low must be a whole number, got 0.5"),
            ((1, True), {}, TypeError, "high must be a whole number, got True"),
            ((1, 5), {"step": "1"}, TypeError, "step must be a whole number, got '1'"),
            ((1, 5), {"log": 1}, TypeError, "log must be True or False, got 1"),
        ],
    )
    def test_refuses_wrong_arguments(
        self, arguments: Any, settings: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Integer(*arguments, **settings)

    def test_repr_rebuilds_it(self) -> None:
        for gene in (Integer(1, 5), Integer(1, 9, step=2, log=True)):
            assert eval(repr(gene)) == gene

    def test_step_and_log_are_part_of_it(self) -> None:
        assert len({Integer(1, 9), Integer(1, 9, step=2), Integer(1, 9, log=True)}) == 3


class TestFloat:
    def test_sampling_is_uniform(self) -> None:
        rng = random.Random(1)
        values = [Float(-1.0, 3.0).sample(rng) for _ in range(4000)]
        assert abs(np.mean(values) - 1.0) < 0.08
        assert min(values) < -0.95
        assert max(values) > 2.95

    def test_log_sampling_is_uniform_in_the_logarithm(self) -> None:
        rng = random.Random(1)
        values = [math.log10(Float(1e-6, 1e-2, log=True).sample(rng)) for _ in range(4000)]
        assert abs(np.mean(values) + 4.0) < 0.08

    def test_mutation_is_a_gaussian_on_the_scale(self) -> None:
        rng = random.Random(2)
        moves = [Float(0.0, 10.0).mutate(5.0, rng, 0.05) - 5.0 for _ in range(4000)]
        assert 0.475 < np.std(moves) < 0.525
        gene = Float(1e-4, 1.0, log=True)
        factors = [math.log10(gene.mutate(1e-2, rng, 0.05) / 1e-2) for _ in range(4000)]
        assert 0.19 < np.std(factors) < 0.21

    def test_mutation_is_reflected_at_the_bounds(self) -> None:
        rng = random.Random(2)
        for bound in (0.0, 1.0):
            values = [Float(0.0, 1.0).mutate(bound, rng, 0.1) for _ in range(4000)]
            moved = abs(np.mean(values) - bound)
            assert 0.075 < moved < 0.085  # a half normal: 0.0798; clipping gives half
            assert bound not in values

    def test_neighbours_end_at_the_bounds(self) -> None:
        gene = Float(0.0, 10.0)
        assert list(gene.neighbours(5.0)) == [4.5, 5.5]
        assert list(gene.neighbours(0.0)) == [0.5]
        assert list(gene.neighbours(9.9)) == pytest.approx([9.4, 10.0])
        low, high = Float(1e-4, 1.0, log=True).neighbours(1e-2)
        assert (low, high) == pytest.approx((10**-2.2, 10**-1.8))

    def test_bounds_are_hit_exactly(self) -> None:
        gene = Float(1e-5, 0.1, log=True)
        assert gene.decode([0.0]) == 1e-5
        assert gene.decode([1.0]) == 0.1
        assert gene.decode([7.0]) == 0.1

    @pytest.mark.parametrize("value", [1, 1.0, np.float32(1.0), np.int8(1)])
    def test_validate_returns_a_float(self, value: Any) -> None:
        valid = Float(0, 1).validate("g", value)
        assert (valid, type(valid)) == (1.0, float)

    def test_negative_zero_is_zero(self) -> None:
        assert str(Float(-1.0, 1.0).validate("g", -0.0)) == "0.0"
        assert str(Float(-0.0, 1.0).low) == "0.0"

    @pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, 10**400])
    def test_validate_refuses_numbers_out_of_bounds(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"'lr' must be a number from Float\(0.0, 1.0\), got"):
            Float(0, 1).validate("lr", value)

    @pytest.mark.parametrize("value", [True, "0.5", None, [0.5]])
    def test_validate_refuses_other_types(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"'lr' must be a number from Float\(0.0, 1.0\), got"):
            Float(0, 1).validate("lr", value)

    @pytest.mark.parametrize(
        ("arguments", "settings", "error", "message"),
        [
            ((2.0, 1.0), {}, ValueError, "low must not exceed high, got 2.0 > 1.0"),
            ((0.0, 1.0), {"log": True}, ValueError, "log=True needs low > 0, got low=0.0"),
            ((-1, 1), {"log": True}, ValueError, "log=True needs low > 0, got low=-1.0"),
            ((0.0, math.inf), {}, ValueError, "high must be finite, got inf"),
            ((math.nan, 1.0), {}, ValueError, "low must be finite, got nan"),
            ((-1.7e308, 1.7e308), {}, ValueError, "high - low must be finite"),
            (("0", 1.0), {}, TypeError, "low must be a number, got '0'"),
            ((False, 1.0), {}, TypeError, "low must be a number, got False"),
            ((0.1, 1.0), {"log": None}, TypeError, "log must be True or False, got None"),
        ],
    )
    def test_refuses_wrong_arguments(
        self, arguments: Any, settings: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Float(*arguments, **settings)

    def test_bounds_a_few_floats_apart_still_mutate(self) -> None:
        gene = Float(1.0, math.nextafter(1.0, 2.0))
        rng = random.Random(0)
        assert {gene.mutate(gene.low, rng) for _ in range(20)} == {gene.high}
        assert {gene.mutate(gene.high, rng) for _ in range(20)} == {gene.low}

    def test_repr_rebuilds_it(self) -> None:
        for gene in (Float(0, 1), Float(1e-4, 1e-1, log=True)):
            assert eval(repr(gene)) == gene


class TestBlend:
    def test_children_mirror_each_other(self) -> None:
        gene = Float(0.0, 100.0)
        rng = random.Random(4)
        pairs = [gene.blend(40.0, 60.0, rng, 0.5) for _ in range(500)]
        assert all(sum(pair) == pytest.approx(100.0) for pair in pairs)
        flat = [value for pair in pairs for value in pair]
        assert 30.0 <= min(flat) < 31.0
        assert 69.0 < max(flat) <= 70.0

    def test_log_numbers_blend_on_the_log_scale(self) -> None:
        rng = random.Random(4)
        x, y = Float(1e-6, 1.0, log=True).blend(1e-4, 1e-2, rng, 0.5)
        assert x * y == pytest.approx(1e-6)

    def test_integers_land_on_the_grid(self) -> None:
        rng = random.Random(4)
        gene = Integer(0, 100, step=10)
        found = {value for _ in range(500) for value in gene.blend(40, 60, rng, 0.5)}
        assert found == {30, 40, 50, 60, 70}

    def test_others_are_swapped_half_of_the_time(self) -> None:
        rng = random.Random(4)
        seen = Counter(Categorical(["a", "b", "c"]).blend("a", "b", rng) for _ in range(2000))
        assert set(seen) == {("a", "b"), ("b", "a")}
        assert min(seen.values()) > 900

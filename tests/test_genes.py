"""The typed genes, each by itself."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evonas.genes import Boolean, Categorical, Float, Gene, Integer, gene_from_json

JSON_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def json_key(value: Any) -> str:
    return repr(value) if not isinstance(value, dict) else repr(sorted(value.items()))


@st.composite
def categoricals(draw: st.DrawFn, values: st.SearchStrategy[Any] = JSON_VALUES) -> Categorical:
    return Categorical(draw(st.lists(values, min_size=1, max_size=6, unique_by=json_key)))


@st.composite
def integers(draw: st.DrawFn) -> Integer:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -1000, 1000))
    width = draw(st.integers(0, 2000) | st.integers(0, 2**40))
    return Integer(low, low + width, step=draw(st.integers(1, 50)), log=log)


@st.composite
def floats(draw: st.DrawFn) -> Float:
    log = draw(st.booleans())
    bounds = st.floats(1e-12 if log else -1e12, 1e12, allow_nan=False)
    low, high = sorted((draw(bounds), draw(bounds)))
    return Float(low, high, log=log)


GENES = st.one_of(categoricals(), integers(), floats(), st.just(Boolean()))
NUMBERS = st.one_of(integers(), floats())
RNGS = st.integers(0, 2**32 - 1).map(random.Random)
SIGMAS = st.just(0.0) | st.floats(1e-9, 10.0)

EXAMPLES = [
    Categorical([1, 1.0, True, "1", None, [1], {"a": [1]}]),
    Categorical(["only"]),
    Categorical({"half": 0.5, "round": round}),
    Integer(1, 5),
    Integer(0, 10, step=4),
    Integer(8, 512, log=True),
    Integer(16, 256, step=16, log=True),
    Integer(3, 3),
    Float(0.0, 1.0),
    Float(1e-5, 1e-1, log=True),
    Float(0.5, 0.5),
    Boolean(),
]


class TestEveryGene:
    @given(GENES, RNGS)
    def test_samples_are_canonical(self, gene: Gene, rng: random.Random) -> None:
        value = gene.sample(rng)
        valid = gene.validate("g", value)
        assert valid == value
        assert type(valid) is type(value)

    @given(GENES, RNGS, SIGMAS)
    def test_mutation_gives_another_value_wherever_there_is_one(
        self, gene: Gene, rng: random.Random, sigma: float
    ) -> None:
        value = gene.sample(rng)
        mutated = gene.mutate(value, rng, sigma)
        gene.validate("g", mutated)
        same = json_key(mutated) == json_key(value)
        assert same == (gene.cardinality == 1)

    @given(GENES, RNGS)
    def test_round_trips_through_features(self, gene: Gene, rng: random.Random) -> None:
        value = gene.sample(rng)
        features = gene.encode(value)
        assert len(features) == gene.n_features
        assert all(0.0 <= feature <= 1.0 for feature in features)
        decoded = gene.decode(features)
        if isinstance(gene, Float):
            scale = abs(value) if gene.log else gene.high - gene.low
            assert decoded == pytest.approx(value, abs=1e-9 * scale)
        else:
            assert json_key(decoded) == json_key(value)

    @given(GENES, st.lists(st.floats(-10, 10), min_size=7, max_size=7))
    def test_decodes_any_numbers_to_a_value(self, gene: Gene, features: list[float]) -> None:
        decoded = gene.decode((features * 2)[: gene.n_features])
        assert json_key(gene.validate("g", decoded)) == json_key(decoded)

    @given(GENES, RNGS)
    def test_neighbours_are_other_values(self, gene: Gene, rng: random.Random) -> None:
        value = gene.sample(rng)
        near = list(gene.neighbours(value))
        assert json_key(value) not in map(json_key, near)
        assert len(set(map(json_key, near))) == len(near)
        assert bool(near) == (gene.cardinality > 1)
        for other in near:
            gene.validate("g", other)

    @given(GENES, RNGS, st.floats(0.0, 2.0))
    def test_blends_stay_in_the_gene(self, gene: Gene, rng: random.Random, alpha: float) -> None:
        a, b = gene.sample(rng), gene.sample(rng)
        for child in gene.blend(a, b, rng, alpha):
            assert json_key(gene.validate("g", child)) == json_key(child)

    @given(GENES)
    def test_round_trips_through_json(self, gene: Gene) -> None:
        again = gene_from_json(gene.to_json())
        assert again == gene
        assert hash(again) == hash(gene)
        assert again.to_json() == gene.to_json()

    @pytest.mark.parametrize("gene", EXAMPLES, ids=repr)
    def test_pickles(self, gene: Gene) -> None:
        again = pickle.loads(pickle.dumps(gene))
        assert again == gene
        assert again.sample(random.Random(3)) == gene.sample(random.Random(3))

    @pytest.mark.parametrize("gene", EXAMPLES, ids=repr)
    def test_takes_the_random_module_as_rng(self, gene: Gene) -> None:
        random.seed(5)
        from_module = [gene.sample(random) for _ in range(5)]  # type: ignore[arg-type]
        rng = random.Random(5)
        assert from_module == [gene.sample(rng) for _ in range(5)]

    @pytest.mark.parametrize("gene", EXAMPLES, ids=repr)
    def test_first_and_all_values(self, gene: Gene) -> None:
        if math.isinf(gene.cardinality):
            with pytest.raises(ValueError, match="infinitely many values: they cannot be"):
                gene.all_values()
            assert gene.first == gene.low
            return
        values = list(gene.all_values())
        assert len(values) == gene.cardinality
        assert len(set(map(json_key, values))) == len(values)
        assert json_key(values[0]) == json_key(gene.first)

    @pytest.mark.parametrize("gene", EXAMPLES, ids=repr)
    def test_is_immutable(self, gene: Gene) -> None:
        with pytest.raises(AttributeError):
            gene.low = 3  # type: ignore[attr-defined]


def frequencies(gene: Gene, value: Any, n: int = 6000, **settings: float) -> Counter[str]:
    rng = random.Random(11)
    return Counter(json_key(gene.mutate(value, rng, **settings)) for _ in range(n))


class TestCategorical:
    def test_mutation_is_uniform_over_the_others(self) -> None:
        seen = frequencies(Categorical([10, 20, 30, 40]), 20)
        assert set(seen) == {"10", "30", "40"}
        assert all(1850 < count < 2150 for count in seen.values())  # 2000 ± 4 sigma

    def test_sampling_is_uniform(self) -> None:
        rng = random.Random(1)
        seen = Counter(Categorical("a b c".split()).sample(rng) for _ in range(6000))
        assert set(seen) == {"a", "b", "c"}
        assert all(1850 < count < 2150 for count in seen.values())

    def test_json_texts_tell_choices_apart(self) -> None:
        gene = Categorical([1, 1.0, True, "1"])
        assert gene.cardinality == 4
        for value in (1, 1.0, True, "1"):
            valid = gene.validate("g", value)
            assert (valid, type(valid)) == (value, type(value))
        assert Categorical([1, 2]) != Categorical([1.0, 2.0])
        assert Categorical([0, 1]) != Categorical([False, True])
        assert Categorical([1, 2]) != Integer(1, 2)

    @pytest.mark.parametrize(
        ("choices", "value", "expected"),
        [
            ([32, 64], 64.0, 64),
            ([0.0, 0.5], 0, 0.0),
            ([32, 64], np.int64(32), 32),
            ([0.1, 0.5], np.float64(0.5), 0.5),
            ([[1, 2], [3, 4]], (3, 4), [3, 4]),
            ([True, False], np.bool_(True), True),
        ],
    )
    def test_validate_returns_the_choice_itself(
        self, choices: list[Any], value: Any, expected: Any
    ) -> None:
        valid = Categorical(choices).validate("g", value)
        assert valid == expected
        assert type(valid) is type(expected)

    @pytest.mark.parametrize(
        ("choices", "value"),
        [
            ([1, 2], True),
            ([True, False], 1),
            ([1, 2], "1"),
            ([1, 2], None),
            ([1, 2], math.nan),
            ([1, 2], [1]),
            ([1, 2], object),
        ],
    )
    def test_validate_refuses_other_values(self, choices: list[Any], value: Any) -> None:
        with pytest.raises(ValueError, match=r"gene 'width' must be one of \[.*\], got"):
            Categorical(choices).validate("width", value)

    def test_tuples_and_numpy_scalars_become_plain(self) -> None:
        gene = Categorical([(1, 2), np.float32(0.5), np.int32(3), {"k": (1,)}])
        assert gene.choices == ([1, 2], 0.5, 3, {"k": [1]})
        assert [type(choice) for choice in gene.choices] == [list, float, int, dict]

    def test_lists_are_handed_out_as_copies(self) -> None:
        gene = Categorical([[1, 2], [3]])
        gene.validate("g", [1, 2]).append(9)
        gene.to_json()["choices"][0].append(9)
        gene.object([1, 2]).append(9)  # type: ignore[arg-type]
        assert gene.choices == ([1, 2], [3])

    def test_choices_given_are_copied(self) -> None:
        inner = [1]
        gene = Categorical([inner, [2]])
        inner.append(5)
        assert gene.choices == ([1], [2])

    def test_named_choices_have_names_as_values(self) -> None:
        gene = Categorical({"int": int, "both": (int, str)})
        assert gene.choices == ("int", "both")
        assert gene.is_named
        assert gene.object("both") == (int, str)
        assert gene.to_json() == {"type": "categorical", "choices": ["int", "both"]}
        with pytest.raises(ValueError, match=r"gene 'act' must be the name of .*'int', 'both'"):
            gene.validate("act", int)
        with pytest.raises(ValueError, match="'float' is not among Categorical"):
            gene.object("float")

    def test_names_read_from_json_equal_the_named(self) -> None:
        gene = Categorical({"int": int})
        again = gene_from_json(gene.to_json())
        assert again == gene
        assert isinstance(again, Categorical)
        assert again.object("int") == "int"

    def test_one_hot_features(self) -> None:
        gene = Categorical(["a", "b", "c"])
        assert gene.encode("b") == [0.0, 1.0, 0.0]
        assert gene.decode([0.2, 0.1, 0.7]) == "c"
        assert gene.decode([0.5, 0.5, 0.5]) == "a"

    @pytest.mark.parametrize("choices", [[], (), {}])
    def test_refuses_no_choices(self, choices: Any) -> None:
        with pytest.raises(ValueError, match="at least one choice, got none"):
            Categorical(choices)

    @pytest.mark.parametrize("choices", [[1, 2, 1], [[1], (1,)], [np.int64(1), 1], [0.5, 0.5]])
    def test_refuses_duplicates(self, choices: Any) -> None:
        with pytest.raises(ValueError, match="is given twice"):
            Categorical(choices)

    @pytest.mark.parametrize("value", [math.nan, math.inf, [1, -math.inf], np.float64("nan")])
    def test_refuses_numbers_that_are_not_json(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"not a JSON value; .*named: Categorical\(\{'relu'"):
            Categorical([1, value])

    @pytest.mark.parametrize("value", [int, object(), {1, 2}, b"x", [int], {1: 2}, 1j])
    def test_refuses_objects_without_names(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"not a JSON .*named: Categorical\(\{'relu': nn.ReLU"):
            Categorical([1, value])

    @pytest.mark.parametrize("choices", ["abc", b"abc", 3, {1, 2}, range(3), None])
    def test_refuses_what_is_no_list(self, choices: Any) -> None:
        with pytest.raises(TypeError, match="takes a list or tuple of JSON values, or a dict"):
            Categorical(choices)

    def test_refuses_names_that_are_no_strings(self) -> None:
        with pytest.raises(TypeError, match="names of named choices must be strings, got 3"):
            Categorical({3: int})  # type: ignore[dict-item]

    def test_shows_a_bounded_number_of_choices(self) -> None:
        gene = Categorical(list(range(1000)))
        assert repr(gene).endswith("11, … 1000 in all])")
        with pytest.raises(ValueError, match="… 1000 in all], got 5000"):
            gene.validate("g", 5000)


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
        seen = frequencies(Integer(0, 100), 50, sigma=1e-6)
        assert set(seen) == {"49", "51"}
        assert min(seen.values()) > 2800
        assert set(frequencies(Integer(0, 100), 0, n=50, sigma=1e-6)) == {"1"}
        assert set(frequencies(Integer(0, 100), 100, n=50, sigma=1e-6)) == {"99"}

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
        values = [Float(0.0, 1.0).mutate(0.0, rng, 0.1) for _ in range(4000)]
        assert 0.075 < np.mean(values) < 0.085  # a half normal: 0.0798; clipping gives half
        assert 0.0 not in values

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
        low = 1.0
        gene = Float(low, math.nextafter(low, 2.0))
        rng = random.Random(0)
        for value in (gene.low, gene.high):
            assert {gene.mutate(value, rng) for _ in range(20)} == {gene.low + gene.high - value}

    def test_repr_rebuilds_it(self) -> None:
        for gene in (Float(0, 1), Float(1e-4, 1e-1, log=True)):
            assert eval(repr(gene)) == gene


class TestBoolean:
    def test_values(self) -> None:
        gene = Boolean()
        assert gene.mutate(True, random.Random(0)) is False
        assert gene.encode(True) == [1.0]
        assert gene.decode([0.4]) is False
        assert gene.validate("g", np.bool_(True)) is True

    def test_sampling_is_even(self) -> None:
        rng = random.Random(1)
        assert 1850 < sum(Boolean().sample(rng) for _ in range(4000)) < 2150

    @pytest.mark.parametrize("value", [0, 1, 1.0, "True", None])
    def test_refuses_other_types(self, value: Any) -> None:
        with pytest.raises(TypeError, match="gene 'bn' must be True or False, got"):
            Boolean().validate("bn", value)


class TestBlend:
    @given(NUMBERS, RNGS)
    def test_numbers_without_extension_stay_between_the_parents(
        self, gene: Any, rng: random.Random
    ) -> None:
        a, b = gene.sample(rng), gene.sample(rng)
        assume(a != b)
        # The logarithm and back can round the parents themselves.
        slack = 1e-9 * max(abs(a), abs(b), 1e-12 if isinstance(gene, Integer) else gene.high)
        for child in gene.blend(a, b, rng, 0.0):
            assert min(a, b) - slack <= child <= max(a, b) + slack

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


class TestGeneFromJson:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"type": "complex"}, "'type' must be one of categorical, integer, float, boolean"),
            ({}, "'type' must be one of .* got None"),
            ([1, 2], "must be an object with 'type', got"),
            ({"type": "integer", "low": 1}, "not the JSON of a gene"),
            ({"type": "float", "low": 0, "high": 1, "width": 3}, "not the JSON of a gene .*width"),
            ({"type": "categorical", "choices": []}, "at least one choice"),
        ],
    )
    def test_refuses_what_is_no_gene(self, data: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            gene_from_json(data)

"""Genes without an order: `Categorical` and `Boolean`."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from evonas.space.genes import Boolean, Categorical, Integer, gene_from_json


class TestCategorical:
    def test_mutation_is_uniform_over_the_others(self) -> None:
        rng = random.Random(11)
        gene = Categorical([10, 20, 30, 40])
        seen = Counter(gene.mutate(20, rng) for _ in range(6000))
        assert set(seen) == {10, 30, 40}
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

    def test_numpy_scalars_become_plain(self) -> None:
        gene = Categorical([np.float32(0.5), np.int32(3), {"k": [np.int64(1)]}])
        assert gene.choices == (0.5, 3, {"k": [1]})
        assert [type(choice) for choice in gene.choices] == [float, int, dict]

    @pytest.mark.parametrize("choice", [(3, 3), [(3, 3)], {"k": (1,)}])
    def test_tuples_are_refused_since_they_would_come_back_as_lists(self, choice: Any) -> None:
        with pytest.raises(TypeError, match=r"would come back as .*name the choices"):
            Categorical([choice, 5])
        assert Categorical({"k": choice}).object("k") == choice

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

    @pytest.mark.parametrize("choices", [[1, 2, 1], [[1], [1]], [np.int64(1), 1], [0.5, 0.5]])
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
        with pytest.raises(TypeError, match="choices must be a list or tuple of JSON values, or"):
            Categorical(choices)

    def test_refuses_names_that_are_no_strings(self) -> None:
        with pytest.raises(TypeError, match="names of named choices must be strings, got 3"):
            Categorical({3: int})  # type: ignore[dict-item]

    def test_shows_a_bounded_number_of_choices(self) -> None:
        gene = Categorical(list(range(1000)))
        assert repr(gene).endswith("11, … 1000 in all])")
        with pytest.raises(ValueError, match="… 1000 in all], got 5000"):
            gene.validate("g", 5000)


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

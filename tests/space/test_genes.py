"""The typed genes, each by itself."""

from __future__ import annotations

import math
import pickle
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evonas.space.genes import Boolean, Categorical, Float, Gene, Integer, gene_from_json

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
    Float(-1.0, 1.0, step=0.25),
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

"""What holds in every search space, whatever its genes and conditions."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evonas.exceptions import UnsatisfiableSpaceError
from evonas.space import SearchSpace, canonical_json
from evonas.space.genes import Boolean, Categorical, Float, Gene, Integer

FINITE_GENES = st.one_of(
    st.integers(1, 4).map(lambda n: Categorical(list("abcd"[:n]))),
    st.just(Categorical([1, 1.0, True])),
    st.just(Categorical([[1, 2], [3]])),
    st.integers(0, 3).map(lambda n: Integer(0, n)),
    st.just(Integer(2, 9, step=3, log=True)),
    st.just(Boolean()),
)
INFINITE_GENES = st.sampled_from([Float(0.0, 1.0), Float(1e-4, 1e-1, log=True)])
RNGS = st.integers(0, 2**32 - 1).map(random.Random)


@st.composite
def spaces(
    draw: st.DrawFn, kinds: st.SearchStrategy[Gene] = FINITE_GENES, *, constrained: bool = False
) -> SearchSpace:
    """Up to six genes; each may depend on up to two others, in any order of declaration."""
    genes = {f"g{i}": draw(kinds) for i in range(draw(st.integers(1, 6)))}
    order = draw(st.permutations(list(genes)))
    conditions: dict[str, dict[str, list[Any]]] = {}
    for place, child in enumerate(order):
        parents = [name for name in order[:place] if not math.isinf(genes[name].cardinality)]
        chosen = (
            draw(st.lists(st.sampled_from(parents), max_size=2, unique=True)) if parents else []
        )
        if chosen:
            conditions[child] = {
                parent: draw(
                    st.lists(st.sampled_from(list(genes[parent].all_values())), min_size=1)
                )
                for parent in chosen
            }
    constraints = {"even": crc_is_even} if constrained else None
    return SearchSpace(genes, conditions=conditions, constraints=constraints)


ANY_SPACE = spaces(st.one_of(FINITE_GENES, INFINITE_GENES))


def crc_is_even(genes: dict[str, Any]) -> bool:
    return sum(canonical_json(genes).encode()) % 2 == 0


def brute_force(space: SearchSpace) -> set[str]:
    """The canonical points, by trying every combination of values."""
    grids = [list(gene.all_values()) for _, gene in space.items()]
    return {canonical_json(space.genes(values)) for values in itertools.product(*grids)}


def descends_from(space: SearchSpace, names: set[str], root: str) -> bool:
    reached = {root}
    for _ in space:
        reached |= {c for c, parents in space.conditions.items() if reached & parents.keys()}
    return names <= reached


class TestConstruction:
    @pytest.mark.parametrize(
        ("genes", "error", "message"),
        [
            ({}, ValueError, "needs at least one gene, got none"),
            ([1, 2], TypeError, r"takes a dict of name to gene, .* got \[1, 2\]"),
            (
                {"a": 3},
                TypeError,
                r"gene 'a' must be a Gene .* or a list of choices, got 3 \(int\)",
            ),
            ({"a": "xy"}, TypeError, "gene 'a' must be a Gene"),
            ({"a": Integer}, TypeError, "gene 'a' must be a Gene"),
            ({3: [1]}, TypeError, "name of a gene must be a non-empty string, got 3"),
            ({"": [1]}, TypeError, "name of a gene must be a non-empty string, got ''"),
            ({"a": []}, ValueError, "gene 'a': Categorical: choices must hold at least one choice"),
            ({"a": [1, 1]}, ValueError, "gene 'a': .* the choice 1 is given twice"),
            ({"a": [int]}, TypeError, "gene 'a': .*are named"),
        ],
    )
    def test_refuses_wrong_genes(self, genes: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            SearchSpace(genes)


class TestPoints:
    @settings(max_examples=50)
    @given(ANY_SPACE, RNGS)
    def test_samples_are_valid(self, space: SearchSpace, rng: random.Random) -> None:
        genes = space.sample(rng)
        valid = space.validate(genes)
        assert canonical_json(valid) == canonical_json(genes)
        assert list(valid) == list(genes)
        assert list(genes) == [name for name in space if name in genes]

    @settings(max_examples=50)
    @given(spaces(constrained=True), RNGS)
    def test_samples_satisfy_constraints(self, space: SearchSpace, rng: random.Random) -> None:
        try:
            genes = space.sample(rng)
        except UnsatisfiableSpaceError:
            assert list(space.enumerate()) == []
            return
        assert space.violated(genes) == []

    @settings(max_examples=50)
    @given(ANY_SPACE, RNGS)
    def test_values_and_genes_are_two_forms_of_one_point(
        self, space: SearchSpace, rng: random.Random
    ) -> None:
        values = space.sample_values(rng)
        genes = space.genes(values)
        for again in (space.values(genes, rng), space.values(genes)):
            assert space.validate_values(again) == again
            assert canonical_json(space.genes(again)) == canonical_json(genes)
            assert space.active(again) == space.active(values)

    @settings(max_examples=50)
    @given(ANY_SPACE, RNGS)
    def test_inactive_genes_given_are_dropped(self, space: SearchSpace, rng: random.Random) -> None:
        values = space.sample_values(rng)
        everything = dict(zip(space, values, strict=True))
        genes = space.genes(values)
        assert canonical_json(space.validate(everything)) == canonical_json(genes)
        assert space.key(everything) == space.key(genes)


class TestCounting:
    @given(spaces())
    def test_cardinality_and_enumeration_equal_brute_force(self, space: SearchSpace) -> None:
        expected = brute_force(space)
        listed = [canonical_json(genes) for genes in space.enumerate()]
        assert space.cardinality == len(expected)
        assert len(listed) == len(expected)
        assert set(listed) == expected

    @settings(max_examples=50)
    @given(spaces(constrained=True))
    def test_enumeration_leaves_out_what_is_not_allowed(self, space: SearchSpace) -> None:
        allowed = [genes for genes in space.enumerate(constrained=False) if crc_is_even(genes)]
        assert list(space.enumerate()) == allowed
        assert space.cardinality == len(brute_force(space))


class TestNeighbours:
    @settings(max_examples=50)
    @given(ANY_SPACE, RNGS)
    def test_differ_in_one_gene(self, space: SearchSpace, rng: random.Random) -> None:
        genes = space.sample(rng)
        near = list(space.neighbours(genes, rng))
        texts = [canonical_json(other) for other in near]
        assert len(set(texts)) == len(texts)
        assert canonical_json(genes) not in texts
        for other in near:
            assert canonical_json(space.validate(other)) == canonical_json(other)
            changed = [
                name
                for name in genes.keys() & other.keys()
                if canonical_json(genes[name]) != canonical_json(other[name])
            ]
            assert len(changed) == 1
            unlike = genes.keys() ^ other.keys()
            assert not unlike or descends_from(space, unlike, changed[0])


class TestKey:
    @settings(max_examples=50)
    @given(ANY_SPACE, RNGS, st.randoms(use_true_random=False))
    def test_ignores_the_order_of_the_dict(
        self, space: SearchSpace, rng: random.Random, shuffler: random.Random
    ) -> None:
        genes = space.sample(rng)
        items = list(genes.items())
        shuffler.shuffle(items)
        assert space.key(dict(items)) == space.key(genes)

    @given(ANY_SPACE, RNGS)
    def test_ignores_inactive_genes_and_nothing_else(
        self, space: SearchSpace, rng: random.Random
    ) -> None:
        values = space.sample_values(rng)
        key = space.key(space.genes(values))
        for index, (gene, active) in enumerate(
            zip(space.gene_types, space.active(values), strict=True)
        ):
            other = list(values)
            other[index] = gene.mutate(values[index], rng)
            same = space.key(space.genes(other)) == key
            assert same == (not active or gene.cardinality == 1)


class TestEncoding:
    @settings(max_examples=50)
    @given(ANY_SPACE, RNGS)
    def test_round_trip(self, space: SearchSpace, rng: random.Random) -> None:
        genes = space.sample(rng)
        vector = space.encode(genes)
        assert vector.shape == (space.n_features,)
        assert vector.dtype == np.float64
        decoded = space.decode(vector)
        assert decoded.keys() == genes.keys()
        for name, value in genes.items():
            if isinstance(value, float) and isinstance(space[name], Float):
                assert decoded[name] == pytest.approx(value)
            else:
                assert canonical_json(decoded[name]) == canonical_json(value)

    @settings(max_examples=50)
    @given(ANY_SPACE, st.data())
    def test_decodes_any_vector_to_a_point(self, space: SearchSpace, data: st.DataObject) -> None:
        n = space.n_features
        vector = data.draw(st.lists(st.floats(-2, 2), min_size=n, max_size=n))
        genes = space.decode(vector)
        assert canonical_json(space.validate(genes)) == canonical_json(genes)


class TestJson:
    @settings(max_examples=50)
    @given(spaces(st.one_of(FINITE_GENES, INFINITE_GENES), constrained=True))
    def test_round_trip(self, space: SearchSpace) -> None:
        data = json.loads(json.dumps(space.to_json()))
        again = SearchSpace.from_json(data, {"even": crc_is_even})
        assert again == space
        assert again.to_json() == space.to_json()
        assert again.fingerprint == space.fingerprint
        assert list(again) == list(space)


@settings(max_examples=25)
@given(spaces(), RNGS)
def test_sampling_reaches_every_point(space: SearchSpace, rng: random.Random) -> None:
    if space.cardinality > 12:
        return
    seen = {canonical_json(space.sample(rng)) for _ in range(1500)}
    assert len(seen) > 0.7 * space.cardinality

"""Counting the points of a space, stepping to neighbours, and points as vectors."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Float, Integer


def depth_space(**settings: Any) -> SearchSpace:
    """A network of one to three layers with a width each."""
    return SearchSpace(
        {
            "depth": Integer(1, 3),
            "width1": [16, 32],
            "width2": [16, 32],
            "width3": [16, 32],
            "norm": Boolean(),
            "lr": Float(1e-4, 1e-1, log=True),
        },
        conditions={"width2": {"depth": [2, 3]}, "width3": {"depth": [3]}},
        **settings,
    )


class TestCounting:
    def test_counts_without_enumerating(self) -> None:
        assert SearchSpace({f"g{i}": Integer(0, 9) for i in range(400)}).cardinality == 10**400

        chain = {f"g{i}": Boolean() for i in range(200)}
        conditions = {f"g{i}": {f"g{i - 1}": [True]} for i in range(1, 200)}
        assert SearchSpace(chain, conditions=conditions).cardinality == 201

        wide = SearchSpace(
            {"n": Integer(0, 10**9), **{f"c{i}": [1, 2] for i in range(60)}},
            conditions={f"c{i}": {"n": range(i, 60)} for i in range(60)},
        )
        expected = sum(2 ** (n + 1) for n in range(60)) + (10**9 + 1 - 60)
        assert wide.cardinality == expected

    def test_many_separate_parents_stay_cheap(self) -> None:
        genes: dict[str, Any] = {}
        conditions = {}
        for i in range(100):
            genes[f"use{i}"] = Boolean()
        for i in range(100):
            genes[f"size{i}"] = [1, 2, 3]
            conditions[f"size{i}"] = {f"use{i}": [True]}
        assert SearchSpace(genes, conditions=conditions).cardinality == 4**100

    def test_continuous_spaces_are_infinite(self) -> None:
        assert depth_space().cardinality == math.inf
        with pytest.raises(ValueError, match="infinitely many points: lr is continuous"):
            next(depth_space().enumerate())
        assert SearchSpace({"x": Float(1, 1), "y": [1, 2]}).cardinality == 2

    def test_a_gene_that_can_never_be_active_does_not_count(self) -> None:
        space = SearchSpace(
            {"a": [1, 2], "b": [1, 2], "f": Float(0, 1)},
            conditions={"b": {"a": [1]}, "f": {"a": [2], "b": [1]}},
        )
        assert space.cardinality == 3

    def test_published_space(self) -> None:
        sizes = [3, 3, 2, 3, 2, 3, 2, 2, 3, 3, 3, 3, 3]
        space = SearchSpace({f"g{i}": list(range(n)) for i, n in enumerate(sizes)})
        assert space.cardinality == 314_928


class TestNeighbours:
    def test_lists_every_change(self) -> None:
        space = SearchSpace({"a": ["x", "y", "z"], "n": Integer(0, 4, step=2), "b": Boolean()})
        assert list(space.neighbours({"a": "y", "n": 2, "b": True})) == [
            {"a": "x", "n": 2, "b": True},
            {"a": "z", "n": 2, "b": True},
            {"a": "y", "n": 0, "b": True},
            {"a": "y", "n": 4, "b": True},
            {"a": "y", "n": 2, "b": False},
        ]

    def test_activated_genes_come_with_first_values_or_drawn_ones(self) -> None:
        space = depth_space()
        genes = {"depth": 2, "width1": 32, "width2": 32, "norm": True, "lr": 0.01}
        found = list(space.neighbours(genes))
        assert {"depth": 1, "width1": 32, "norm": True, "lr": 0.01} in found
        assert {**genes, "depth": 3, "width3": 16} in found
        rng = random.Random(0)
        drawn = {
            other["width3"]
            for _ in range(30)
            for other in space.neighbours(genes, rng)
            if "width3" in other
        }
        assert drawn == {16, 32}

    def test_respect_constraints(self) -> None:
        space = SearchSpace(
            {"a": Integer(0, 5), "b": Integer(0, 5)},
            constraints={"ordered": lambda genes: genes["a"] <= genes["b"]},
        )
        assert list(space.neighbours({"a": 2, "b": 2})) == [{"a": 1, "b": 2}, {"a": 2, "b": 3}]

    def test_refuse_wrong_genes(self) -> None:
        with pytest.raises(ValueError, match="missing gene"):
            list(depth_space().neighbours({"depth": 1}))


class TestEncoding:
    def test_layout(self) -> None:
        space = SearchSpace(
            {"act": ["relu", "gelu"], "n": Integer(0, 4), "bn": Boolean(), "w": [1, 2, 3]},
            conditions={"w": {"bn": [True]}},
        )
        assert space.n_features == 7
        assert space.encode({"act": "gelu", "n": 1, "bn": False}).tolist() == [
            0.0, 1.0, 0.25, 0.0, -1.0, -1.0, -1.0,
        ]  # fmt: skip
        assert space.encode({"act": "relu", "n": 4, "bn": True, "w": 2}).tolist() == [
            1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("vector", "message"),
        [
            ([0.0], r"must have shape \(9,\), got \(1,\)"),
            (np.zeros((9, 1)), r"must have shape \(9,\), got \(9, 1\)"),
            ([math.nan] * 9, "must be numbers, got NaN"),
        ],
    )
    def test_refuses_wrong_vectors(self, vector: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            depth_space().decode(vector)

    def test_refuses_missing_genes(self) -> None:
        with pytest.raises(ValueError, match="missing gene 'width1'"):
            depth_space().encode({"depth": 1})

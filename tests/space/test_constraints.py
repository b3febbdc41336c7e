"""The constraints of a space: who is asked what, and what happens when nothing satisfies them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from evonas.exceptions import UnsatisfiableSpaceError
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


class TestConstraints:
    def test_violated_names_them_all(self) -> None:
        space = SearchSpace(
            {"a": Integer(0, 9), "b": Integer(0, 9)},
            constraints={
                "small": lambda genes: genes["a"] < 5,
                "ordered": lambda genes: genes["a"] <= genes["b"],
                "any": lambda genes: True,
            },
        )
        assert space.violated({"a": 9, "b": 0}) == ["small", "ordered"]
        assert space.violated({"a": 4, "b": 4}) == []
        assert space.satisfied([4, 4])
        assert not space.satisfied([4, 3])

    def test_predicates_get_active_genes_only(self) -> None:
        seen: list[set[str]] = []
        space = depth_space(constraints={"look": lambda genes: seen.append(set(genes)) or True})
        space.satisfied([1, 16, 32, 16, True, 0.01])
        assert seen == [{"depth", "width1", "norm", "lr"}]

    def test_a_predicate_that_raises_is_named(self) -> None:
        space = depth_space(constraints={"narrow": lambda genes: genes["width3"] < 20})
        with pytest.raises(
            ValueError, match=r"constraint 'narrow' raised KeyError: 'width3', for the genes \{'dep"
        ) as caught:
            space.violated({"depth": 1})
        assert isinstance(caught.value.__cause__, KeyError)

    def test_a_predicate_without_return_is_named(self) -> None:
        space = depth_space(constraints={"oops": lambda genes: None})
        with pytest.raises(ValueError, match=r"constraint 'oops' returned None .* True or False"):
            space.sample(random.Random(0))

    def test_numpy_booleans_count(self) -> None:
        space = SearchSpace({"a": [1, 2]}, constraints={"x": lambda genes: np.bool_(False)})
        assert space.violated({"a": 1}) == ["x"]

    def test_a_small_space_is_proven_empty(self) -> None:
        space = SearchSpace(
            {"a": Integer(1, 10), "b": Integer(1, 10)},
            constraints={
                "sum": lambda genes: genes["a"] + genes["b"] > 19,
                "low": lambda genes: genes["a"] < 6,
            },
        )
        with pytest.raises(
            UnsatisfiableSpaceError,
            match=r"none of the 100 points .* \('sum' rejected 99, 'low' rejected 50\)",
        ):
            space.sample(random.Random(0))

    def test_a_large_space_is_given_up(self) -> None:
        space = SearchSpace(
            {"a": Float(0, 1), "b": [1, 2]}, constraints={"never": lambda genes: False}
        )
        with pytest.raises(
            UnsatisfiableSpaceError,
            match=r"none of 1,000 random points .* \('never' rejected 1,000\); .* too large",
        ):
            space.sample(random.Random(0))

    def test_rare_points_of_a_small_space_are_found_uniformly(self) -> None:
        # Two of 40,000 points: a thousand random draws see one of them in one case of twenty.
        rare = {(7, 7), (150, 3)}
        space = SearchSpace(
            {"a": Integer(1, 200), "b": Integer(1, 200)},
            constraints={"rare": lambda genes: (genes["a"], genes["b"]) in rare},
        )
        seen = Counter(tuple(space.sample(random.Random(seed)).values()) for seed in range(10))
        assert set(seen) == rare
        assert min(seen.values()) >= 3

    def test_sampling_depends_on_the_rng_alone(self) -> None:
        # A cache of the enumeration would make the second draw consume less of the rng.
        space = SearchSpace(
            {"a": Integer(1, 60), "b": Integer(1, 60)},
            constraints={"one": lambda genes: genes["a"] == genes["b"] == 3},
        )
        first, second = random.Random(2), random.Random(2)
        assert space.sample(first) == space.sample(second)
        assert first.getstate() == second.getstate()

"""The search space: conditions, constraints, canonical form, counting, encoding, JSON."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from evonas.space import SearchSpace, canonical_json
from evonas.space.genes import Boolean, Categorical, Float, Integer


def crc_is_even(genes: dict[str, Any]) -> bool:
    return sum(canonical_json(genes).encode()) % 2 == 0


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


class TestCanonicalJson:
    def test_is_one_text_per_value(self) -> None:
        assert canonical_json({"b": [1, 2.0], "a": None}) == '{"a":null,"b":[1,2.0]}'
        assert canonical_json((1, "é")) == '[1,"\\u00e9"]'
        assert canonical_json({"n": np.int64(3), "x": np.float64(0.5)}) == '{"n":3,"x":0.5}'

    @pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}, np.float32("nan")])
    def test_refuses_what_json_lacks(self, value: Any) -> None:
        with pytest.raises(ValueError, match="not a JSON value"):
            canonical_json(value)

    @pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, int, np.zeros(2)])
    def test_refuses_objects(self, value: Any) -> None:
        with pytest.raises(TypeError, match="is not a JSON value"):
            canonical_json(value)


class TestConstruction:
    def test_lists_mean_categorical(self) -> None:
        space = SearchSpace({"a": [1, 2], "b": ("x", "y"), "c": Boolean()})
        assert space["a"] == Categorical([1, 2])
        assert space["b"] == Categorical(["x", "y"])

    def test_reads_like_a_dict(self) -> None:
        space = depth_space()
        assert list(space) == ["depth", "width1", "width2", "width3", "norm", "lr"]
        assert len(space) == 6
        assert "lr" in space
        assert "mo" not in space
        assert dict(space) == dict(space.items())
        assert list(space.keys()) == list(space)
        assert space.gene_types == tuple(dict(space).values())
        with pytest.raises(KeyError, match=r"'widht1' is not a gene .*did you mean 'width1'"):
            space["widht1"]

    @pytest.mark.parametrize(
        ("conditions", "error", "message"),
        [
            ({"x": {"a": [1]}}, ValueError, "conditional gene 'x' is not a gene of the space; its"),
            ({"b": {"x": [1]}}, ValueError, r"conditions\['b'\]: the parent 'x' is not a gene"),
            ({"b": {"a": [9]}}, ValueError, r"conditions\['b'\]\['a'\]: gene 'a' must be one of"),
            ({"b": {"n": [1.5]}}, ValueError, r"conditions\['b'\]\['n'\]: gene 'n' must be a who"),
            ({"b": {"n": ["1"]}}, TypeError, r"conditions\['b'\]\['n'\]: gene 'n' must be a who"),
            ({"b": {"a": []}}, ValueError, "lists no value, so 'b' would never be active"),
            ({"b": {"a": 1}}, TypeError, "must be a list of values .* got 1: put a single value"),
            ({"b": {"f": [0.5]}}, ValueError, "is continuous and does not hit listed values"),
            ({"b": {}}, TypeError, r"conditions\['b'\] must be \{parent: \[values"),
            ({"b": ["a"]}, TypeError, r"conditions\['b'\] must be \{parent: \[values"),
            ([("b", "a")], TypeError, r"conditions must be \{child: \{parent:"),
            ({"b": {"b": [1]}}, ValueError, "cycle, so these genes would never be active: b;"),
            (
                {"a": {"b": [1]}, "b": {"n": [1]}, "n": {"a": [1]}},
                ValueError,
                "cycle, so these genes would never be active: a, b, n; expected",
            ),
        ],
    )
    def test_refuses_wrong_conditions(
        self, conditions: Any, error: type[Exception], message: str
    ) -> None:
        genes = {"a": [1, 2], "b": [1, 2], "n": Integer(1, 3), "f": Float(0, 1)}
        with pytest.raises(error, match=message):
            SearchSpace(genes, conditions=conditions)

    def test_names_constraints(self) -> None:
        def fits(genes: dict[str, Any]) -> bool:
            return True

        genes = {"a": [1, 2]}
        assert list(SearchSpace(genes, constraints={"x": fits}).constraints) == ["x"]
        assert list(SearchSpace(genes, constraints=fits).constraints) == ["fits"]
        assert list(SearchSpace(genes, constraints=[fits, crc_is_even]).constraints) == [
            "fits",
            "crc_is_even",
        ]

    @pytest.mark.parametrize(
        ("constraints", "error", "message"),
        [
            ({"fits": 3}, TypeError, r"constraint 'fits' must be callable as predicate\(genes\)"),
            ({3: bool}, TypeError, "name of a constraint must be a non-empty string, got 3"),
            ([crc_is_even, crc_is_even], ValueError, "two constraints are called 'crc_is_even'"),
            (3, TypeError, r"constraints must be \{name: predicate\}, a predicate or a list"),
        ],
    )
    def test_refuses_wrong_constraints(
        self, constraints: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            SearchSpace({"a": [1, 2]}, constraints=constraints)

    def test_repr_shows_everything(self) -> None:
        assert repr(depth_space(constraints={"fits": bool})).splitlines() == [
            "SearchSpace(",
            "    depth: Integer(1, 3),",
            "    width1: Categorical([16, 32]),",
            "    width2: Categorical([16, 32]),",
            "    width3: Categorical([16, 32]),",
            "    norm: Boolean(),",
            "    lr: Float(0.0001, 0.1, log=True),",
            "    width2 is active when depth in [2, 3],",
            "    width3 is active when depth in [3],",
            "    constraints: fits,",
            ")",
        ]


class TestConditions:
    def test_genes_hold_the_active_ones_in_order(self) -> None:
        space = depth_space()
        assert space.genes([2, 16, 32, 16, True, 0.01]) == {
            "depth": 2,
            "width1": 16,
            "width2": 32,
            "norm": True,
            "lr": 0.01,
        }
        assert space.active([1, 16, 32, 16, True, 0.01]) == (True, True, False, False, True, True)

    def test_a_gene_whose_parent_is_inactive_is_inactive(self) -> None:
        space = SearchSpace(
            {"leaf": [1, 2], "middle": [1, 2], "root": [1, 2]},  # children declared first
            conditions={"leaf": {"middle": [1]}, "middle": {"root": [1]}},
        )
        assert space.genes([1, 1, 1]) == {"leaf": 1, "middle": 1, "root": 1}
        assert space.genes([1, 2, 1]) == {"middle": 2, "root": 1}
        assert space.genes([1, 1, 2]) == {"root": 2}

    def test_several_parents_must_agree(self) -> None:
        space = SearchSpace(
            {"a": [1, 2], "b": [1, 2], "c": [1, 2]}, conditions={"c": {"a": [1], "b": [2]}}
        )
        shown = [("c" in space.genes([a, b, 1])) for a in (1, 2) for b in (1, 2)]
        assert shown == [False, True, False, False]

    def test_json_texts_tell_parent_values_apart(self) -> None:
        space = SearchSpace(
            {"p": [1, 1.0, True, [1]], "c": [1, 2]}, conditions={"c": {"p": [True, [1]]}}
        )
        assert [space.active([value, 1])[1] for value in (1, 1.0, True, [1])] == [
            False,
            False,
            True,
            True,
        ]

    @pytest.mark.parametrize("values", [range(2, 4), (2, 3), {2, 3}, [3, 2, 2.0, np.int64(3)]])
    def test_any_collection_of_values_is_one_canonical_list(self, values: Any) -> None:
        space = SearchSpace({"n": Integer(1, 5), "c": [1]}, conditions={"c": {"n": values}})
        assert space.conditions == {"c": {"n": [2, 3]}}

    def test_conditions_returned_are_copies(self) -> None:
        space = depth_space()
        before = space.fingerprint
        space.conditions["width2"]["depth"].append(1)
        assert space.conditions["width2"]["depth"] == [2, 3]
        assert depth_space().fingerprint == before


class TestPoints:
    def test_values_fill_inactive_genes(self) -> None:
        space = depth_space()
        genes = {"depth": 1, "width1": 32, "norm": False, "lr": 0.1}
        assert space.values(genes) == [1, 32, 16, 16, False, 0.1]
        rng = random.Random(0)
        drawn = Counter(tuple(space.values(genes, rng)[2:4]) for _ in range(200))
        assert set(drawn) == set(itertools.product([16, 32], repeat=2))

    def test_validate_makes_canonical_values(self) -> None:
        valid = depth_space().validate(
            {"lr": np.float64(0.01), "norm": np.bool_(False), "width1": 16.0, "depth": np.int32(1)}
        )
        assert list(valid.items()) == [("depth", 1), ("width1", 16), ("norm", False), ("lr", 0.01)]
        assert [type(value) for value in valid.values()] == [int, int, bool, float]

    @pytest.mark.parametrize(
        ("genes", "error", "message"),
        [
            ({"depht": 1}, ValueError, r"unknown gene 'depht' \(did you mean 'depth'\?\); the gen"),
            ({"depth": 1}, ValueError, r"missing genes: 'width1' \(expected Categorical\(\[16, 32"),
            (
                {"depth": 2, "width1": 16, "norm": True, "lr": 0.1},
                ValueError,
                r"missing gene: 'width2'",
            ),
            ({"depth": 9}, ValueError, r"gene 'depth' must be a whole number from Integer\(1, 3\)"),
            ({"depth": "1"}, TypeError, "gene 'depth' must be a whole number"),
            ([1, 2], TypeError, r"genes must be a dict of gene name to value, got \[1, 2\]"),
        ],
    )
    def test_validate_refuses(self, genes: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            depth_space().validate(genes)

    @pytest.mark.parametrize("values", [[], [1, 16], [1, 16, 16, 16, True, 0.01, 0]])
    def test_refuses_the_wrong_number_of_values(self, values: list[Any]) -> None:
        space = depth_space()
        for method in (space.genes, space.validate_values, space.unconstrained().genes):
            with pytest.raises(ValueError, match=rf"hold one per gene, 6, got {len(values)}"):
                method(values)

    def test_validate_values_checks_inactive_ones_too(self) -> None:
        with pytest.raises(ValueError, match="gene 'width3' must be one of"):
            depth_space().validate_values([1, 16, 16, 5, True, 0.01])

    def test_lists_are_handed_out_as_copies(self) -> None:
        space = SearchSpace({"k": [[1, 2], [3]], "d": [{"a": 1}]})
        values = space.sample_values(random.Random(0))
        for genes in (space.genes(values), next(space.enumerate()), space.decode([1.0, 0.0, 1.0])):
            genes["k"].append(9)
            genes["d"]["b"] = 2
        assert space["k"] == Categorical([[1, 2], [3]])
        assert list(space.enumerate()) == [{"k": [1, 2], "d": {"a": 1}}, {"k": [3], "d": {"a": 1}}]

    def test_resolve_gives_the_objects(self) -> None:
        space = SearchSpace({"act": Categorical({"int": int, "str": str}), "n": [1, 2]})
        assert space.resolve({"act": "str", "n": 2}) == {"act": str, "n": 2}
        with pytest.raises(ValueError, match="'float' is not among"):
            space.resolve({"act": "float"})
        with pytest.raises(ValueError, match="unknown gene 'acts'"):
            space.resolve({"acts": "int"})

    def test_sample_without_rng_draws_from_the_global_random(self) -> None:
        space = depth_space()
        random.seed(9)
        expected = space.sample(random.Random(9))
        assert space.sample() == expected


class TestKey:
    def test_is_the_sha256_of_the_canonical_json(self) -> None:
        # Written down once: keys are stored in run databases and must not change.
        key = "768ca668c0f84dd39bf269e25c9a3f0af4812e41026b6fead9a2666078ef16f6"
        space = SearchSpace({"b": [1, 2], "a": ["x"]})
        assert space.key({"b": 2, "a": "x"}) == key

    def test_a_missing_gene_is_an_error_where_conditions_decide(self) -> None:
        with pytest.raises(ValueError, match="missing gene 'width1': expected depth, width1, norm"):
            depth_space().key({"depth": 1, "norm": True, "lr": 0.1})


class TestJson:
    def test_survives_sorted_keys(self) -> None:
        space = depth_space()
        assert list(SearchSpace.from_json(json.loads(canonical_json(space.to_json())))) == list(
            space
        )

    def test_constraints_are_given_by_name(self) -> None:
        data = depth_space(constraints={"a": bool, "b": bool}).to_json()
        assert data["constraints"] == ["a", "b"]
        message = r"has the constraints \['a', 'b'\], got \[.*\]: pass constraints=.* or constr"
        for given_ in (None, {"a": bool}, {"a": bool, "c": bool}):
            with pytest.raises(ValueError, match=message):
                SearchSpace.from_json(data, given_)
        assert list(SearchSpace.from_json(data, {}).constraints) == []
        again = SearchSpace.from_json(data, {"b": bool, "a": bool})
        assert list(again.constraints) == ["a", "b"]
        with pytest.raises(ValueError, match=r"has the constraints \[\], got \['a'\]"):
            SearchSpace.from_json(depth_space().to_json(), {"a": bool})

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({}, "not the JSON of a search space"),
            ([], "not the JSON of a search space"),
            ({"genes": [{"type": "boolean"}]}, "not the JSON of a search space"),
            ({"genes": [{"name": "a", "type": "x"}]}, "a gene's 'type' must be one of"),
            ({"genes": []}, "at least one gene"),
        ],
    )
    def test_refuses_other_data(self, data: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            SearchSpace.from_json(data)

    def test_fingerprint_knows_all_but_the_code_of_constraints(self) -> None:
        spaces_ = [
            SearchSpace({"a": [1, 2], "b": [1, 2]}),
            SearchSpace({"b": [1, 2], "a": [1, 2]}),
            SearchSpace({"a": [1, 2], "b": [1, 3]}),
            SearchSpace({"a": [1, 2], "b": Integer(1, 2)}),
            SearchSpace({"a": [1, 2], "b": [1, 2]}, conditions={"b": {"a": [1]}}),
            SearchSpace({"a": [1, 2], "b": [1, 2]}, constraints={"x": bool}),
            SearchSpace({"a": [1, 2], "b": [1, 2]}, constraints={"y": bool}),
        ]
        assert len({space.fingerprint for space in spaces_}) == len(spaces_)
        assert len(set(spaces_)) == len(spaces_)
        x, y = (SearchSpace({"a": [1]}, constraints={"x": f}) for f in (bool, len))
        assert x == y
        assert x != {"a": [1]}

    def test_fingerprint_ignores_how_conditions_are_written(self) -> None:
        genes = {"n": Integer(1, 5), "a": [1, 2], "b": [1, 2]}
        one = SearchSpace(genes, conditions={"b": {"n": [3, 2]}, "a": {"n": range(1, 3)}})
        two = SearchSpace(genes, conditions={"a": {"n": (2, 1, 1)}, "b": {"n": {2, 3}}})
        assert one.fingerprint == two.fingerprint

    def test_pickles_and_copies(self) -> None:
        space = depth_space(constraints={"even": crc_is_even})
        for again in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
            assert again == space
            assert again.sample(random.Random(1)) == space.sample(random.Random(1))

    def test_unconstrained_keeps_all_else(self) -> None:
        space = depth_space(constraints={"never": lambda genes: False})
        free = space.unconstrained()
        assert free == depth_space()
        genes = free.sample(random.Random(0))
        assert free.violated(genes) == []
        assert free.key(genes) == space.key(genes)


@pytest.mark.parametrize(
    ("gene", "way_out"),
    [
        (3, "for a fixed value pass [3]"),
        ("relu", "for a fixed value pass ['relu']"),
        (range(4, 16), "pass Integer(4, 15)"),
        (range(4, 16, 4), "pass [4, 8, 12]"),
        (range(0, 1000, 2), "pass list(range(0, 1000, 2))"),
        ({1, 2}, "a set has no order, pass a list"),
    ],
)
def test_what_is_no_gene_says_which_it_may_be(gene: Any, way_out: str) -> None:
    with pytest.raises(TypeError, match=f"gene 'c' must be a Gene .*: {re.escape(way_out)}$"):
        SearchSpace({"c": gene})

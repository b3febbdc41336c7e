"""Shorthands of a space: what they stand for, and how a model function reads them."""

from __future__ import annotations

import random
from typing import Any

import pytest

import evonas as en
from evonas.space.genes import gene_from_json

BLOCK = {"filters": [16, 32, 64], "pool": en.Boolean(), "size": en.Integer(2, 3)}


def test_a_repeat_is_what_one_would_write_by_hand() -> None:
    short = en.SearchSpace(
        {
            "conv": en.Repeat(1, 3, BLOCK, conditions={"size": {"pool": [True]}}),
            "lr": en.Float(0.001, 0.1, log=True),
        }
    )
    genes: dict[str, Any] = {"n_conv": en.Integer(1, 3)}
    conditions: dict[str, Any] = {}
    for place in (1, 2, 3):
        reached = {} if place == 1 else {"n_conv": list(range(place, 4))}
        for name, gene in BLOCK.items():
            genes[f"conv{place}_{name}"] = gene
            if reached:
                conditions[f"conv{place}_{name}"] = dict(reached)
        conditions.setdefault(f"conv{place}_size", {})[f"conv{place}_pool"] = [True]
    genes["lr"] = en.Float(0.001, 0.1, log=True)
    long = en.SearchSpace(genes, conditions=conditions)
    assert short.unconstrained().conditions.keys() == long.conditions.keys()
    assert {c: sorted(p) for c, p in short.conditions.items()} == {
        c: sorted(p) for c, p in long.conditions.items()
    }
    assert list(short) == list(long)
    rng = random.Random(0)
    for _ in range(200):
        point = short.sample(rng)
        assert long.validate(point) == point
    again = en.SearchSpace.from_json(short.to_json())
    assert again == short


def test_each_gives_the_active_genes_place_by_place() -> None:
    stage = en.Repeat(1, 2, {"width": [8, 16], "block": en.Repeat(0, 2, {"kernel": [3, 5]})})
    space = en.SearchSpace({"stage": stage, "lr": [0.1]})
    assert list(space)[:5] == [
        "n_stage", "stage1_width", "n_stage1_block", "stage1_block1_kernel", "stage1_block2_kernel",
    ]  # fmt: skip
    rng = random.Random(1)
    for _ in range(100):
        genes = space.sample(rng)
        stages = en.Repeat.each(genes, "stage")
        assert len(stages) == genes["n_stage"]
        for place, found in enumerate(stages, 1):
            blocks = en.Repeat.each(found, "block")
            assert found["width"] == genes[f"stage{place}_width"]
            assert [block["kernel"] for block in blocks] == [
                genes[f"stage{place}_block{n}_kernel"]
                for n in range(1, genes[f"n_stage{place}_block"] + 1)
            ]
    with pytest.raises(KeyError, match="'conv' is no Repeat of these genes, which are: n_stage"):
        en.Repeat.each(space.sample(rng), "conv")


def test_a_repeat_may_depend_on_a_gene() -> None:
    space = en.SearchSpace(
        {"has_head": en.Boolean(), "fc": en.Repeat(1, 2, {"units": [8, 16]})},
        conditions={"fc": {"has_head": [True]}},
    )
    assert space.validate({"has_head": False}) == {"has_head": False}
    assert space.cardinality == 1 + 2 + 4
    assert len(list(space.enumerate())) == 7


def test_conditions_on_ranges_of_whole_numbers_are_lists() -> None:
    space = en.SearchSpace(
        {"depth": en.Integer(1, 5), "skip": en.Boolean(), "wide": en.Boolean()},
        conditions={"skip": {"depth": en.Range(3)}, "wide": {"depth": en.Range(2, 3.5)}},
    )
    assert space.conditions == {"skip": {"depth": [3, 4, 5]}, "wide": {"depth": [2, 3]}}
    assert space.cardinality == 1 + 2 + 4 + 2 + 2


@pytest.mark.parametrize("strategy", ["random", "ga", "surrogate"])
def test_conditions_on_ranges_of_real_numbers(strategy: str) -> None:
    space = en.SearchSpace(
        {"lr": en.Float(0.0, 1.0), "warmup": [1, 2], "clip": en.Boolean()},
        conditions={"warmup": {"lr": en.Range(0.5)}, "clip": {"lr": en.Range(high=0.25)}},
    )
    assert "warmup is active when lr is at least 0.5" in repr(space)
    assert "clip is active when lr is at most 0.25" in repr(space)
    assert en.SearchSpace.from_json(space.to_json()) == space
    assert space.unconstrained() == space
    assert space.cardinality == float("inf")
    chosen: Any = en.Generational(8) if strategy == "ga" else strategy
    result = en.evolve(
        space, lambda genes, trial: genes["lr"], strategy=chosen, max_evaluations=60, seed=0
    )
    for entry in result.evaluations:
        assert ("warmup" in entry.genes) == (entry.genes["lr"] >= 0.5)
        assert ("clip" in entry.genes) == (entry.genes["lr"] <= 0.25)


def test_the_model_of_a_surrogate_knows_the_same_activity() -> None:
    from evonas.strategies.surrogate.encoding import Encoding

    space = en.SearchSpace(
        {"lr": en.Float(0.001, 1.0, log=True), "a": [1, 2], "b": en.Boolean()},
        conditions={"a": {"lr": en.Range(0.01, 0.1)}, "b": {"lr": en.Range(high=0.01)}},
    )
    rng = random.Random(0)
    points = [space.sample_values(rng) for _ in range(300)]
    points += [[0.01, 1, True], [0.1, 1, True]]
    rows = Encoding(space).rows(points)
    active = [space.active(values) for values in points]
    assert [tuple(place != -1.0 for place in row) for row in rows.tolist()] == active


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: en.Range(), ValueError, "Range must have a bound"),
        (lambda: en.Range("a"), TypeError, "low must be a number"),
        (lambda: en.Range(2, 1), ValueError, "low must not exceed high"),
        (lambda: en.Range(float("nan")), ValueError, "low must be finite"),
        (lambda: en.Repeat(2, 1, {"a": [1]}), ValueError, "low must not exceed high"),
        (lambda: en.Repeat(-1, 1, {"a": [1]}), ValueError, "Repeat: low must be at least 0"),
        (lambda: en.Repeat(1, 2, {}), ValueError, "at least one"),
        (lambda: en.Repeat(1, 2, [1]), TypeError, "Repeat: genes must be"),
        (
            lambda: en.SearchSpace({"a": en.Repeat(1, 2, {"b": [1]}), "a1_b": [2]}),
            ValueError,
            "two genes have the name 'a1_b'",
        ),
        (
            lambda: en.SearchSpace(
                {"x": en.Float(0, 1), "y": [1]}, conditions={"y": {"x": en.Range(2)}}
            ),
            ValueError,
            r"Float\(0\.0, 1\.0\) is never at least 2, so 'y' would never be active",
        ),
        (
            lambda: en.SearchSpace(
                {"x": en.Integer(0, 1), "y": [1]}, conditions={"y": {"x": en.Range(2)}}
            ),
            ValueError,
            "lists no value",
        ),
        (
            lambda: en.SearchSpace({"x": en.Float(0, 1), "y": [1]}, conditions={"y": {"x": [0.5]}}),
            ValueError,
            r"give Range\(low, high\)",
        ),
        (lambda: en.Float(0, 1, step=0), ValueError, "step must be above 0"),
        (lambda: en.Float(0, 1, step="a"), TypeError, "step must be a number"),
        (lambda: en.Float(0.1, 1, log=True, step=0.1), ValueError, "log=True has no steps"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_float_with_a_step_is_a_grid_of_decimals() -> None:
    gene = en.Float(0.0, 1.04, step=0.1)
    assert list(gene.all_values()) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert (gene.high, gene.cardinality) == (1.0, 11)
    assert gene.validate("x", 0.1 + 0.2) == 0.3
    with pytest.raises(ValueError, match=r"from Float\(0\.0, 1\.0, step=0\.1\), got 0\.35"):
        gene.validate("x", 0.35)
    rng = random.Random(0)
    values = set(gene.all_values())
    assert {gene.sample(rng) for _ in range(500)} == values
    assert {gene.mutate(0.5, rng) for _ in range(500)} <= values - {0.5}
    assert list(gene.neighbours(0.0)) == [0.1]
    assert list(gene.neighbours(0.3)) == [0.2, 0.4]
    assert gene_from_json(gene.to_json()) == gene
    assert all(gene.decode(gene.encode(value)) == value for value in values)
    assert "step" not in en.Float(0, 1).to_json(), "spaces made before keep their fingerprint"

"""How much each gene matters, held against functions whose shares are known."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

import evonas as en
from evonas.run.fitness_model import FitnessModel
from evonas.run.importance import importance_of

SPACE = en.SearchSpace({
    "kind": ["a", "b", "c"],
    "slope": en.Float(0.0, 1.0),
    "place": en.Float(0.0, 1.0),
    "side": en.Boolean(),
    "idle": en.Integer(1, 5),
})  # fmt: skip


def value(genes: Any) -> float:
    """Variances: kind 4 * 2/9, slope 9/12, place and side together 4/12."""
    sign = 1 if genes["side"] else -1
    return 2 * (genes["kind"] == "a") + 3 * genes["slope"] + 2 * sign * (genes["place"] - 0.5)


def evaluations(space: en.SearchSpace, function: Any, n: int) -> list[en.Evaluation]:
    rng = random.Random(0)
    points = [space.sample(rng) for _ in range(n)]
    return [
        en.Evaluation(i, space.key(genes), genes, en.Status.OK, (0.0, function(genes)))
        for i, genes in enumerate(points)
    ]


def test_the_shares_are_those_of_the_function() -> None:
    found = importance_of(FitnessModel(SPACE, evaluations(SPACE, value, 80), 1))
    whole = 8 / 9 + 9 / 12 + 4 / 12
    near = {"abs": 0.05}
    assert list(found.total)[-1] == "idle"
    assert found.alone == pytest.approx(
        {"kind": 8 / 9 / whole, "slope": 9 / 12 / whole, "place": 0, "side": 0, "idle": 0}, **near
    )
    assert found.total["place"] == pytest.approx(4 / 12 / whole, **near)
    assert found.total["side"] == pytest.approx(4 / 12 / whole, **near)
    (pair, share), *others = found.pairs.items()
    assert set(pair) == {"place", "side"}
    assert share == pytest.approx(4 / 12 / whole, **near)
    assert all(each < 0.05 for _, each in others)
    assert found.explained > 0.9
    assert found.n_evaluations == 80


def test_of_noise_nothing_is_explained() -> None:
    noise = random.Random(1)
    found = importance_of(
        FitnessModel(SPACE, evaluations(SPACE, lambda genes: noise.gauss(0, 1), 60), 1)
    )
    assert found.explained < 0.1


def test_it_prints_a_table_with_what_acts_together() -> None:
    lines = str(importance_of(FitnessModel(SPACE, evaluations(SPACE, value, 80), 1))).splitlines()
    assert lines[0].split() == ["gene", "alone", "in", "all"]
    assert [line.split()[0] for line in lines[1:3]] == ["kind", "slope"]
    assert lines[-2].startswith("together: ")
    assert {"place", "side"} < set(lines[-2].split())
    assert lines[-1].startswith("a model of 80 evaluations, which explains ")


def test_conditional_genes_and_constraints() -> None:
    space = en.SearchSpace(
        {"deep": en.Boolean(), "width": en.Integer(1, 8), "extra": en.Integer(1, 8)},
        conditions={"extra": {"deep": [True]}},
        constraints={"small": lambda genes: genes["width"] < 8 or not genes["deep"]},
    )

    def by_extra(genes: Any) -> float:
        return genes.get("extra", 0.0)

    found = importance_of(FitnessModel(space, evaluations(space, by_extra, 80), 1))
    assert found.total["width"] < 0.05
    # Between deep and not: 4.5**2 / 4; among the extras, half of the time: 5.25 / 2.
    assert found.alone["deep"] == pytest.approx(5.0625 / (5.0625 + 2.625), abs=0.1)


def test_a_run_and_its_objectives(tmp_path: Any) -> None:
    objectives = (en.Objective("good"), en.Objective("cost", "min"))
    result = en.evolve(
        SPACE, lambda genes, trial: (value(genes), genes["idle"] ** 2), objectives=objectives,
        max_evaluations=40, seed=0, run_dir=tmp_path,
    )  # fmt: skip
    assert next(iter(result.importance("cost").alone)) == "idle"
    again = en.open_run(tmp_path)
    assert again.importance() == result.importance("good")
    assert next(iter(again.importance().alone)) != "idle"
    with pytest.raises(ValueError, match="no objective 'speed', only good, cost"):
        result.importance("speed")


@pytest.mark.parametrize(
    ("n", "function", "message"),
    [(9, value, "9 evaluations .* say too little"), (20, lambda genes: 1.5, "all 20 .* 1.5")],
)
def test_too_little_to_tell_is_refused(n: int, function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        importance_of(FitnessModel(SPACE, evaluations(SPACE, function, n), 1))


def test_it_is_the_same_each_time() -> None:
    some = evaluations(SPACE, lambda genes: math.sin(5 * genes["slope"]), 30)
    assert importance_of(FitnessModel(SPACE, some, 1)) == importance_of(
        FitnessModel(SPACE, some, 1)
    )

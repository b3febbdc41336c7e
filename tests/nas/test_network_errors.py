"""A network function of the user's that raises, and images that no network of the space takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import DataError, InvalidPoint
from evonas.nas import ImageClassificationProblem, Network
from evonas.nas.layers import Conv2d, Flatten, Linear, MaxPool2d
from evonas.training import Examples

MakeData = Callable[..., Examples]
SPACE = {"pools": [1, 2, 3], "lr": [0.1, 0.01, 0.001]}


def pooled(genes: dict[str, Any], n_classes: int) -> Network:
    features = (Conv2d(4, 3, 1, 1), *(MaxPool2d(2),) * genes["pools"])
    return Network(features, (Flatten(), Linear(n_classes)))


def problem(network: Any, data: Examples, space: Any = SPACE) -> ImageClassificationProblem:
    return ImageClassificationProblem(
        en.SearchSpace(space), network, data, n_epochs=1, batch_size=16, precision="float32"
    )


def test_invalid_point_is_one_that_builds_nothing(make_data: MakeData) -> None:
    def two_at_most(genes: dict[str, Any], n_classes: int) -> Network:
        if genes["pools"] == 3:
            raise InvalidPoint("three pools leave nothing")
        return pooled(genes, n_classes)

    mine = problem(two_at_most, make_data(40))
    assert mine.invalid_reason({"pools": 3, "lr": 0.1}) == "three pools leave nothing"
    assert mine.source({"pools": 3, "lr": 0.1}) is None
    result = en.evolve(mine, population=4, generations=2, seed=0)
    assert result.counts.failed == 0
    assert {entry.genes["pools"] for entry in result.evaluations if entry.fitness} <= {1, 2}


def test_any_other_error_names_the_genes(make_data: MakeData) -> None:
    def broken(genes: dict[str, Any], n_classes: int) -> Network:
        raise RuntimeError("three blocks, oh no")

    with pytest.raises(RuntimeError, match="three blocks, oh no") as caught:
        en.evolve(problem(broken, make_data(40)), population=4, generations=2, seed=0)
    (note,) = caught.value.__notes__
    assert note.startswith("network() raised this for the genes {'pools': ")
    assert "raise evonas.InvalidPoint where a point is invalid" in note


def test_images_that_no_network_takes_are_refused_before_the_search(
    make_data: MakeData, tmp_path: Any
) -> None:
    data = make_data(40)  # 3x32x32 halved six times: nothing is left
    mine = problem(pooled, data, {"pools": [6, 7], "lr": [0.1, 0.01]})
    message = r"none of 200 networks of the space takes images of 3x\d+x\d+; the first one: .*pool"
    with pytest.raises(DataError, match=f"(?i){message}"):
        en.evolve(mine, population=4, generations=2, seed=0, run_dir=tmp_path)

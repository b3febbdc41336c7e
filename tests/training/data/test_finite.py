"""A NaN among the data is named where the data are taken, not after trainings that diverge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evonas.exceptions import DataError
from evonas.freezing import FreezingProblem, RecipeProblem
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.training import Examples, ModelProblem
from evonas.training.data import finite as module

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def spoiled(tensor: Tensor, row: int, value: float) -> Tensor:
    wrong = tensor.clone()
    wrong[row:] = value  # the first row is what is named
    return wrong


def score(outputs: Tensor, targets: Tensor) -> float:
    return -float((outputs - targets).square().mean())


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 1))


def any_model(train: Any, val: Any) -> Any:
    space = {"width": [4, 8]}
    return ModelProblem(space, lambda genes: net(genes["width"]), train, val, loss=nn.MSELoss(),
                        n_epochs=1)  # fmt: skip


def masks(train: Any, val: Any) -> Any:
    return FreezingProblem(net, train, val, loss_function=nn.MSELoss(), metric=score, n_epochs=1)


def recipes(train: Any, val: Any) -> Any:
    return RecipeProblem(net, train, val, loss_function=nn.MSELoss(), metric=score, n_epochs=1)


@pytest.mark.parametrize("problem", [any_model, masks, recipes])
@pytest.mark.parametrize("wrap", [tuple, lambda pair: Examples(*pair)], ids=["pair", "Examples"])
def test_the_part_and_the_first_row_are_named(
    problem: Callable[[Any, Any], Any], wrap: Callable[[Any], Any]
) -> None:
    good = wrap((X, Y))
    wrong = wrap((spoiled(X, 5, float("nan")), Y))
    with pytest.raises(DataError, match=r"the inputs of train must be finite, got nan in row 5 "):
        problem(wrong, good)
    wrong = wrap((X, spoiled(Y, 7, float("-inf"))))
    with pytest.raises(DataError, match=r"the targets of val must be finite, got -inf in row 7 "):
        problem(good, wrong)


def test_test_examples_are_looked_at() -> None:
    with pytest.raises(DataError, match=r"the targets of test must be finite, got inf in row 0 "):
        masks((X, Y), (X, Y)).with_test((X, spoiled(Y, 0, float("inf"))))


def test_images_are_looked_at() -> None:
    pixels = torch.rand(40, 3, 16, 16)
    pixels[11, 2, 3, 3] = float("nan")
    family = FAMILIES["resnet"]
    data = Examples(pixels, torch.arange(40) % 2, ("cat", "dog"))
    with pytest.raises(DataError, match=r"the inputs of data must be finite, got nan in row 11 "):
        ImageClassificationProblem(family.space(in_shape=(3, 16, 16)), family.network, data)


def test_inputs_by_name_and_sequences() -> None:
    rows = [[1.0, 2.0], [3.0], [4.0, float("inf"), 5.0], [float("nan")]]
    data = Examples({"a": torch.ones(4, 2), "b": rows}, [0, 1, 0, 1], padding={"b": float("nan")})
    assert data.not_finite == module.NotFinite("inputs['b']", float("inf"), 2)
    data = Examples({"b": rows[:2]}, [0, 1], padding={"b": float("nan")})
    assert data.not_finite is None, "padding is what the user says"
    many = torch.zeros(3000, 2)
    many[2500, 1] = float("nan")
    found = Examples(many, torch.zeros(3000)).not_finite
    assert found is not None
    assert found.row == 2500


def test_a_subset_is_looked_at_by_itself_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Examples(spoiled(X, 30, float("nan")), Y)
    assert data.not_finite is not None
    part = data.subset(range(30))
    assert part.not_finite is None
    assert data.subset([3, 31]).not_finite == module.NotFinite("inputs", pytest.approx(
        float("nan"), nan_ok=True), 1)  # fmt: skip
    monkeypatch.setattr("evonas.training.data.examples.first_not_finite", None)
    assert part.not_finite is None, "known already"


def test_a_transform_may_fill_in_what_is_missing() -> None:
    filled = Examples(spoiled(X, 5, float("nan")), Y, transform=torch.nan_to_num)
    any_model(filled, filled)

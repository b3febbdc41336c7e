"""An error is never maximised because nobody said otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.freezing import FreezingProblem
from evonas.training.metrics import objective_of


@pytest.mark.parametrize(
    "name", ["mse", "val_loss", "RMSE", "meanAbsoluteError", "mean_squared_error", "NLL", "ppl"]
)
def test_the_name_of_an_error_needs_a_direction(name: str) -> None:
    with pytest.raises(ValueError, match=f"the metric {name} would be maximised, and has the name"):
        objective_of(name, None)
    assert objective_of(name, "min") == en.Objective(name, "min")
    assert objective_of(name, "max") == en.Objective(name, "max")


@pytest.mark.parametrize(
    "name",
    ["f1", "r2", "metric", "negative_error", "neg_mse", "one_minus_error", "lossless", "terror"],
)
def test_other_names_are_maximised(name: str) -> None:
    assert objective_of(name, None) == en.Objective(name, "max")


def mse(outputs: Tensor, targets: Tensor) -> float:
    return float(((outputs - targets) ** 2).mean())


def pretrained() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def freezing(**options: Any) -> FreezingProblem:
    torch.manual_seed(1)
    inputs = torch.randn(24, 4)
    data = inputs, inputs[:, :1].clone()
    return FreezingProblem(
        pretrained, data, data, loss_function=nn.MSELoss(), metric=mse, n_epochs=1, lr=1e-3,
        precision="float32", **options,
    )  # fmt: skip


def test_a_mask_is_not_searched_for_the_greatest_error() -> None:
    with pytest.raises(ValueError, match=r"pass objectives=evonas.Objective\('mse', 'min'\)"):
        freezing()
    problem = freezing(objectives=en.Objective("mse", "min"))
    result = en.evolve(problem, max_evaluations=4, seed=0, threads_per_trial=1, progress=False)
    scores = [entry.values[0] for entry in result.evaluations]
    assert result.champion.values[0] == min(scores) < max(scores)

"""What people pass in place of float32 tensors is refused with what to pass, and that works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.freezing import FreezingProblem, RecipeProblem
from evonas.training import ModelProblem

X = np.random.default_rng(0).normal(size=(40, 6))
Y = torch.as_tensor(X.sum(1, keepdims=True))


def score(outputs: Tensor, targets: Tensor) -> float:
    return -float((outputs - targets).square().mean())


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))


def any_model(data: Any) -> Any:
    return ModelProblem({"lr": [0.1, 0.2]}, lambda genes: net(), data, data, loss=nn.MSELoss(),
                        n_epochs=1, precision="float32")  # fmt: skip


def tuned(kind: Any, data: Any) -> Any:
    more: dict[str, Any] = {"loss_function": nn.MSELoss(), "metric": score, "n_epochs": 1}
    return kind(net, data, data, precision="float32", **more)


PROBLEMS = [any_model, lambda data: tuned(FreezingProblem, data),
            lambda data: tuned(RecipeProblem, data)]  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS, ids=["model", "mask", "recipe"])
def test_what_an_error_advises_can_be_trained_on(problem: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="inputs must be a tensor .* got ndarray: pass ") as caught:
        problem((X, Y))
    advice = str(caught.value).partition(": pass ")[2]
    assert advice == "torch.as_tensor(inputs, dtype=torch.float32)"
    inputs = eval(advice, {"torch": torch, "inputs": X})
    # Targets in float64 are no obstacle to a loss of torch.
    assert en.evolve(problem((inputs, Y)), max_evaluations=1, seed=0, progress=False).champion


@pytest.mark.parametrize("problem", PROBLEMS, ids=["model", "mask", "recipe"])
def test_float64_beside_weights_in_float32_is_named(problem: Callable[[Any], Any]) -> None:
    said = r"inputs are float64 and the model's weights are float32: pass inputs\.float\(\)"
    with pytest.raises((TypeError, ValueError), match=said):
        problem((torch.as_tensor(X), Y))


def test_advice_for_tables_and_whole_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"as_tensor\(inputs\.to_numpy\(\), dtype=torch\.float32\)"):
        any_model((pandas.DataFrame(X), Y))
    with pytest.raises(TypeError, match=r"pass torch\.as_tensor\(inputs\)$"):
        any_model((np.zeros((40, 6), dtype=np.int64), Y))


def test_a_model_in_float64_takes_float64() -> None:
    data = (torch.as_tensor(X), Y)
    problem = ModelProblem({"lr": [0.1]}, lambda genes: net().double(), data, data,
                           loss=nn.MSELoss(), n_epochs=1, precision="float32")  # fmt: skip
    assert en.evolve(problem, max_evaluations=1, seed=0, progress=False).champion

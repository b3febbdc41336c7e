from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import evonas as en
from evonas.freezing import FreezingProblem
from evonas.training import accuracy, evaluate
from evonas.training.targets import NoOuterBroadcast

N = 40


def one_output(**options: Any) -> FreezingProblem:
    """A regression, or a classifier with one logit, as people write them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    targets = options.pop("targets", torch.arange(N).view(N, 1) % 2)
    data = torch.randn(N, 4), targets
    defaults = {"n_epochs": 1, "precision": "float32"}
    return FreezingProblem(lambda: copy.deepcopy(model), data, data, **defaults | options)


def test_accuracy_of_one_logit_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match=r"at least two classes.*returns \(N, 1\): pass metric="):
        one_output(loss_function=nn.BCEWithLogitsLoss())


def test_with_a_metric_one_logit_is_searched_and_stays_in_range() -> None:
    def share_right(outputs: Tensor, targets: Tensor) -> float:
        return float(((outputs > 0) == targets).float().mean())

    problem = one_output(
        targets=(torch.arange(N).view(N, 1) % 2).float(),
        loss_function=nn.BCEWithLogitsLoss(),
        metric=share_right,
    )
    result = en.evolve(problem, population=4, generations=1, seed=0)
    assert all(0 <= entry.values[0] <= 1 for entry in result.evaluations)


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(),
        nn.L1Loss(),
        lambda outputs, targets: ((outputs - targets) ** 2).mean(),
        lambda outputs, targets: functional.mse_loss(input=outputs, target=targets),
    ],
)
def test_a_loss_that_broadcasts_is_refused_at_construction(loss: Any) -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 1\) and \(2,\).*\(2, 2\): give both one"):
        one_output(targets=torch.randn(N), loss_function=loss, metric=lambda o, t: 0.0)


def test_a_metric_that_broadcasts_fails_by_name() -> None:
    def negative_error(outputs: Tensor, targets: Tensor) -> float:
        return -float(((outputs - targets) ** 2).mean())

    problem = one_output(
        targets=torch.randn(N),
        loss_function=lambda o, t: functional.mse_loss(o.squeeze(1), t),
        metric=negative_error,
    )
    with pytest.raises(en.TooManyFailures, match=r"the metric combines .*\(40, 1\) and \(40,\)"):
        en.evolve(problem, population=4, generations=1, max_consecutive_failures=1, seed=0)


def test_what_is_meant_passes() -> None:
    labels, rows = torch.tensor([0, 1, 0]), torch.randn(3, 5)
    with NoOuterBroadcast("the loss"):
        functional.cross_entropy(torch.randn(3, 2), labels)
        rows * torch.randn(5)  # one for each column
        rows * torch.randn(3, 1)  # one for each row
        torch.eq(labels.unsqueeze(0), labels.unsqueeze(1))  # pairs, as contrastive losses have them
        rows @ torch.randn(5)


def test_accuracy_refuses_what_it_cannot_score() -> None:
    scores, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert 0 <= accuracy(scores, labels) <= 1
    for outputs, targets in (
        (scores[:, :1], labels),
        (scores, labels.view(4, 1)),
        (scores, labels.float()),
        (torch.randn(4, 3, 5), torch.zeros(4, 5).long()),
    ):
        with pytest.raises(ValueError, match=r"accuracy takes outputs \(N, C\)"):
            accuracy(outputs, targets)
    with pytest.raises(ValueError, match="accuracy takes outputs"):
        evaluate(nn.Linear(4, 1), [(torch.randn(4, 4), labels)])

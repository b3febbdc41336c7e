from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from evonas.training import Training


def training(**options: Any) -> Training:
    defaults: dict[str, Any] = {
        "n_epochs": 2, "batch_size": 8, "lr": 1.0, "weight_decay": 0.1, "schedule": "linear",
    }  # fmt: skip
    return Training(**defaults | options)


def rates(n_examples: int, **options: Any) -> list[float]:
    of = training(**options)
    optimizer = of.make_optimizer(nn.Linear(2, 2).parameters())
    n_steps = of.n_steps(n_examples)
    scheduler = of.make_scheduler(optimizer, n_steps)
    assert scheduler is not None
    found = []
    for _ in range(n_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_zero() -> None:
    found = rates(80)  # 20 steps
    assert found[:3] == pytest.approx([0.5, 1.0, 1.0])
    falls = [a - b for a, b in itertools.pairwise(found[2:])]
    assert falls == pytest.approx([1 / 18] * 18)
    assert found[-1] == 0.0
    assert len(rates(81)) == 23  # the last batch is a step too
    assert rates(3, n_epochs=1) == [1.0, 0.0]  # as few steps as there can be


@pytest.mark.parametrize("n_examples", [1, 3, 8, 80, 81])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_one_cycle_rises_and_falls_and_leaves_momentum_alone(
    n_examples: int, optimizer: str
) -> None:
    found = rates(n_examples, schedule="one_cycle", optimizer=optimizer, momentum=0.5)
    assert max(found) <= 1.0
    if n_examples >= 80:
        assert max(found) > 0.9
        assert found[0] == pytest.approx(1 / 25)
        assert found[-1] < 1e-3


def test_a_constant_rate_has_no_scheduler() -> None:
    of = training(schedule="constant")
    assert of.make_scheduler(of.make_optimizer(nn.Linear(2, 2).parameters()), 80) is None


def test_names_may_be_written_as_torch_writes_them() -> None:
    assert training(optimizer="AdamW", schedule="One-Cycle") == training(
        optimizer="adamw", schedule="one_cycle"
    )
    assert training().with_genes({"optimizer": "SGD"}).optimizer == "sgd"


def test_each_optimizer_has_the_settings() -> None:
    layer = nn.Linear(2, 2)
    kinds = {
        "sgd": torch.optim.SGD, "nesterov": torch.optim.SGD, "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
    }  # fmt: skip
    for name, kind in kinds.items():
        made = training(optimizer=name, momentum=0.75).make_optimizer(layer.parameters())
        assert type(made) is kind
        (group,) = made.param_groups
        assert (group["lr"], group["weight_decay"]) == (1.0, 0.1)
        momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0.75)
        assert momentum == 0.75
        assert group.get("nesterov", False) is (name == "nesterov")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_epochs": 0}, "n_epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"lr": float("nan")}, "lr must be a finite number, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"schedule": "step"}, "schedule must be 'constant', 'linear', 'cosine' or 'one_cycle'"),
        ({"ema": 1.5}, "ema must be at most 1, got 1.5"),
    ],
)
def test_wrong_numbers(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training(**options)

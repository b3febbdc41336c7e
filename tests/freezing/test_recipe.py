from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from evonas.freezing._recipe import Recipe


def recipe(**options: Any) -> Recipe:
    defaults = {
        "n_epochs": 2, "batch_size": 8, "lr": 1.0, "weight_decay": 0.1, "schedule": "linear",
        "grad_clip": None, "optimizer": None,
    }  # fmt: skip
    return Recipe(**defaults | options)


def rates(n_examples: int, **options: Any) -> list[float]:
    of = recipe(**options)
    optimizer = of.make_optimizer(nn.Linear(2, 2))
    scheduler = of.make_scheduler(optimizer, n_examples)
    assert scheduler is not None
    found = []
    for _ in range(of.n_epochs * -(-n_examples // of.batch_size)):
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


def test_a_constant_rate_has_no_scheduler() -> None:
    of = recipe(schedule="constant")
    assert of.make_scheduler(of.make_optimizer(nn.Linear(2, 2)), 80) is None


def test_the_optimizer_gets_what_is_trainable() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    made = [
        recipe().make_optimizer(model),
        recipe(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.3)).make_optimizer(model),
    ]
    assert [type(optimizer).__name__ for optimizer in made] == ["AdamW", "SGD"]
    for optimizer, lr in zip(made, (1.0, 0.3), strict=True):
        decays = [(group["weight_decay"], group["lr"]) for group in optimizer.param_groups]
        assert decays == [(0.1, lr), (0.0, lr)]
        held = [p for group in optimizer.param_groups for p in group["params"]]
        assert [id(p) for p in held] == [id(p) for p in model[1].parameters()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_epochs": 0}, "n_epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"lr": float("nan")}, "lr must be a finite number, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"schedule": "cosine"}, "schedule must be 'linear' or 'constant', got 'cosine'"),
    ],
)
def test_wrong_numbers(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**options)

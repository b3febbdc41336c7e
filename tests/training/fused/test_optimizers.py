"""Rows of weights change as torch's optimizers change weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn, optim

from evonas.exceptions import FusionError
from evonas.training import Training
from evonas.training.fused.optimizers import Schedules, rates_of, row_optimizer

MAKERS: list[list[Any]] = [
    [partial(optim.SGD, lr=0.1), partial(optim.SGD, lr=0.2, momentum=0.9, weight_decay=0.1),
     partial(optim.SGD, lr=0.05, momentum=0.8, nesterov=True)],
    [partial(optim.SGD, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.3)],
    [partial(optim.Adam, lr=0.1, betas=(0.5, 0.9)), partial(optim.Adam, lr=0.2, weight_decay=0.1)],
    [partial(optim.AdamW, lr=0.1, eps=1e-3), partial(optim.AdamW, lr=0.2, weight_decay=0.1)],
    [partial(optim.RMSprop, lr=0.1, alpha=0.5), partial(optim.RMSprop, lr=0.01, momentum=0.9,
                                                        weight_decay=0.1)],
    [partial(optim.Adagrad, lr=0.1, lr_decay=0.5), partial(
        optim.Adagrad, lr=0.2, initial_accumulator_value=0.5, weight_decay=0.1)],
]  # fmt: skip


def weights(n: int, seed: int) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(7)) for _ in range(n)]


@pytest.mark.parametrize("makers", MAKERS, ids=lambda makers: makers[0].func.__name__)
def test_a_row_changes_as_by_torchs_optimizer(makers: list[Any]) -> None:
    alone = weights(len(makers), 0)
    optimizers = [make([weight]) for make, weight in zip(makers, alone, strict=True)]
    new = [make([weight]) for make, weight in zip(makers, weights(len(makers), 0), strict=True)]
    rows = torch.stack([weight.detach() for weight in weights(len(makers), 0)])
    together = row_optimizer(new, rows)
    schedules = Schedules(new, [rates_of(each, None, 9) for each in new], rows)
    generator = torch.Generator().manual_seed(1)
    for step in range(9):
        gradient = torch.randn(rows.shape, generator=generator)
        for weight, own, optimizer in zip(alone, gradient, optimizers, strict=True):
            weight.grad = own.clone()
            optimizer.step()
        together.step(rows, gradient.clone(), schedules.at(step))
        for row, weight in zip(rows, alone, strict=True):
            torch.testing.assert_close(row, weight.detach(), rtol=2e-6, atol=2e-7)
        if step == 5 and len(alone) > 1:  # the first one is pruned: the others go on as before
            index = torch.arange(1, len(alone))
            rows = rows[index]
            together.keep(index)
            schedules.keep(index)
            alone, optimizers = alone[1:], optimizers[1:]


def test_a_gradient_that_is_no_number_spoils_its_own_row_only() -> None:
    for makers in MAKERS:
        new = [make([weight]) for make, weight in zip(makers[:2] * 2, weights(4, 0), strict=False)]
        if len(new) < 2:
            continue
        rows = torch.ones(len(new), 7)
        schedules = Schedules(new, [rates_of(each, None, 1) for each in new], rows)
        gradient = torch.ones(len(new), 7)
        gradient[0, 3] = torch.nan
        row_optimizer(new, rows).step(rows, gradient, schedules.at(0))
        assert not rows[0].isfinite().all()
        assert rows[1:].isfinite().all()


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one_cycle"])
def test_rates_are_those_that_the_scheduler_sets(schedule: Any) -> None:
    training = Training(schedule=schedule, lr=0.3)
    (weight,) = weights(1, 0)
    optimizer = training.make_optimizer([weight])
    scheduler = training.make_scheduler(optimizer, 10)
    expected = []
    for _ in range(10):
        expected.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(7)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    new = training.make_optimizer(weights(1, 0))
    assert rates_of(new, training.make_scheduler(new, 10), 10) == expected


def test_what_rows_cannot_do_is_refused() -> None:
    (weight,) = weights(1, 0)
    sgd, adam = optim.SGD([weight], lr=0.1), optim.Adam([weight])
    two = optim.SGD([{"params": [weight]}, {"params": weights(1, 1)}], lr=0.1)
    used = optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.ones(7)
    used.step()
    for optimizers, match in [
        ([sgd, adam], "must share one optimizer class, got Adam, SGD"),
        ([optim.Rprop([weight])], "must be one of SGD, Adam, .* got Rprop"),
        ([two], "have one parameter group, got 2$"),
        ([used], "must be new .* got 1 and steps that were made"),
        ([optim.Adam([weight], amsgrad=True)], r"Adam\(amsgrad=True\) is not known"),
        ([optim.SGD([weight], lr=0.1, momentum=0.9, dampening=0.1)], "dampening=0.1"),
        ([optim.SGD(weights(2, 0), lr=0.1)], "must have all parameters"),
    ]:
        with pytest.raises(FusionError, match=match):
            row_optimizer(optimizers, torch.zeros(len(optimizers), 7))
    weight.grad = None
    cycle = optim.SGD([weight], lr=0.1, momentum=0.9)
    with pytest.raises(FusionError, match="OneCycleLR changes more than the rate"):
        rates_of(cycle, optim.lr_scheduler.OneCycleLR(cycle, 0.1, total_steps=11), 10)

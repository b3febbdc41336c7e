"""Recorded steps, with a stand-in for the record that runs the step again at each replay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.training import Examples
from evonas.training.cuda_graphs import WARM_UP, GraphedStep, as_graphs
from evonas.training.loop import run_epoch
from evonas.training.step import TrainingStep, use_fused

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(9)
    ] + [(torch.randn(5, 6, generator=generator), torch.tensor([0, 1, 2, 0, 1]))]


@pytest.fixture
def recorded() -> list[Callable[[], Tensor]]:
    """What was recorded."""
    return []


def stand_in(recorded: list[Callable[[], Tensor]], optimizer: torch.optim.Optimizer) -> Any:
    """A record that keeps the numbers of the optimizer, as that of a device does."""

    def record(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        recorded.append(step)
        kept = [dict(group) for group in optimizer.param_groups]

        def replay() -> Tensor:
            now = [dict(group) for group in optimizer.param_groups]
            for group, ours in zip(optimizer.param_groups, kept, strict=True):
                group.update(ours)
            loss = step()
            for group, theirs in zip(optimizer.param_groups, now, strict=True):
                group.update(theirs)
            return loss

        return replay

    return record


def made(kind: str = "sgd", **settings: Any) -> TrainingStep:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )
    optimizers: dict[str, Any] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    }
    optimizer = optimizers[kind](model.parameters())
    use_fused(optimizer)
    return TrainingStep(model, optimizer, functional.cross_entropy, **settings)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("grad_clip", [None, 0.5])
def test_recorded_steps_train_as_others_do(
    kind: str, grad_clip: float | None, batches: Batches, recorded: list[Any]
) -> None:
    plain, ours = made(kind, grad_clip=grad_clip), made(kind, grad_clip=grad_clip)
    graphed = GraphedStep(ours, stand_in(recorded, ours.optimizer))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(step.optimizer, lambda n: 1 / (1 + n))
        for step in (plain, graphed)
    ]
    for _ in range(2):
        losses = [
            run_epoch(step, batches, [schedule.step])
            for step, schedule in zip((plain, graphed), schedules, strict=True)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(plain.model.parameters(), graphed.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert len(recorded) == 1, "the last, smaller batch of an epoch comes too seldom"
    assert all(isinstance(group["lr"], float) for group in graphed.optimizer.param_groups)


def test_a_batch_that_comes_later_is_in_none_of_the_losses_before(
    batches: Batches,
) -> None:
    # The record holds one tensor for the loss, which the next replay overwrites.
    graphed = GraphedStep(made(), overwriting)
    found = [graphed(*batch) for batch in batches[:8]]
    plain = made()
    assert torch.allclose(torch.stack(found), torch.stack([plain(*b) for b in batches[:8]]))


def overwriting(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    held = torch.zeros(())

    def replay() -> Tensor:
        return held.copy_(step())

    return replay


def test_a_setting_that_changes_is_not_the_recorded_one(
    batches: Batches, recorded: list[Any]
) -> None:
    plain, ours = made(), made()
    graphed = GraphedStep(ours, stand_in(recorded, ours.optimizer))
    for number, batch in enumerate(batches[:8]):
        for step in (plain, graphed):
            step.optimizer.param_groups[0]["momentum"] = 0.5 if number >= WARM_UP + 2 else 0.9
            step(*batch)
    for one, other in zip(plain.model.parameters(), graphed.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_inputs_that_are_not_tensors_alone_are_not_recorded(recorded: list[Any]) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor, by: float) -> Tensor:
            return self.linear(x) * by  # type: ignore[no-any-return]

    model = Scaled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    graphed = GraphedStep(
        TrainingStep(model, optimizer, functional.cross_entropy), stand_in(recorded, optimizer)
    )
    for by in range(8):
        graphed({"x": torch.ones(4, 2), "by": float(by)}, torch.zeros(4, dtype=torch.long))
    assert not recorded


def test_a_step_that_cannot_be_recorded_goes_on_and_says_so(batches: Batches) -> None:
    def refused(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    plain, graphed = made("adamw"), GraphedStep(made("adamw"), refused)
    with pytest.warns(UserWarning, match="Sequential cannot be recorded as a CUDA graph"):
        run_epoch(graphed, batches)
    run_epoch(plain, batches)
    for one, other in zip(plain.model.parameters(), graphed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert graphed.optimizer.param_groups[0]["capturable"] is False


def test_memory_that_is_out_is_no_reason_to_go_on(batches: Batches) -> None:
    def out(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run_epoch(GraphedStep(made(), out), batches)


class Counting(nn.Sequential):
    """Its value at each step is another: not to be recorded unless the caller says it may."""


@pytest.mark.parametrize(
    ("change", "is_recorded"),
    [
        (lambda step: None, True),
        (lambda step: setattr(step, "loss_function", nn.CrossEntropyLoss()), True),
        (lambda step: setattr(step, "loss_function", lambda x, y: x.mean()), False),
        (lambda step: setattr(step, "model", Counting(*step.model)), False),
        (lambda step: step.model[0].register_forward_hook(lambda *_: None), False),
        (lambda step: step.model[0].weight.register_hook(lambda grad: grad), False),
        (lambda step: vars(step.model[0]).update(forward=lambda x: x), False),
        (lambda step: step.optimizer.param_groups[0].update(fused=False), False),
        (lambda step: setattr(step, "device", torch.device("cpu")), False),
    ],
    ids=[
        "known",
        "a loss of torch",
        "own loss",
        "own module",
        "hook",
        "hook of a weight",
        "own forward",
        "not fused",
        "no GPU",
    ],
)
def test_what_is_known_to_do_the_same_each_time_is_recorded(
    change: Callable[[Any], Any], is_recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: torch.tensor(0.0))
    step = made()
    step.device = torch.device("cuda:0")
    change(step)
    assert isinstance(as_graphs(step), GraphedStep) == is_recorded
    assert as_graphs(step, False) is step


def test_the_caller_may_know_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: torch.tensor(0.0))
    step = made()
    step.device, step.model = torch.device("cuda:0"), Counting(*step.model)
    assert isinstance(as_graphs(step, True), GraphedStep)


def test_examples_on_a_cpu_are_trained_on_without(recorded: list[Any]) -> None:
    data = Examples(torch.randn(40, 6), torch.arange(40) % 3)
    step = as_graphs(copy.copy(made()), True)
    assert run_epoch(step, data.batches(8)) > 0
    assert type(step) is TrainingStep

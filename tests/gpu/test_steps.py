"""Steps of a training that do not wait for the device, and candidates trained at once on it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import evonas as en
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.training import Examples, FlipCrop, cuda_graphs, place, seeded
from evonas.training.fused.batches import stacked_batches
from evonas.training.fused.loop import Candidate, fit_together
from evonas.training.fused.noise import RandomStates
from evonas.training.loop import AveragedWeights, train_epoch
from evonas.training.recipe import Training
from evonas.training.step import use_fused

MakeProblem = Callable[..., Any]


def trained(problem: Any, genes: Any, device: str, **settings: Any) -> Trial:
    trial = Trial(TrialSettings(**{"seed": 7, "device": device, **settings}))
    with torch_environment(trial.settings):
        value = problem.evaluate(genes, trial)
    assert 0 <= value <= 1
    return trial


def rows_of(trial: Trial) -> list[dict[str, float]]:
    return [dict(row.metrics) for row in trial.history]


class NoReading(TorchDispatchMode):
    """Stands in for `set_sync_debug_mode` on the CPU: no value of a tensor is read."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("called a synchronizing operation: a value was read")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_synchronisation(device: str) -> Iterator[None]:
    """An operation that has the CPU wait for the device raises."""
    if device == "cpu":
        with NoReading():
            yield
        return
    with warnings.catch_warnings():  # that the mode is a prototype
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def watched(batches: Iterator[Any], device: str) -> Iterator[Any]:
    """The batches, which are made and trained on without synchronisation from the second on.

    The first step makes what is made once: the optimizer's averages, the handles of libraries.
    """
    yield next(batches)
    with no_synchronisation(device):
        yield from batches


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits_for_the_device(device: str, precision: str, images: Examples) -> None:
    settings = Training(lr=0.05, schedule="cosine", optimizer="nesterov", label_smoothing=0.1)
    with seeded(0, device):
        model = place(nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 3),
        ), device)  # fmt: skip
        optimizer = settings.make_optimizer(model.parameters())
        scheduler = settings.make_scheduler(optimizer, 6)
        averaged = AveragedWeights(model, 0.9)
        use_fused(optimizer)
        batches = images.to(device).batches(
            16, seed=0, shuffle=True, augment=FlipCrop(pad=1, cutout=2)
        )
        loss = train_epoch(
            model,
            watched(batches, device),
            optimizer,
            nn.CrossEntropyLoss(label_smoothing=0.1),
            # On a CPU, where it costs nothing, the norm is looked at.
            grad_clip=None if device == "cpu" else 1.0,
            precision=precision,
            after_step=[averaged.update, scheduler.step],
        )
    assert math.isfinite(loss)


def test_what_watches_the_steps_sees_one_that_waits(device: str, images: Examples) -> None:
    model = place(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), device)
    weight = next(model.parameters())
    with pytest.raises(RuntimeError, match="synchronizing (CUDA )?operation"):
        train_epoch(
            model,
            watched(images.to(device).batches(16), device),
            torch.optim.SGD(model.parameters(), lr=0.1),
            after_step=[lambda: weight.sum().item()],
        )


def candidates(device: str, report: Any = None) -> tuple[list[Candidate], RandomStates]:
    states, found = RandomStates(torch.device(device)), []
    for seed, lr in enumerate([0.02, 0.05, 0.1]):
        with seeded(seed, device):
            model = place(nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1 * seed), nn.Linear(8, 3),
            ), device)  # fmt: skip
            states.append_current()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
        found.append(Candidate(
            model, optimizer, seed, 2, 12, loss_function=nn.CrossEntropyLoss(),
            grad_clip=1.0, ema=0.9, report=report,
        ))  # fmt: skip
    return found, states


def test_no_step_of_several_candidates_waits_for_the_device(
    device: str, images: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stacked(*args: Any, **options: Any) -> Iterator[Any]:
        return watched(stacked_batches(*args, **options), device)

    monkeypatch.setattr("evonas.training.fused.loop.stacked_batches", stacked)
    found, states = candidates(device)
    on = images.to(device)
    values = fit_together(found, on, on, states=states, batch_size=16, augment=FlipCrop(pad=1))
    assert all(isinstance(value, float) and value > 0.2 for value in values)


def test_candidates_at_once_come_to_what_they_come_to_alone(
    device: str, make_problem: MakeProblem
) -> None:
    problem = make_problem(ema=0.9, grad_clip=1.0)
    points = [{"width": 8, "p": p, "lr": lr} for p, lr in ((0.0, 0.02), (0.3, 0.05), (0.3, 0.02))]
    trials = [Trial(TrialSettings(seed=seed, device=device)) for seed in range(3)]
    with torch_environment(trials[0].settings):
        problem.evaluate_fused(points, trials)
    for seed, (point, trial) in enumerate(zip(points, trials, strict=True)):
        expected = rows_of(trained(problem, point, device, seed=seed))
        for row, other in zip(rows_of(trial), expected, strict=True):
            assert row["train_loss"] == pytest.approx(other["train_loss"], rel=5e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_come_to_what_others_come_to(
    device: str, precision: str, make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Any] = []
    record = cuda_graphs._recorded
    monkeypatch.setattr(cuda_graphs, "_recorded", lambda s: recorded.append(s) or record(s))
    genes = {"width": 8, "p": 0.3, "lr": 0.05}
    curves = []
    for wanted in (True, False):
        problem = make_problem(
            ema=0.9, grad_clip=1.0, n_epochs=4, schedule="cosine", precision=precision
        )
        problem.cuda_graphs = wanted
        curves.append([row["train_loss"] for row in rows_of(trained(problem, genes, device))])
    assert curves[0] == pytest.approx(curves[1], rel=5e-3 if precision == "float32" else 5e-2)
    assert len(recorded) == (0 if device == "cpu" else 1)


@pytest.mark.gpu
def test_a_step_that_reads_a_value_is_not_recorded_and_the_device_goes_on(
    make_problem: MakeProblem,
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device on this machine")

    class Reading(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / max(1.0, x.abs().max().item())

    def model(genes: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), Reading(), nn.Linear(768, 3))

    problem = make_problem(n_epochs=4)
    problem.model, problem.cuda_graphs = model, True
    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph"):
        trained(problem, {"width": 8, "p": 0.0, "lr": 0.05}, "cuda:0")
    assert trained(make_problem(), {"width": 8, "p": 0.0, "lr": 0.05}, "cuda:0").history


def test_a_search_of_candidates_at_once(device: str, make_problem: MakeProblem) -> None:
    found = en.evolve(
        make_problem(), fused=2, devices=device, strategy="random", max_evaluations=4, seed=0,
        progress=False,
    )  # fmt: skip
    assert all(entry.status is en.Status.OK for entry in found.evaluations)
    assert any(entry.metrics.get("fused") == 2 for entry in found.evaluations)

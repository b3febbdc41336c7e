"""What a search tells of trainings that fail, and what makes it another search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.exceptions import EvonasError, RunMismatchError
from evonas.execution import Task, TrialSettings
from evonas.execution.base import run_trial
from evonas.freezing import FreezingProblem


def search(problem: Any, run_dir: Path | None = None) -> en.Result:
    return en.evolve(
        problem, population=2, generations=1, seed=0, run_dir=run_dir, threads_per_trial=1
    )


def test_another_lambda_is_another_problem(make_problem: Any, tmp_path: Path) -> None:
    def score(step: float) -> Any:
        return make_problem(n_epochs=1, metric=lambda outputs, _: float(outputs.std()) + step)

    problem = score(1.0)
    assert problem.metric_name == "metric"
    assert problem.objectives[0].name == "metric"
    first = search(problem, tmp_path)
    assert "metric" in first.champion.epochs[0].metrics
    assert search(score(1.0), tmp_path).champion.values == first.champion.values
    with pytest.raises(RunMismatchError, match=r"another problem \(metric: <lambda> \S+ in the"):
        search(score(2.0), tmp_path)
    for name, options in {
        "loss_function": (lambda *_: 1, lambda *_: 2),
        "augment": (lambda *_: 1, lambda *_: 2),
        "optimizer": (lambda g: torch.optim.SGD(g, 1.0), lambda g: torch.optim.SGD(g, 2.0)),
    }.items():
        digests = {
            make_problem(**{name: option}).fingerprint()[name.removesuffix("_function")]
            for option in options
        }
        assert len(digests) == 2, name


def f1(outputs: Tensor, targets: Tensor) -> float:
    return math.nan


def outcome(problem: Any, mask: list[int]) -> Any:
    settings = TrialSettings(seed=0, problem=problem.configure(None))
    return run_trial(problem, Task(problem.genes_of(mask), settings))


def test_a_metric_that_returns_nan_is_named(make_problem: Any) -> None:
    found = outcome(make_problem(n_epochs=1, metric=f1), [1, 0, 0, 0])
    assert found.status is en.Status.FAILED
    assert found.error == "the metric f1 returned nan"
    # Where the model has diverged, that is the reason.
    diverged = make_problem(metric=f1, lr=1e30, schedule="constant", n_epochs=3)
    assert outcome(diverged, [0, 0, 0, 0]).status is en.Status.DIVERGED


def test_no_champion_says_why(make_problem: Any, tmp_path: Path) -> None:
    problem = make_problem(n_epochs=1, metric=f1)
    with pytest.raises(en.TooManyFailures, match="the metric f1 returned nan"):
        search(problem, tmp_path)
    result = en.open_run(tmp_path)
    expected = r"has a fitness \(2 failed\); the first error: the metric f1 returned nan"
    with pytest.raises(EvonasError, match=expected):
        _ = result.champion


def test_another_model_of_the_same_weights_is_another_problem(tmp_path: Path) -> None:
    """Its forward was edited, which no weight shows."""

    def factory(scale: float) -> Any:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.c(self.b(self.a(x)).relu() * scale)

        def make() -> nn.Module:
            torch.manual_seed(0)
            return Net()

        return make

    data = torch.randn(12, 4), torch.arange(12) % 2

    def start(scale: float) -> None:
        problem = FreezingProblem(factory(scale), data, data, n_epochs=1, precision="float32")
        search(problem, tmp_path)

    start(1.0)
    start(1.0)
    with pytest.raises(RunMismatchError, match="other code: .*edited since. pass a new run_dir"):
        start(2.0)


class LayerDrop(nn.Module):
    """Leaves out `never` always, and one other layer in each step of the training."""

    def __init__(self, never: int | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head, self.never, self.step = nn.Linear(8, 2), never, 0

    def forward(self, x: Tensor) -> Tensor:
        self.step += self.training
        for number, layer in enumerate(self.layers):
            if not self.training or number not in (self.never, self.step % 4):
                x = layer(x).relu()
        return self.head(x)


def test_a_block_without_a_gradient_in_the_last_step_is_no_error() -> None:
    data = torch.randn(100, 8), torch.arange(100) % 2

    def problem(never: int | None) -> FreezingProblem:
        return FreezingProblem(
            lambda: LayerDrop(never), data, data, batch_size=20, n_epochs=2, precision="float32",
            reuse_prefix=False,
        )  # fmt: skip

    for mask in ([0, 0, 0, 0], [0, 1, 1, 0]):  # the last step, the tenth, leaves out layer 2
        assert outcome(problem(None), mask).status is en.Status.OK
    assert outcome(problem(1), [0, 1, 0, 0]).status is en.Status.OK
    found = outcome(problem(1), [0, 0, 1, 0])
    assert found.status is en.Status.FAILED
    assert "no gradient reached layers.1 of LayerDrop, which the mask" in found.error

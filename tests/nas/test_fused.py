"""Networks of every family, trained at once: each has the record of training it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from evonas.exceptions import FusionError, InvalidPoint
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.execution.weights import WEIGHTS, read_weights
from evonas.nas import FAMILIES
from evonas.nas.problem import ImageClassificationProblem
from evonas.objectives import Objective
from evonas.space.genes import Categorical
from evonas.training import loop, step
from evonas.training.fused import loop as fused_loop

OTHERS = [  # beside the network: each one's own
    {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3, "dropout": 0.0, "label_smoothing": 0.1},
    {"lr": 0.03, "momentum": 0.8, "weight_decay": 1e-4, "dropout": 0.3, "label_smoothing": 0.0},
    {"lr": 0.003, "momentum": 0.95, "weight_decay": 1e-2, "dropout": 0.5, "label_smoothing": 0.2},
]


def variants(problem: ImageClassificationProblem, genes: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns points of the same shapes: what trains them is a setting each, or another choice."""
    genes_of = dict(problem.space.items())
    found = []
    for number, own in enumerate(OTHERS):
        known = {
            name: getattr(genes_of[name], "choices", ())[number % 2]
            if isinstance(genes_of[name], Categorical)
            else value
            for name, value in own.items()
            if name in genes_of
        }
        found.append({**genes, **known})
    return found


def trial_of(number: int) -> Trial:
    return Trial(TrialSettings(number=number, seed=50 + number))


def alone(problem: ImageClassificationProblem, genes: Any, number: int) -> tuple[Any, Trial]:
    trial = trial_of(number)
    with torch_environment(trial.settings):
        return problem.evaluate(genes, trial), trial


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_networks_of_a_family_come_to_what_they_come_to_alone(
    family: str, make_problem: Callable[..., Any], valid_points: Callable[..., Any]
) -> None:
    problem = make_problem(family, n_epochs=2, n_images=24, augment=True)
    points = variants(problem, valid_points(problem, 1)[0])
    assert len({problem.fusion_key(point) for point in points}) == 1
    trials = [trial_of(number) for number in range(len(points))]
    with torch_environment(trials[0].settings):
        values = problem.evaluate_fused(points, trials)
    for number, (point, value, trial) in enumerate(zip(points, values, trials, strict=True)):
        expected, before = alone(problem, point, number)
        assert value == pytest.approx(expected, abs=0.21)  # five images are validated on
        assert trial.metrics == {**before.metrics, "fused": 3}
        for row, other in zip(trial.history, before.history, strict=True):
            assert list(row.metrics) == list(other.metrics)
            assert row.metrics["lr"] == pytest.approx(other.metrics["lr"], rel=1e-12)
            for name in ("train_loss", "loss"):
                assert row.metrics[name] == pytest.approx(other.metrics[name], rel=1e-2), name


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_in_double_precision_nothing_but_the_last_digits_differs(
    family: str,
    make_problem: Callable[..., Any],
    valid_points: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32 a training amplifies the rounding of its sums: here that has no room to grow."""
    for module in (loop, step, fused_loop):
        monkeypatch.setattr(module, "as_float32", lambda outputs: outputs)
    problem = make_problem(family, n_epochs=2, n_images=24, augment=True, ema=0.9)
    problem.__class__ = InDouble
    points = variants(problem, valid_points(problem, 1)[0])
    trials = [trial_of(number) for number in range(len(points))]
    with torch_environment(trials[0].settings):
        problem.evaluate_fused(points, trials)
    for number, (point, trial) in enumerate(zip(points, trials, strict=True)):
        _, before = alone(problem, point, number)
        assert len(trial.history) == 2
        for row, other in zip(trial.history, before.history, strict=True):
            assert row.metrics == pytest.approx(other.metrics, rel=1e-9)


class InDouble(ImageClassificationProblem):
    def _built(self, genes: Any, device: Any) -> nn.Module:
        return nn.Sequential(Double(), super()._built(genes, device).double())


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


def test_genes_that_build_other_shapes_have_other_keys_and_are_refused(
    make_problem: Callable[..., Any], valid_points: Callable[..., Any]
) -> None:
    problem = make_problem("alexnet-small")
    points = valid_points(problem, 3)
    assert len({problem.fusion_key(point) for point in points}) == 3
    with pytest.raises(FusionError, match="candidates 0 and 1 cannot be trained at once: module"):
        problem.evaluate_fused(points, [trial_of(number) for number in range(3)])


def test_a_point_that_builds_nothing_leaves_the_others(
    make_problem: Callable[..., Any], valid_points: Callable[..., Any]
) -> None:
    problem = make_problem("alexnet-small")
    points = variants(problem, valid_points(problem, 1)[0])

    class Odd(ImageClassificationProblem):
        def prepared(self, genes: Any, trial: Trial) -> Any:
            if trial.number == 1:
                raise InvalidPoint("too odd")
            return super().prepared(genes, trial)

    problem.__class__, kind = Odd, problem.__class__
    trials = [trial_of(number) for number in range(3)]
    found = problem.evaluate_fused(points, trials)
    problem.__class__ = kind
    assert str(found[1]) == "too odd"
    assert found[0] == pytest.approx(alone(problem, points[0], 0)[0], abs=0.13)
    assert trials[0].metrics["fused"] == trials[2].metrics["fused"] == 2


def test_what_cannot_be_trained_at_once_says_why(
    make_problem: Callable[..., Any], valid_points: Callable[..., Any]
) -> None:
    objectives = [Objective("accuracy"), Objective("train_seconds", "min")]
    timed = make_problem("alexnet-small", objectives=objectives)
    (point,) = valid_points(timed, 1)
    assert timed.fusion_obstacle() == (
        "it measures train_seconds, and several candidates share theirs"
    )
    with pytest.raises(FusionError, match="cannot be trained at once: it measures train_seconds"):
        timed.evaluate_fused([point], [trial_of(0)])
    inherits = make_problem("alexnet-small", inherit_weights=True)
    assert inherits.fusion_obstacle() == "its trainings go on from weights of others"
    with pytest.raises(ValueError, match="must be as many, and at least one, got 1 and 0"):
        inherits.evaluate_fused([point], [])

    class Own(ImageClassificationProblem):
        def train_model(self, model: Any, genes: Any, trial: Any) -> float:
            return 0.5

    timed.__class__ = Own
    assert timed.fusion_obstacle() == "Own trains in a way of its own"


def test_the_weights_of_each_are_kept(
    make_problem: Callable[..., Any], valid_points: Callable[..., Any], tmp_path: Any
) -> None:
    problem = make_problem("resnet", n_images=24)
    points = variants(problem, valid_points(problem, 1)[0])
    trials = [
        Trial(replace(trial_of(number).settings, attachments=str(tmp_path / str(number))))
        for number in range(3)
    ]
    with torch_environment(trials[0].settings):
        problem.evaluate_fused(points, trials)
    first, second = (read_weights(tmp_path / str(number) / WEIGHTS) for number in (0, 1))
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[n], second[n]) for n in first if n.endswith("running_mean"))

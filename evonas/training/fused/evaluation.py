"""Points of a problem evaluated at once: each gets the record that it would get alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evonas.exceptions import FusionError, InvalidPoint
from evonas.execution.torch_env import seeded_generators
from evonas.records import Genes
from evonas.training.data.batches import BatchSource
from evonas.training.data.examples import Examples
from evonas.training.fused.loop import Candidate, fit_together
from evonas.training.fused.noise import RandomStates
from evonas.training.fused.signature import NoiseModules, digest_of
from evonas.training.recipe import Training
from evonas.training.seeding import seeded

if TYPE_CHECKING:
    from evonas.execution.trial import Trial
    from evonas.training.problem import TrainingProblem

__all__ = ["digest_for", "evaluate_together", "obstacle_of"]


def obstacle_of(train: BatchSource, *, goes_on: bool, is_timed: bool) -> str | None:
    """Returns why points cannot be trained at once, in words; None: they can.

    Args:
        train: What is trained on.
        goes_on: Whether trainings begin with weights of others.
        is_timed: Whether the seconds of each training are asked for.
    """
    if not isinstance(train, Examples):
        return "its examples come from a DataLoader or a Dataset, not from memory"
    if goes_on:
        return "its trainings go on from weights of others"
    if is_timed:
        return "it measures train_seconds, and several candidates share theirs"
    return None


def digest_for(model: nn.Module, training: Training, noise: NoiseModules) -> str:
    """Returns what models share that can be trained at once in these settings."""
    own = f"{digest_of(model, noise)} {training.batch_size} {training.optimizer}"
    return hashlib.sha256(own.encode()).hexdigest()


@dataclass(slots=True)
class _Prepared:
    """One point that is about to be trained, and its place among all."""

    place: int
    genes: Genes
    trial: Trial
    model: nn.Module
    counted: dict[str, int]


def evaluate_together(
    problem: TrainingProblem, genes: Sequence[Genes], trials: Sequence[Trial]
) -> list[Any]:
    """Returns for each point what `evaluate` returns, or the error that ended its trial.

    The model of each is built, and its dropout drawn, from the generators of its own trial.

    Args:
        problem: That trains in the loop that problems share.
        genes: Points of one shape.
        trials: Of each, on one device.

    Raises:
        FusionError: They cannot be trained at once; says why.
        ValueError: There is no point, or not a trial for each.
    """
    if not genes or len(genes) != len(trials):
        raise ValueError(
            f"genes and trials must be as many, and at least one, got {len(genes)} and "
            f"{len(trials)}"
        )
    obstacle = problem.fusion_obstacle()
    if obstacle is not None:
        raise FusionError(f"points of this problem cannot be trained at once: {obstacle}")
    _check_alike(problem, genes, trials)
    device = torch.device(trials[0].device)
    states = RandomStates(device)
    found: list[Any] = [None] * len(genes)
    points = []
    for place, (own, trial) in enumerate(zip(genes, trials, strict=True)):
        try:
            with seeded_generators(trial.settings), seeded(trial.seed, device):
                model, counted = problem.prepared(own, trial)
                states.append_current()
        except InvalidPoint as invalid:
            found[place] = invalid
            continue
        points.append(_Prepared(place, own, trial, model, counted))
    for point, result in zip(points, _trained(problem, points, states), strict=True):
        point.trial.record(fused=len(points))
        if isinstance(result, BaseException):
            found[point.place] = result
            continue
        with seeded(point.trial.seed, device):
            found[point.place] = problem.judged(
                result, point.model, point.counted, point.genes, point.trial
            )
    return found


def _check_alike(problem: TrainingProblem, genes: Sequence[Genes], trials: Sequence[Trial]) -> None:
    named: dict[str, list[Any]] = {
        "batch_size": [problem.training_of(own).batch_size for own in genes],
        "device": [trial.device for trial in trials],
        "precision": [problem.precision_in(trial) for trial in trials],
    }
    for name, values in named.items():
        for number, value in enumerate(values):
            if value != values[0]:
                raise FusionError(
                    f"candidates 0 and {number} cannot be trained at once: {name} is {values[0]} "
                    f"in the one and {value} in the other"
                )


def _trained(
    problem: TrainingProblem, points: Sequence[_Prepared], states: RandomStates
) -> list[dict[str, float] | Exception]:
    """Returns for each point what its last epoch was measured as, or what ended it."""
    if not points:
        return []
    train, val = problem.sources(points[0].trial)
    candidates, last = [], []
    for point in points:
        training = problem.training_of(point.genes)
        metric, report, seen = problem.followed(point.trial)
        optimizer = problem.optimizer(point.model, point.genes)
        n_steps = problem.n_steps(training, train)
        candidates.append(
            Candidate(
                point.model,
                optimizer,
                point.trial.seed,
                training.n_epochs,
                n_steps,
                scheduler=problem.scheduler(optimizer, point.genes, n_steps),
                loss_function=problem.loss_function(point.genes),
                metric=metric,
                metric_name=problem.metric_name,
                grad_clip=training.grad_clip,
                ema=training.ema,
                report=report,
            )
        )
        last.append(seen)
    ended = fit_together(
        candidates,
        train,
        val,
        states=states,
        batch_size=problem.training_of(points[0].genes).batch_size,
        precision=problem.precision_in(points[0].trial),
        augment=problem.augment,
        eval_batch_size=problem.eval_batch_size,
        test_time_flip=problem.test_time_flip,
        noise=problem.noise_modules,
    )
    return [
        end if isinstance(end, Exception) else {**seen, problem.metric_name: end}
        for end, seen in zip(ended, last, strict=True)
    ]

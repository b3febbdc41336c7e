"""The training loop for several candidates at once: `fit`, with a row for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.arguments import check_int
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import FitnessError, TrialPruned
from evonas.training.data.batches import Augment, BatchSource
from evonas.training.data.structure import join, map_tensors, tensors_in
from evonas.training.fused.batches import stacked_batches
from evonas.training.fused.losses import RowLosses
from evonas.training.fused.noise import RandomStates
from evonas.training.fused.optimizers import Schedules, rates_of, row_optimizer
from evonas.training.fused.signature import NoiseModules
from evonas.training.fused.stacked import StackedModels, StackedWeights
from evonas.training.loop import EVAL_BATCH_SIZE, Report, leaves_out_last
from evonas.training.metrics import Metric, StreamingMetric, accuracy
from evonas.training.precision import autocast
from evonas.training.step import LossFunction, as_float32
from evonas.training.targets import NoOuterBroadcast

__all__ = ["NOISE", "Candidate", "fit_together"]

NOISE: NoiseModules = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules of torch that multiply what they get by random numbers."""


@dataclass(slots=True)
class Candidate:
    """One of several models that are trained at once, and how: see `evonas.training.fit`.

    Attributes:
        model: On its device; has the trained weights at the end.
        optimizer: New, of all trained parameters in one group: SGD, Adam, AdamW, RMSprop, Adagrad.
        seed: Of the order of its batches and their augmentation.
        n_epochs: Of its training.
        n_steps: Batches that it is trained on.
        scheduler: Steps after each batch; None: the rate is constant.
        loss_function: `(outputs as float32, targets)` to a mean.
        metric: None: `accuracy`.
        metric_name: Under which `report` gets it.
        grad_clip: Greatest norm of its gradient.
        ema: Decay of its averaged weights; 0: none.
        report: Called after each of its epochs; may raise `TrialPruned`.
    """

    model: nn.Module
    optimizer: Optimizer
    seed: int
    n_epochs: int
    n_steps: int
    scheduler: LRScheduler | None = None
    loss_function: LossFunction = nn.functional.cross_entropy
    metric: Metric | StreamingMetric | None = None
    metric_name: str = "accuracy"
    grad_clip: float | None = None
    ema: float = 0.0
    report: Report | None = None


Ended = float | TrialPruned | FitnessError
"""The metric after the last epoch, NaN where the training diverged, or what ended it."""


def fit_together(
    candidates: Sequence[Candidate],
    train: BatchSource,
    val: BatchSource,
    *,
    states: RandomStates,
    batch_size: int,
    precision: str = "float32",
    augment: Augment | None = None,
    eval_batch_size: int = EVAL_BATCH_SIZE,
    test_time_flip: bool = False,
    noise: NoiseModules = NOISE,
) -> list[Ended]:
    """Trains models of one shape at once and returns what each came to.

    Each has its own order of batches, augmentation, dropout, loss, rate and settings of the
    optimizer, and comes to what `fit` makes of it alone, up to the rounding of sums in another
    order. One that diverges or is pruned leaves the others, which go on without it.

    Args:
        candidates: Their models differ in the probabilities of `noise` modules at most.
        train: Shuffled anew each epoch, for each candidate by its own seed.
        val: Evaluated after each epoch.
        states: The random generator of each candidate after its model was built.
        batch_size: Training examples a step, of each candidate.
        precision: `float32` or `bfloat16`.
        augment: Applied to training batches only.
        eval_batch_size: Validation examples for which all models' outputs are kept, together.
        test_time_flip: See `evaluate`.
        noise: Modules that draw for each candidate from its own generator.

    Returns:
        In the order of the candidates.

    Raises:
        FusionError: They cannot be trained at once; says why.
        ValueError: There is no candidate.
    """
    if not candidates:
        raise ValueError("candidates must be at least one, got none")
    check_int("batch_size", batch_size, minimum=1)
    training = _Together(candidates, states, noise, precision, test_time_flip)
    drop_last = leaves_out_last(len(train), batch_size)
    for epoch in range(max(each.n_epochs for each in candidates)):
        seeds = [derive_seed(each.seed, "epoch", epoch) for each in training.active]
        rates = training.rates_now
        batches = stacked_batches(train, batch_size, seeds, augment=augment, drop_last=drop_last)
        losses = training.train_epoch(batches)
        rows = [
            {"train_loss": loss, "lr": rate}
            for loss, rate in zip(losses, rates, strict=True)
            if math.isfinite(loss)
        ]
        training.drop_diverged(losses)
        if training.active:
            n_examples = max(1, eval_batch_size // len(training.active))
            training.judge(epoch, val.batches(n_examples), rows)
        if not training.active:
            break
    return training.ended


class _Together:
    """Candidates under way: those that have ended are no longer among the rows."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        states: RandomStates,
        noise: NoiseModules,
        precision: str,
        test_time_flip: bool,
    ) -> None:
        self.active = list(candidates)
        self.ended: list[Ended] = [math.nan] * len(candidates)
        self._places = list(range(len(candidates)))  # of the active ones, among all
        self._precision, self._flip = precision, test_time_flip
        self._models = StackedModels([each.model for each in candidates], noise, states)
        weights, device = self._models.weights, self._models.device
        optimizers = [each.optimizer for each in candidates]
        self._optimizer = row_optimizer(optimizers, weights.trained)
        rates = [rates_of(each.optimizer, each.scheduler, each.n_steps) for each in candidates]
        self._schedules = Schedules(optimizers, rates, weights.trained)
        self._losses = RowLosses([each.loss_function for each in candidates], device)
        clips = [each.grad_clip or math.inf for each in candidates]
        self._clips = weights.trained.new_tensor(clips) if min(clips) < math.inf else None
        self._averages = None
        if any(each.ema for each in candidates):
            self._averages = _Averages(weights, [each.ema for each in candidates])
        self._step = 0

    @property
    def rates_now(self) -> list[float]:
        """The learning rate of each active candidate."""
        last = self._schedules.rates.shape[1] - 1
        return [float(rate) for rate in self._schedules.rates[:, min(self._step, last)]]

    def train_epoch(self, batches: Any) -> list[float]:
        """Trains one epoch; returns the mean loss of each active candidate over its examples."""
        losses: list[Tensor] = []
        counts: list[int] = []
        for inputs, targets in batches:
            with autocast(self._precision, self._models.device):
                outputs = self._models.train_outputs(inputs)
            found = self._losses(as_float32(outputs), targets)
            gradient = self._models.gradients(found)
            if self._clips is not None:
                norms = torch.linalg.vector_norm(gradient, dim=1)
                gradient *= (self._clips / (norms + 1e-6)).clamp(max=1)[:, None]
            weights = self._models.weights
            self._optimizer.step(weights.trained, gradient, self._schedules.at(self._step))
            if self._averages is not None:
                self._averages.update(weights)
            self._step += 1
            losses.append(found.detach())
            counts.append(_n_of_each(targets))
        if not losses:
            raise ValueError("batches must yield at least one batch, got none")
        rows: list[list[float]] = torch.stack(losses, 1).tolist()  # the one synchronisation
        return [sum(v * n for v, n in zip(row, counts, strict=True)) / sum(counts) for row in rows]

    def drop_diverged(self, losses: list[float]) -> None:
        """Ends those whose loss is not finite."""
        self._keep([row for row, loss in enumerate(losses) if math.isfinite(loss)])

    def judge(self, epoch: int, batches: Any, rows: Sequence[Mapping[str, float]]) -> None:
        """Validates and reports; ends those that have diverged, are pruned or have done all.

        Args:
            epoch: From 0.
            batches: To validate on.
            rows: What each active candidate reports beside its metric.
        """
        averages = None if self._averages is None else self._averages.weights
        going_on = []
        for row, measured in enumerate(self._measured(batches, averages)):
            candidate = self.active[row]
            try:
                value = measured()
                if math.isfinite(value) and candidate.report is not None:
                    candidate.report(epoch, {candidate.metric_name: value, **rows[row]})
            except (TrialPruned, FitnessError) as reason:
                self.ended[self._places[row]] = reason
                continue
            self.ended[self._places[row]] = value
            if math.isfinite(value) and epoch + 1 < candidate.n_epochs:
                going_on.append(row)
            elif math.isfinite(value):
                self._models.write_back(row, candidate.model, averages)
        self._keep(going_on)

    def _measured(self, batches: Any, weights: StackedWeights | None) -> list[Callable[[], float]]:
        """Returns for each active candidate a function that computes its metric."""
        outputs: list[Any] = []
        targets: list[Any] = []
        for inputs, wanted in batches:
            with autocast(self._precision, self._models.device):
                found = as_float32(self._models.eval_outputs(inputs, weights))
                if self._flip:
                    mirrored = as_float32(self._models.eval_outputs(inputs.flip(-1), weights))
                    found = (found + mirrored) / 2
            outputs.append(found)
            targets.append(wanted)
        return [
            partial(_metric_of, candidate.metric, row, outputs, targets)
            for row, candidate in enumerate(self.active)
        ]

    def _keep(self, rows: list[int]) -> None:
        if len(rows) == len(self.active):
            return
        self.active = [self.active[row] for row in rows]
        self._places = [self._places[row] for row in rows]
        if not rows:
            return
        index = torch.tensor(rows, device=self._models.device)
        self._models.keep(rows)
        self._optimizer.keep(index)
        self._schedules.keep(index)
        self._losses.keep(rows)
        if self._clips is not None:
            self._clips = self._clips[index]
        if self._averages is not None:
            self._averages.keep(index)


class _Averages:
    """Moving averages of weights and buffers, as `AveragedWeights` keeps one; a decay of 0: none.

    Attributes:
        weights: The averages; of a row without a decay the weights themselves.
    """

    def __init__(self, weights: StackedWeights, decays: Sequence[float]) -> None:
        self.weights = weights.clone()
        self._decays = weights.trained.new_tensor(decays)
        self._n = 0

    def update(self, weights: StackedWeights) -> None:
        """Moves the averages towards the weights."""
        share = 1 - self._decays.clamp(max=(1 + self._n) / (10 + self._n))
        if self._n == 0:
            share = torch.ones_like(share)
        self._n += 1
        self.weights.trained.lerp_(weights.trained, share[:, None].expand_as(weights.trained))
        for name, old in self.weights.buffers.items():
            new = weights.buffers[name]
            if old.is_floating_point():
                old.lerp_(new, share.view(-1, *[1] * (old.ndim - 1)).expand_as(old))
            else:
                old.copy_(new)

    def keep(self, index: Tensor) -> None:
        """Forgets all rows but these."""
        self.weights = self.weights.rows(index)
        self._decays = self._decays[index]


def _metric_of(
    metric: Metric | StreamingMetric | None, row: int, outputs: list[Any], targets: list[Any]
) -> float:
    own = [map_tensors(lambda tensor: tensor[row], found) for found in outputs]
    if isinstance(metric, StreamingMetric):
        metric.reset()
        for found, wanted in zip(own, targets, strict=True):
            metric.update(found, wanted)
        return float(metric.compute())
    with NoOuterBroadcast("the metric"):
        return float((metric or accuracy)(join(own), join(targets)))


def _n_of_each(targets: Any) -> int:
    """Returns how many examples of each candidate are in targets `(K, B, ...)`."""
    return tensors_in(targets)[0].shape[1]

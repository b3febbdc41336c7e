"""One plain training loop, for models of any inputs, outputs and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from evonas.arguments import check_int
from evonas.evolution.random_state import derive_seed
from evonas.training.checkpoint import EpochCheckpoint
from evonas.training.cuda_graphs import step_of
from evonas.training.data.batches import Augment, Batch, BatchSource
from evonas.training.data.structure import join, n_examples
from evonas.training.metrics import Metric, StreamingMetric, accuracy
from evonas.training.passes import evaluating, outputs_of
from evonas.training.precision import as_precision, autocast
from evonas.training.step import LossFunction, TrainingStep, as_float32, device_of
from evonas.training.targets import NoOuterBroadcast

__all__ = [
    "AveragedWeights",
    "accuracy",
    "evaluate",
    "fit",
    "leaves_out_last",
    "place",
    "run_epoch",
    "train_epoch",
]

Report = Callable[[int, Mapping[str, float]], None]

EVAL_BATCH_SIZE = 1024
"""Examples a batch in `evaluate` through `fit`: no gradients are kept, so it may be large."""


def fit(
    model: nn.Module,
    train: BatchSource,
    val: BatchSource,
    *,
    n_epochs: int,
    batch_size: int,
    optimizer: Optimizer | Callable[[nn.Module], Optimizer],
    seed: int,
    loss_function: LossFunction = functional.cross_entropy,
    scheduler: LRScheduler | Callable[[Optimizer], LRScheduler] | None = None,
    step_scheduler: bool = False,
    metric: Metric | StreamingMetric | None = None,
    metric_name: str = "accuracy",
    precision: str = "float32",
    augment: Augment | None = None,
    grad_clip: float | None = None,
    ema: float = 0.0,
    drop_last: bool | None = None,
    eval_batch_size: int = EVAL_BATCH_SIZE,
    test_time_flip: bool = False,
    checkpoint: EpochCheckpoint | None = None,
    cuda_graphs: bool | None = None,
    report: Report | None = None,
) -> float:
    """Trains `model` in place and returns its validation metric after the last epoch.

    The model must be on the device of the data (see `place`). The order of epoch `e` and its
    augmentation come from `(seed, e)`; dropout draws from torch's global generator, which
    `evonas.execution.torch_env` seeds for each trial. An optimizer of torch that has not stepped
    yet and leaves the choice to torch is switched to its fused implementation (SGD on a CPU:
    the same bits in two thirds of the time).

    Divergence: an epoch whose mean loss or metric is not finite ends the training, and NaN is
    returned (which a search records as `diverged`); that epoch is not reported.

    Args:
        model: On the device, trained in place, left in training mode.
        train: Shuffled anew each epoch.
        val: Evaluated after each epoch.
        n_epochs: At least 1.
        batch_size: Training examples a step.
        optimizer: An optimizer of the model, or a function that makes one for it.
        seed: See above.
        loss_function: `(outputs as float32, targets)` to a scalar tensor (a mean).
        scheduler: A learning-rate scheduler, or a function that makes one for the optimizer.
        step_scheduler: Whether the scheduler steps after each batch; else after each epoch.
        metric: `(outputs (N, ...), targets (N, ...))` to a float, or an object with `update`,
            `compute` and `reset` (those of torchmetrics). None: `accuracy`.
        metric_name: Under which `report` gets it.
        precision: `float32` or `bfloat16`.
        augment: Applied to training batches only.
        grad_clip: Greatest norm of the gradient. None: not clipped.
        ema: Decay of a moving average of the weights, which is validated instead of them and is
            in the model at the end. 0: none.
        drop_last: Whether a last, smaller training batch is left out. None: only if it holds a
            single example, on which batch norm cannot train.
        eval_batch_size: Validation examples a batch.
        test_time_flip: See `evaluate`.
        checkpoint: Where a shorter training of the same kind ended: its epochs are reported and
            not trained again. None: it begins anew.
        cuda_graphs: Whether steps are recorded and replayed on a CUDA device. None: where model
            and loss are known to do the same in each step; see `as_graphs`.
        report: Called after each epoch, from 0, with `train_loss`, `lr` and the metric.

    Raises:
        TypeError, ValueError: `n_epochs` is not an int of at least 1, or `precision` is unknown.
    """
    check_int("n_epochs", n_epochs, minimum=1)
    as_precision(precision)
    if not isinstance(optimizer, Optimizer):
        optimizer = optimizer(model)
    step = step_of(
        model, optimizer, loss_function,
        grad_clip=grad_clip, precision=precision, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    if scheduler is not None and not isinstance(scheduler, LRScheduler):
        scheduler = scheduler(optimizer)
    if drop_last is None:
        drop_last = leaves_out_last(len(train), batch_size)
    averaged = AveragedWeights(model, ema) if ema else None
    after_step = [averaged.update] if averaged is not None else []
    if scheduler is not None and step_scheduler:
        after_step.append(scheduler.step)
    done: list[dict[str, float]] = []
    if checkpoint is not None:
        done = checkpoint.restore(model, optimizer, scheduler, averaged, n_epochs)
    value = _reported_again(done, report, metric_name)
    for epoch in range(len(done), n_epochs):
        lr = float(optimizer.param_groups[0]["lr"])
        batches = train.batches(
            batch_size,
            seed=derive_seed(seed, "epoch", epoch),
            shuffle=True,
            augment=augment,
            drop_last=drop_last,
        )
        loss = run_epoch(step, batches, after_step)
        if not math.isfinite(loss):
            return math.nan
        if scheduler is not None and not step_scheduler:
            scheduler.step()
        value = evaluate(
            model if averaged is None else averaged.model,
            val.batches(eval_batch_size),
            metric=metric,
            precision=precision,
            test_time_flip=test_time_flip,
        )
        if not math.isfinite(value):
            return math.nan
        if report is not None:
            report(epoch, {metric_name: value, "train_loss": loss, "lr": lr})
    if checkpoint is not None and len(done) < n_epochs:
        checkpoint.save(model, optimizer, scheduler, averaged)
    if averaged is not None:
        model.load_state_dict(averaged.model.state_dict())
    return value


def leaves_out_last(n_examples: int, batch_size: int) -> bool:
    """Whether the last batch holds a single example, on which batch norm cannot train."""
    return n_examples > batch_size > 1 and n_examples % batch_size == 1


def _reported_again(
    rows: Sequence[Mapping[str, float]], report: Report | None, metric_name: str
) -> float:
    """Reports the epochs of a checkpoint; returns the last one's metric, NaN without one."""
    for epoch, row in enumerate(rows):
        if report is not None:
            report(epoch, row)
    return rows[-1][metric_name] if rows else math.nan


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: Optimizer,
    loss_function: LossFunction = functional.cross_entropy,
    *,
    grad_clip: float | None = None,
    precision: str = "float32",
    after_step: Sequence[Callable[[], object]] = (),
) -> float:
    """Trains one epoch and returns the mean loss over its examples; NaN or infinity if diverged."""
    step = TrainingStep(model, optimizer, loss_function, grad_clip=grad_clip, precision=precision)
    return run_epoch(step, batches, after_step)


def run_epoch(
    step: TrainingStep, batches: Iterable[Batch], after_step: Sequence[Callable[[], object]] = ()
) -> float:
    """Takes a step for each batch and returns the mean loss over the epoch's examples.

    Losses stay on the device until the epoch ends: reading each would make an accelerator wait.
    """
    step.model.train()
    losses: list[Tensor] = []
    counts: list[int] = []
    for inputs, targets in batches:
        losses.append(step(inputs, targets, is_first=not losses))
        for act in after_step:
            act()
        counts.append(n_examples(targets))
    if not losses:
        raise ValueError("batches must yield at least one batch, got none")
    values: list[float] = torch.stack(losses).tolist()  # the epoch's one synchronisation
    return sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    metric: Metric | StreamingMetric | None = None,
    precision: str = "float32",
    test_time_flip: bool = False,
) -> float:
    """Returns the metric over all batches; each module's mode is restored.

    Args:
        model: Put in evaluation mode meanwhile.
        batches: In any order; large ones are faster.
        metric: A function gets the float32 outputs and the targets of all examples, joined along
            their first dimension, on the device; an object with `update`, `compute` and `reset`
            gets them batch by batch. None: `accuracy`.
        precision: Of the forward passes.
        test_time_flip: Whether the outputs for each image `(B, C, H, W)` are averaged with those
            for its mirror image.

    Raises:
        ValueError: There was no batch; the outputs and targets do not fit the metric; it combines
            `(N, 1)` with `(N,)`; or batches cannot be joined, as their shapes differ.
    """
    streaming = metric if isinstance(metric, StreamingMetric) else None
    outputs: list[Any] = []
    targets: list[Any] = []
    if streaming is not None:
        streaming.reset()
    any_batch = False
    with evaluating(model), autocast(precision, device_of(model)):
        for inputs, wanted in batches:
            any_batch = True
            found = as_float32(outputs_of(model, inputs))
            if test_time_flip:
                found = (found + as_float32(outputs_of(model, inputs.flip(-1)))) / 2  # type: ignore[union-attr]
            if streaming is not None:
                streaming.update(found, wanted)
            else:
                outputs.append(found)
                targets.append(wanted)
    if not any_batch:
        raise ValueError("batches must yield at least one batch, got none")
    if streaming is not None:
        return float(streaming.compute())
    with NoOuterBroadcast("the metric"):
        return float((metric or accuracy)(join(outputs), join(targets)))  # type: ignore[operator]


def place(model: nn.Module, device: str | torch.device, *, channels_last: bool = True) -> nn.Module:
    """Moves `model` to `device` in place, convolution weights in channels-last memory.

    Returns:
        The same model; optimizers made before stay valid.
    """
    model.to(torch.device(device))
    # torch knows no such layout of the five dimensions of a 3-D convolution.
    if channels_last and not any(p.ndim == 5 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)
    return model


class AveragedWeights:
    """A moving average of a model's weights and buffers, which follows faster at the beginning."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._source = model
        self._decay = decay
        self._averaged = AveragedModel(model, use_buffers=True)
        self._n = 0  # how many steps are in it

    @property
    def model(self) -> nn.Module:
        """The model of averaged weights."""
        return self._averaged.module

    def update(self) -> None:
        """Moves the average towards the weights.

        As `AveragedModel.update_parameters`, which copies its counter to the weights' device in
        each step, and so would have a GPU wait.
        """
        decay = min(self._decay, (1 + self._n) / (10 + self._n)) if self._n else 0.0
        with torch.no_grad():
            for old, new in zip(_state(self.model), _state(self._source), strict=True):
                if self._n and old.is_floating_point():
                    old.lerp_(new, 1 - decay)
                else:  # the batches that batch norm has seen
                    old.copy_(new)
        self._n += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns the average and how many steps are in it."""
        self._averaged.n_averaged.fill_(self._n)
        return self._averaged.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from an average that `state_dict` returned."""
        self._averaged.load_state_dict(state)
        self._n = int(self._averaged.n_averaged)


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]

"""A long training that may be stopped at any moment: of so many epochs, or of so many seconds."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.arguments import check_int, check_number
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import FitnessError
from evonas.training import checkpoint as checkpoints
from evonas.training.cuda_graphs import step_of
from evonas.training.data.batches import Augment, Batch, BatchSource
from evonas.training.loop import AveragedWeights, run_epoch
from evonas.training.step import LossFunction

__all__ = ["Progress", "fit_resumable"]

MakeScheduler = Callable[[Optimizer, int], LRScheduler | None]

_TICKS = 10_000  # steps of the scheduler of a training whose steps are not known beforehand
_SAVE_EVERY = 15.0  # seconds: what a kill costs at most


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Attributes:
        steps: Batches trained, over all starts.
        epoch: Of the batch to come, from 0.
        batch: Of that epoch, from 0.
        seconds: Spent on it, over all starts.
        share: Of the whole training, from 0 to 1.
        loss: Mean training loss of the last epoch, or of what this start trained of it; NaN before.
    """

    steps: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    share: float = 0.0
    loss: float = math.nan


def fit_resumable(
    model: nn.Module,
    train: BatchSource,
    *,
    batch_size: int,
    optimizer: Optimizer,
    scheduler: MakeScheduler,
    seed: int,
    loss_function: LossFunction,
    checkpoint: Path,
    identity: Mapping[str, Any],
    n_epochs: int | None = None,
    seconds: float | None = None,
    precision: str = "float32",
    augment: Augment | None = None,
    grad_clip: float | None = None,
    ema: float = 0.0,
    cuda_graphs: bool | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
    """Trains `model` in place, from where its checkpoint is, to the end.

    The checkpoint (weights, optimizer, averaged weights, random state) is written every 15 seconds
    and at the end; a training of `n_epochs` that was killed and goes on ends with the same bits as
    one that was not (on a CPU). One of `seconds` ends when they are spent: the schedule of the
    learning rate is stretched over the time, whatever the machine makes of it.

    Args:
        model: On the device of the data.
        train: Shuffled anew each epoch; the last batch of an epoch is left out where it is smaller.
        batch_size: Examples a step.
        optimizer: Of the model, not stepped yet.
        scheduler: `(optimizer, n_steps)` to what is stepped after each of them, or None.
        seed: Of the order and the augmentation of each epoch.
        loss_function: `(outputs as float32, targets)` to a scalar tensor (a mean).
        checkpoint: The file. One that is damaged or of another `identity` is left, with a warning.
        identity: What the training is of (genes, data, settings), as JSON.
        n_epochs: Passes over the examples; or
        seconds: Seconds to train, over all starts.
        precision: `float32` or `bfloat16`.
        augment: Applied to each batch.
        grad_clip: Greatest norm of the gradient. None: not clipped.
        ema: Decay of a moving average of the weights, which is in the model at the end. 0: none.
        cuda_graphs: See `evonas.training.fit`.
        report: Called after each epoch and at the end.

    Raises:
        ValueError: Not exactly one of `n_epochs` and `seconds` is given, or it is out of range.
        FitnessError: The loss is not finite.
        RunStorageError: The checkpoint cannot be written.
    """
    if (n_epochs is None) == (seconds is None):
        raise ValueError("give one of n_epochs and seconds")
    if n_epochs is not None:
        check_int("n_epochs", n_epochs, minimum=1)
    else:
        check_number("seconds", seconds, above=0)
    step = step_of(
        model, optimizer, loss_function,
        grad_clip=grad_clip, precision=precision, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    drop_last = len(train) > batch_size
    per_epoch = len(train) // batch_size if drop_last else 1
    training = _Training(
        model, optimizer, scheduler, checkpoint, dict(identity), per_epoch,
        n_steps=None if n_epochs is None else n_epochs * per_epoch, limit=seconds, ema=ema,
    )  # fmt: skip
    while not training.is_over:
        epoch = training.progress.epoch
        batches = train.batches(
            batch_size,
            seed=derive_seed(seed, "epoch", epoch),
            shuffle=True,
            augment=augment,
            drop_last=drop_last,
        )
        loss = run_epoch(step, training.those_left(batches), [training.step])
        if not math.isfinite(loss):
            raise FitnessError(
                f"the training diverged in epoch {epoch + 1}, with a learning rate of up to "
                f"{optimizer.defaults['lr']:.3g}: take a smaller one"
            )
        training.loss = loss
        if report is not None:
            report(training.progress)
    return training.end()


class _Training:
    """One start of a training: where it is, when it is over, and what it writes."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: MakeScheduler,
        checkpoint: Path,
        identity: dict[str, Any],
        per_epoch: int,
        *,
        n_steps: int | None,
        limit: float | None,
        ema: float,
    ) -> None:
        self._model, self._optimizer, self._checkpoint = model, optimizer, checkpoint
        self._identity, self._per_epoch = identity, per_epoch
        self._n_steps, self._limit = n_steps, limit
        self._scheduler = scheduler(optimizer, n_steps or _TICKS)
        self._averaged = AveragedWeights(model, ema) if ema else None
        self._steps, self._spent, self._ticks = 0, 0.0, 0
        self.loss = math.nan
        self._device = next(model.parameters()).device
        self._began = self._saved = time.monotonic()
        self._load()

    @property
    def seconds(self) -> float:
        """Spent so far, over all starts."""
        return self._spent + time.monotonic() - self._began

    @property
    def share(self) -> float:
        """Of the whole training."""
        if self._n_steps is not None:
            return min(1.0, self._steps / self._n_steps)
        return min(1.0, self.seconds / (self._limit or math.inf))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left; at least one step is always taken."""
        return self._steps > 0 and self.share >= 1

    @property
    def progress(self) -> Progress:
        """Where it is."""
        epoch, batch = divmod(self._steps, self._per_epoch)
        return Progress(self._steps, epoch, batch, self.seconds, self.share, self.loss)

    def those_left(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields the batches of this epoch that are to be trained, until the time is over."""
        done = self._steps % self._per_epoch
        for place, batch in enumerate(batches):
            if place < done:
                continue
            yield batch
            if self.is_over:
                return

    def step(self) -> None:
        """Counts a step: averages the weights, moves the learning rate, saves now and then."""
        self._steps += 1
        if self._averaged is not None:
            self._averaged.update()
        self._advance()
        if time.monotonic() - self._saved >= _SAVE_EVERY:
            self._save()

    def end(self) -> Progress:
        """Saves, and puts the averaged weights into the model."""
        found = self.progress
        self._save()
        if self._averaged is not None:
            self._model.load_state_dict(self._averaged.model.state_dict())
        return found

    def _advance(self) -> None:
        """Steps the scheduler up to where the training is."""
        target = self._steps if self._n_steps is not None else int(self.share * _TICKS)
        while self._scheduler is not None and self._ticks < target:
            self._ticks += 1
            self._scheduler.step()

    def _save(self) -> None:
        state = {
            "identity": self._identity,
            "steps": self._steps,
            "seconds": self.seconds,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            **checkpoints.random_state(self._device),
        }
        checkpoints.write(self._checkpoint, state)
        self._saved = time.monotonic()

    def _load(self) -> None:
        state = checkpoints.read(self._checkpoint, self._identity)
        if state is not None:
            self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        checkpoints.restore_random_state(state, self._device)
        self._steps, self._spent = state["steps"], state["seconds"]
        self._began = time.monotonic()
        with warnings.catch_warnings():  # torch holds a scheduler that steps first to be a mistake
            warnings.simplefilter("ignore", UserWarning)
            self._advance()

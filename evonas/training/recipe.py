"""How a model is trained: epochs, batches, optimizer, schedule, as settings that genes may name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from evonas.arguments import check_choice, check_int, check_number
from evonas.space.gene import Gene
from evonas.space.genes import Float, Integer

__all__ = ["TRAINING_GENES", "OptimizerName", "Schedule", "Training"]

Schedule = Literal["constant", "linear", "cosine", "one_cycle"]
OptimizerName = Literal["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]

_WARMUP_SHARE = 0.1  # of the steps of the schedule `linear`


@dataclass(frozen=True)
class Training:
    """The settings of a training; those named by genes are a search's to choose.

    Attributes:
        n_epochs: Passes over the training examples.
        batch_size: Examples a step.
        optimizer: `sgd`, `nesterov`, `adam`, `adamw`, `rmsprop` or `adagrad`.
        lr: Learning rate; the largest of a schedule.
        momentum: Of SGD and RMSprop; the first beta of Adam and AdamW.
        weight_decay: Of all parameters.
        schedule: `constant`; `linear`: rises for the first tenth of the steps and falls to 0;
            `cosine`: falls to 0 along a half wave; `one_cycle`: torch's `OneCycleLR`.
        label_smoothing: Of the cross entropy.
        ema: Decay of the moving average of the weights that is validated and kept, in [0, 1]; 0:
            the weights themselves. In the first steps it is smaller: `(1 + t) / (10 + t)`.
        grad_clip: Greatest gradient norm. None: not clipped.

    Raises:
        TypeError, ValueError: A setting is something else.

    Example:
        >>> training = Training(n_epochs=3).with_genes({"lr": 0.1, "width": 8})
        >>> training.lr, training.n_epochs
        (0.1, 3)
    """

    n_epochs: int = 5
    batch_size: int = 32
    optimizer: OptimizerName = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: Schedule = "constant"
    label_smoothing: float = 0.0
    ema: float = 0.0
    grad_clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("optimizer", "schedule"):  # as torch writes them: AdamW, one-cycle
            given = getattr(self, name)
            if isinstance(given, str):
                object.__setattr__(self, name, given.lower().replace("-", "_"))
        check_int("n_epochs", self.n_epochs, minimum=1)
        check_int("batch_size", self.batch_size, minimum=1)
        check_choice("optimizer", self.optimizer, get_args(OptimizerName))
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_number("lr", self.lr, above=0)
        check_number("weight_decay", self.weight_decay, minimum=0)
        for name in ("momentum", "label_smoothing", "ema"):
            check_number(name, getattr(self, name), minimum=0, maximum=1)
        if self.grad_clip is not None:
            check_number("grad_clip", self.grad_clip, above=0)

    def with_genes(self, genes: Mapping[str, Any]) -> Training:
        """Returns these settings, with the values of genes that are named like them.

        Raises:
            TypeError, ValueError: A value is none of the setting.
        """
        return replace(self, **{name: genes[name] for name in TRAINING_GENES if name in genes})

    def check_gene(self, words: str, name: str, gene: Gene) -> None:
        """Refuses a gene of a setting whose values the setting cannot all have.

        Args:
            words: What an error calls the gene.
            name: Of the setting.
            gene: Its gene: each choice is tried, or both ends.

        Raises:
            TypeError, ValueError: A value is none of the setting.
        """
        if isinstance(gene, (Integer, Float)):
            values: Sequence[Any] = (gene.low, gene.high)
        else:
            values = getattr(gene, "choices", (False, True))
        for value in values:
            try:
                self.with_genes({name: value})
            except (TypeError, ValueError) as error:
                raise type(error)(f"{words}: {error}") from error

    def fingerprint(self) -> dict[str, Any]:
        """Returns all of it, as JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def n_steps(self, n_examples: int) -> int:
        """Returns how many steps a training on so many examples has."""
        return self.n_epochs * -(-n_examples // self.batch_size)

    def make_optimizer(self, parameters: Any) -> Optimizer:
        """Returns the optimizer of parameters, or of groups of them."""
        betas = (self.momentum, 0.999)
        optimizers: dict[str, Callable[..., Optimizer]] = {
            "sgd": partial(torch.optim.SGD, momentum=self.momentum),
            "nesterov": partial(
                torch.optim.SGD, momentum=self.momentum, nesterov=self.momentum > 0
            ),
            "adam": partial(torch.optim.Adam, betas=betas),
            "adamw": partial(torch.optim.AdamW, betas=betas),
            "rmsprop": partial(torch.optim.RMSprop, momentum=self.momentum),
            "adagrad": torch.optim.Adagrad,
        }
        return optimizers[self.optimizer](parameters, lr=self.lr, weight_decay=self.weight_decay)

    def make_scheduler(self, optimizer: Optimizer, n_steps: int) -> LRScheduler | None:
        """Returns the scheduler that steps after each batch, or None for a constant rate."""
        if self.schedule == "constant":
            return None
        if self.schedule == "one_cycle":
            rates = [group["lr"] for group in optimizer.param_groups]
            # Momentum is a setting of its own, which a cycle would replace.
            return OneCycleLR(optimizer, rates, total_steps=n_steps + 1, cycle_momentum=False)
        shape = {"linear": _linear, "cosine": _cosine}[self.schedule]
        return LambdaLR(optimizer, partial(shape, n_steps=n_steps))


TRAINING_GENES = tuple(field.name for field in fields(Training))
"""Genes of these names are settings of the training; all genes reach the model function."""


def _linear(step: int, *, n_steps: int) -> float:
    warmup = max(1, round(_WARMUP_SHARE * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (n_steps - step) / max(1, n_steps - warmup))


def _cosine(step: int, *, n_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))

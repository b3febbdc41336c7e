"""How each mask is trained, and what a pretrained model is known by."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from evonas.arguments import check_callable, check_choice, check_int, check_number
from evonas.exceptions import DataError
from evonas.freezing.mask import trainable_parameter_groups
from evonas.training import fingerprint_of, seeded
from evonas.training.data.examples import as_bytes

__all__ = ["OptimizerFactory", "Pretrained", "Recipe", "Schedule"]

Schedule = Literal["linear", "constant"]
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
"""Parameter groups (see `trainable_parameter_groups`) to an optimizer of them."""

_WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class Recipe:
    """Epochs, batches, optimizer and learning rate of one fine-tuning."""

    n_epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Schedule
    grad_clip: float | None
    optimizer: OptimizerFactory | None

    def __post_init__(self) -> None:
        check_int("n_epochs", self.n_epochs, minimum=1)
        check_int("batch_size", self.batch_size, minimum=1)
        check_number("lr", self.lr, above=0)
        check_number("weight_decay", self.weight_decay, minimum=0)
        check_choice("schedule", self.schedule, get_args(Schedule))
        if self.grad_clip is not None:
            check_number("grad_clip", self.grad_clip, above=0)
        if self.optimizer is not None:
            check_callable("optimizer", self.optimizer)

    def fingerprint(self) -> dict[str, Any]:
        """Returns all of it, as JSON."""
        own = self.optimizer is not None
        return {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "optimizer": fingerprint_of(self.optimizer) if own else "AdamW",
            "lr": None if own else self.lr,
            "weight_decay": self.weight_decay,
            "schedule": self.schedule,
            "grad_clip": self.grad_clip,
        }

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """Returns an optimizer of what is trainable."""
        groups = trainable_parameter_groups(model, self.weight_decay)
        if self.optimizer is not None:
            return self.optimizer(groups)
        return torch.optim.AdamW(groups, lr=self.lr)

    def make_scheduler(self, optimizer: Optimizer, n_examples: int) -> LambdaLR | None:
        """Returns the scheduler that steps after each batch, or None for a constant rate."""
        if self.schedule == "constant":
            return None
        n_steps = self.n_epochs * -(-n_examples // self.batch_size)
        return LambdaLR(optimizer, functools.partial(_linear, n_steps=n_steps))


def _linear(step: int, *, n_steps: int) -> float:
    warmup = max(1, round(_WARMUP_SHARE * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (n_steps - step) / max(1, n_steps - warmup))


@dataclass(frozen=True)
class Pretrained:
    """What a model factory's models have in common, found by building two under two seeds.

    Attributes:
        identity: SHA-256 of the names and shapes of all parameters and buffers, and of the values
            of those that are the same in both.
        fresh: Names of the parameters that are not: freshly initialised ones.
    """

    identity: str
    fresh: frozenset[str]

    @classmethod
    def of(cls, factory: Callable[[], nn.Module]) -> tuple[Pretrained, nn.Module]:
        """Returns what is known of the factory's models, and one of them.

        Raises:
            TypeError: It returns no module.
            ValueError: It returns the same model twice.
            DataError: It returns models of different parameters.
        """
        models = []
        for seed in (0, 1):
            with seeded(seed):
                models.append(factory())
            if not isinstance(models[-1], nn.Module):
                raise TypeError(
                    f"model_factory must return a torch.nn.Module, got {type(models[-1]).__name__}"
                )
        first, second = (dict(model.state_dict(keep_vars=True)) for model in models)
        shared = {tensor.data_ptr() for tensor in first.values() if tensor.numel()}
        if any(tensor.data_ptr() in shared for tensor in second.values() if tensor.numel()):
            raise ValueError(
                "model_factory must return a new model with the pretrained weights at each call, "
                "but two calls share weights, so each training would begin where another ended: "
                "return copy.deepcopy(model), or load it in the factory"
            )
        shapes = [
            [(name, tuple(tensor.shape)) for name, tensor in entries.items()]
            for entries in (first, second)
        ]
        if shapes[0] != shapes[1]:
            raise DataError("model_factory returned two models of different parameters")
        digest = hashlib.sha256(repr(shapes[0]).encode())
        fresh = []
        for name, tensor in first.items():
            if torch.equal(tensor, second[name]):
                digest.update(as_bytes(tensor))
            else:
                fresh.append(name)
        return cls(digest.hexdigest(), frozenset(fresh)), models[0]

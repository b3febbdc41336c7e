"""One step of a training: forward pass, loss, backward pass, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from evonas.training.data.structure import map_tensors
from evonas.training.passes import outputs_of
from evonas.training.precision import autocast
from evonas.training.targets import NoOuterBroadcast, check_loss

__all__ = [
    "LossFunction",
    "TrainingStep",
    "as_float32",
    "check_optimizer",
    "device_of",
    "use_fused",
]

LossFunction = Callable[[Any, Any], Tensor]

_FUSED = ("cpu", "cuda")  # devices that have torch's fused optimizers


class TrainingStep:
    """One step of a training: forward pass, loss, backward pass, optimizer."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_function: LossFunction,
        *,
        grad_clip: float | None = None,
        precision: str = "float32",
    ) -> None:
        self.model, self.optimizer, self.loss_function = model, optimizer, loss_function
        self.grad_clip, self.precision = grad_clip, precision
        self.device = device_of(model)
        self._trainable = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, inputs: Any, targets: Any, *, is_first: bool = False) -> Tensor:
        """Returns the loss of the batch before the step; it is looked at if it is the first."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.precision, self.device):
            outputs = outputs_of(self.model, inputs)
        with NoOuterBroadcast("the loss") if is_first else nullcontext():
            loss = self.loss_function(as_float32(outputs), targets)
        if is_first:
            check_loss(loss, "the loss")
        loss.backward()  # type: ignore[no-untyped-call]
        if self.grad_clip is not None:
            _clip_gradient(self._trainable, self.grad_clip)
        self.optimizer.step()
        return loss.detach()


def check_optimizer(
    optimizer: object, wanted: Iterable[Tensor], way_out: str, *, may_lack_some: bool = False
) -> None:
    """Refuses what a function of the user's returned in place of an optimizer of some parameters.

    Args:
        optimizer: What it returned.
        wanted: Parameters of the model that is trained.
        way_out: What to return instead, for the error.
        may_lack_some: Whether it is refused only where it has none of them.

    Raises:
        TypeError: It is no optimizer.
        ValueError: It lacks some: says how many.
    """
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer= must return an optimizer, got {optimizer!r}: {way_out}")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    wanted_ids = {id(p) for p in wanted}
    missing = wanted_ids - held
    if missing and not (may_lack_some and wanted_ids & held):
        raise ValueError(
            f"optimizer= must return an optimizer of the model that it is given, but of its "
            f"{len(wanted_ids)} parameters {len(missing)} are missing, which would not be trained "
            f"(the optimizer has {len(held - wanted_ids)} others): {way_out}"
        )


def use_fused(optimizer: Optimizer) -> None:
    """Switches an optimizer that has not stepped and leaves it to torch to its fused form."""
    if not isinstance(optimizer, (torch.optim.SGD, torch.optim.Adam)) or optimizer.state:
        return
    for group in optimizer.param_groups:
        undecided = group.get("fused") is None and group.get("foreach") is None
        plain = not (group.get("differentiable") or group.get("capturable"))
        able = all(p.is_floating_point() and p.device.type in _FUSED for p in group["params"])
        if undecided and plain and able:
            group["fused"] = True


def _clip_gradient(parameters: list[nn.Parameter], max_norm: float) -> None:
    """Does what `clip_grad_norm_` does, to the bit, and leaves out a multiplication by 1."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # Only where looking at the norm does not stall a device.
    if norm.device.type == "cpu" and bool(max_norm / (norm + 1e-6) >= 1):
        return
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)


def as_float32(outputs: Any) -> Any:
    """Returns outputs with their floating-point tensors as float32."""
    return map_tensors(lambda t: t.float() if t.is_floating_point() else t, outputs)


def device_of(model: nn.Module) -> torch.device:
    """Returns where the first parameter of a model is."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device

"""One forward pass of any model, and its modules' train or eval modes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from evonas.execution.model_calls import call_model, modes_kept

__all__ = ["call_model", "evaluating", "forward", "materialise", "modes_kept", "outputs_of"]


def outputs_of(model: nn.Module, inputs: Any) -> Any:
    """Returns what the model returns: its `logits` where it returns an object or dict with them.

    Raises:
        TypeError: See `call_model`.
    """
    outputs = call_model(model, inputs)
    if isinstance(outputs, Mapping):
        return outputs.get("logits", outputs)
    return getattr(outputs, "logits", outputs)


def forward(model: nn.Module, inputs: Any) -> Tensor:
    """Returns the model's output tensor: its `logits` where it returns an object or dict with them.

    Raises:
        TypeError: See `call_model`; or it returns neither.
    """
    outputs = outputs_of(model, inputs)
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model must return a tensor, an object with .logits or a dict with 'logits', "
            f"got {type(outputs).__name__}: wrap it in a module whose forward returns the tensor"
        )
    return outputs


def materialise(model: nn.Module, inputs: Any) -> nn.Module:
    """Gives lazy layers (`nn.LazyLinear`) their shapes by a pass of some inputs.

    Args:
        model: Returned; nothing is done where it has no such layers.
        inputs: A batch, or a function that makes one where it is needed.
    """
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        with modes_kept(model), torch.no_grad():
            model.eval()
            call_model(model, inputs() if callable(inputs) else inputs)
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts the model in evaluation mode, without gradients; restores each module's mode."""
    with modes_kept(model), torch.inference_mode():
        model.eval()
        yield

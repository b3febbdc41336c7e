"""One call of any model, and its modules' train or eval modes: what trials and trainings share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["call_model", "modes_kept"]


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Returns what the model returns for a tensor, a mapping of keywords, or a tuple or list.

    Raises:
        TypeError: The inputs are something else, or float64 where the model's weights are float32.
    """
    import torch

    try:
        if isinstance(inputs, torch.Tensor):
            return model(inputs)
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, Sequence):
            return model(*inputs)
    except RuntimeError as error:
        if is_too_wide(model, inputs, error):
            raise TypeError(
                "the inputs are float64 and the model's weights are float32: pass inputs.float()"
            ) from error
        raise
    raise TypeError(
        f"inputs must be a tensor, a mapping of keyword arguments or a tuple of positional ones, "
        f"got {type(inputs).__name__}"
    )


def is_too_wide(model: nn.Module, inputs: Any, error: RuntimeError) -> bool:
    """Whether a model failed because numpy's floats, float64, came to weights in float32."""
    import torch

    if not any(word in str(error) for word in ("dtype", "type", "Double")):
        return False
    parts = list(inputs.values()) if isinstance(inputs, Mapping) else inputs
    parts = [parts] if isinstance(parts, torch.Tensor) else list(parts)
    weights = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    wide = any(isinstance(each, torch.Tensor) and each.dtype == torch.float64 for each in parts)
    return wide and weights == {torch.float32}


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Puts every module's train or eval mode back at the end, one by one."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

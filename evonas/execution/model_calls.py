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
        TypeError: The inputs are something else.
    """
    import torch

    if isinstance(inputs, torch.Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, Sequence):
        return model(*inputs)
    raise TypeError(
        f"inputs must be a tensor, a mapping of keyword arguments or a tuple of positional ones, "
        f"got {type(inputs).__name__}"
    )


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Puts every module's train or eval mode back at the end, one by one."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

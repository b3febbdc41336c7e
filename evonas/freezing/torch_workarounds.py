"""What torch and transformers do wrong behind frozen modules, set right while a mask is applied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["apply_workarounds", "padded_tensors"]

_CHECKPOINT = "_gradient_checkpointing_func"  # where transformers keeps it, on each module
_NESTED = "use_nested_tensor"


def apply_workarounds(model: nn.Module, *, is_frozen: bool) -> list[Callable[[], None]]:
    """Works around what fails behind frozen modules; returns the functions that undo it.

    Args:
        model: Changed in place.
        is_frozen: Whether anything is. Encoders are kept from nested tensors either way, so that
            all masks are trained and evaluated alike.
    """
    return [*(_fix_checkpointing(model) if is_frozen else []), *_fix_nested_tensors(model)]


@contextmanager
def padded_tensors(model: nn.Module) -> Iterator[None]:
    """Keeps every `nn.TransformerEncoder` from making nested tensors.

    It makes them of inputs with a padding mask where its *first* layer is in eval mode without
    gradients, and does not look at the others: a layer that is trained behind a frozen one then
    raises, as does, on a CPU under autocast to bfloat16, every layer. Nor do they have a shape.
    """
    undo = _fix_nested_tensors(model)
    try:
        yield
    finally:
        for step in undo:
            step()


def _fix_checkpointing(model: nn.Module) -> list[Callable[[], None]]:
    undo: list[Callable[[], None]] = []
    for module in model.modules():
        function = module.__dict__.get(_CHECKPOINT)
        if function is checkpoint:
            function = functools.partial(checkpoint)
        if isinstance(function, functools.partial) and function.keywords.get("use_reentrant", True):
            earlier = module.__dict__[_CHECKPOINT]
            module.__dict__[_CHECKPOINT] = functools.partial(function, use_reentrant=False)
            undo.append(functools.partial(_set, module, _CHECKPOINT, earlier))
        if module.__dict__.get("_require_grads_hooks") or "_require_grads_hook" in module.__dict__:
            module.disable_input_require_grads()  # type: ignore[operator]
            undo.append(module.enable_input_require_grads)  # type: ignore[arg-type]
    return undo


def _fix_nested_tensors(model: nn.Module) -> list[Callable[[], None]]:
    undo: list[Callable[[], None]] = []
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            undo.append(functools.partial(_set, module, _NESTED, True))
            _set(module, _NESTED, False)
    return undo


def _set(module: nn.Module, name: str, value: Any) -> None:
    module.__dict__[name] = value

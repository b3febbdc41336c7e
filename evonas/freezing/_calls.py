"""Which modules a forward pass calls, when, and what they return: by forward hooks.

`torch.fx` fails on BERT and GPT-2 (data-dependent Python in their forwards); hooks see every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evonas.execution.accelerator import (
    generator_state,
    is_accelerator,
    seed_generator,
    set_generator_state,
)
from evonas.training.passes import call_model

__all__ = ["ModuleCall", "record_calls", "rng_kept"]


@dataclass(slots=True)
class ModuleCall:
    """One call of a module during a forward pass.

    Attributes:
        path: The module's first name in `named_modules()`.
        start: Position of the call's beginning among all beginnings and ends.
        end: Position of its end; None where the call raised.
        output: What `summarise` made of what the module returned.
    """

    path: str
    start: int
    end: int | None = None
    output: Any = None


def record_calls(
    model: nn.Module, inputs: Any, summarise: Callable[[Any], Any] | None = None
) -> list[ModuleCall]:
    """Returns the calls of one forward pass of `inputs`, in the order in which they began.

    Runs without gradients and in the modes that the modules are in; hooks are removed again.

    Args:
        model: Left as it is, except for what its forward itself changes.
        inputs: See `call_model`.
        summarise: Called with each module's return value; what it returns is kept. None: nothing
            is kept, so that activations are freed as usual.
    """
    calls: list[ModuleCall] = []
    clock = 0
    open_calls: dict[str, list[ModuleCall]] = {}
    handles = []

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            nonlocal clock
            call = ModuleCall(path, clock)
            clock += 1
            calls.append(call)
            open_calls.setdefault(path, []).append(call)

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal clock
            call = open_calls[path].pop()
            call.end = clock
            clock += 1
            if summarise is not None:
                call.output = summarise(output)

        return hook

    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(before(path)))
            handles.append(module.register_forward_hook(after(path)))
        with torch.no_grad():
            call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@contextmanager
def rng_kept(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Puts torch's random numbers (CPU and the model's devices) back at the end.

    Args:
        model: Says which devices.
        seed: Seeds them for the block; None leaves them as they are.
    """
    used = {p.device for p in model.parameters() if is_accelerator(p.device)}
    devices = {torch.device("cpu"), *used}
    before = {device: generator_state(device) for device in devices}
    try:
        if seed is not None:
            for device in devices:
                seed_generator(seed, device)
        yield
    finally:
        for device, state in before.items():
            set_generator_state(state, device)

"""What a model costs: weights, multiply-adds, and the time of a forward pass on a device."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from evonas.execution.accelerator import synchronize
from evonas.training.passes import call_model, evaluating
from evonas.training.precision import autocast

__all__ = [
    "COUNTED",
    "MEASURED",
    "count_macs",
    "count_params",
    "latency_of_pass",
    "macs_of_pass",
    "measure_latency",
]

COUNTED = ("params", "macs")
"""Costs that follow from the network; always on record."""

MEASURED = ("latency", "train_seconds")
"""Costs that depend on the machine and on what else it does; on record where they are asked for."""

_WARM_UP = 3
_MIN_PASSES, _MAX_PASSES = 5, 50
_MAX_SECONDS = 0.5


def count_params(model: nn.Module) -> int:
    """Returns the number of weights; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, in_shape: tuple[int, ...]) -> int:
    """Returns the multiply-adds of one image: half the operations that torch counts.

    Args:
        model: Put in evaluation mode meanwhile; on the `meta` device the pass costs neither memory
            nor arithmetic (some 5 ms of bookkeeping).
        in_shape: Of one image, `(C, H, W)`.

    Example:
        >>> with torch.device("meta"):
        ...     model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))
        >>> count_macs(model, (3, 8, 8))  # 8 kernels of 3x3x3 at 6x6 places, and 2880 weights
        10656
    """
    return macs_of_pass(model, torch.empty(1, *in_shape, device=next(model.parameters()).device))


def macs_of_pass(model: nn.Module, inputs: Any) -> int:
    """Returns the multiply-adds of a forward pass on inputs of any structure."""
    # Torch does not count the fused attention of a CPU: carried out as matrix products, it does.
    as_products = sdpa_kernel(SDPBackend.MATH)
    with evaluating(model), as_products, FlopCounterMode(display=False) as counter:
        call_model(model, inputs)
    return int(counter.get_total_flops()) // 2


def measure_latency(
    model: nn.Module, in_shape: tuple[int, ...], *, batch_size: int = 1, precision: str = "float32"
) -> float:
    """Returns the median time of a forward pass on the model's device, in milliseconds.

    After some passes to warm up, at least 5 and at most 50 passes in about half a second; on a
    CUDA device each waits until the device is done.

    Args:
        model: Put in evaluation mode meanwhile.
        in_shape: Of one image, `(C, H, W)`.
        batch_size: Images in a pass.
        precision: `float32` or `bfloat16`.

    Example:
        >>> measure_latency(nn.Conv2d(3, 8, 3), (3, 32, 32)) > 0
        True
    """
    device = next(model.parameters()).device
    # As batches of a training come: see `Examples`.
    images = torch.zeros(batch_size, *in_shape, device=device).to(memory_format=torch.channels_last)
    return latency_of_pass(model, images, precision=precision)


def latency_of_pass(model: nn.Module, inputs: Any, *, precision: str = "float32") -> float:
    """Returns the same of inputs of any structure, which lie on the model's device."""
    device = next(model.parameters()).device
    seconds: list[float] = []
    # In evaluation mode: on a batch of one, batch norm could not train.
    with evaluating(model), autocast(precision, device):
        for _ in range(_WARM_UP):
            _timed_pass(model, inputs, device)
        while len(seconds) < _MIN_PASSES or (
            len(seconds) < _MAX_PASSES and sum(seconds) < _MAX_SECONDS
        ):
            seconds.append(_timed_pass(model, inputs, device))
    return 1000 * statistics.median(seconds)


def _timed_pass(model: nn.Module, inputs: Any, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    call_model(model, inputs)
    synchronize(device)
    return time.perf_counter() - began

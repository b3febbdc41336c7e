"""Which arithmetic to train in: decided once a run, by trying it."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from evonas.arguments import check_choice
from evonas.execution.accelerator import synchronize
from evonas.execution.torch_env import torch_threads

__all__ = ["CHOICES", "Precision", "as_precision", "autocast", "choose_precision"]

Precision = Literal["float32", "bfloat16"]

_log = logging.getLogger(__name__)

CHOICES: dict[Precision, str] = {
    "float32": "trains and scores in float32: bfloat16 is not faster here",
    "bfloat16": "trains and scores in bfloat16, which is faster here; in float32 the weights may "
    'score slightly otherwise (precision="float32" for equal numbers)',
}
"""What is said of a precision that was chosen by a measurement."""

_ROUNDS = 3
_MARGIN = 1.1  # bfloat16 must be so much faster: below that, float32's digits are worth more


def choose_precision(device: str | torch.device = "cpu", threads: int = 1) -> Precision:
    """Returns the precision in which a small convolutional network trains faster here.

    A small network is trained for a few steps both ways (on a CPU a third of a second), since a
    device may offer bfloat16 and still be slower in it: a processor that emulates it, a GPU that
    waits for kernels to be launched, of which the conversions are more. A GPU without bfloat16
    (compute capability below 8.0) and devices of other kinds get float32. Ask once a run and store
    the answer.

    Args:
        device: Where to train.
        threads: With how many threads a trial computes. Both ways are measured in one whatever it
            is, by the processor time of that thread: on a loaded machine the clock gave ratios
            from 0.3 to 0.8 in two threads where this gives 1.5 to 1.8 every time (EPYC 9004).

    Raises:
        ValueError: `threads` is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    device = torch.device(device)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            _log.info("%s has no bfloat16 (compute capability %s): float32", device, capability)
            return "float32"
        return _measured(device)
    if device.type != "cpu":
        return "float32"
    with torch_threads(1):
        return _measured(device)


def as_precision(value: str) -> Precision:
    """Returns `value` as a `Precision`.

    Raises:
        ValueError: It is neither `float32` nor `bfloat16`.
    """
    check_choice("precision", value, get_args(Precision))
    return cast("Precision", value)


def autocast(precision: str, device: str | torch.device) -> AbstractContextManager[Any]:
    """Returns the context in which a forward pass runs in `precision` on `device`.

    Raises:
        ValueError: `precision` is unknown.
    """
    if as_precision(precision) == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def _measured(device: torch.device) -> Precision:
    step = _Step(device)
    seconds: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}
    for precision in seconds:
        step(precision)  # the first step of each compiles its kernels
    for _ in range(_ROUNDS):  # alternately, so that a change of the clock rate hits both
        for precision, taken in seconds.items():
            began = _now(device)
            step(precision)
            taken.append(_now(device) - began)
    ratio = min(seconds["float32"]) / min(seconds["bfloat16"])
    return "bfloat16" if ratio > _MARGIN else "float32"


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.thread_time()
    synchronize(device)  # else it would be the time of launching the kernels
    return time.perf_counter()


class _Step:
    """One forward and backward pass of convolutions and a linear layer, as an AlexNet has them."""

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = [(64, 3, 5, 5), (128, 64, 3, 3), (128, 128, 3, 3), (1024, 128 * 16)]
        self.weights = [
            _channels_last(torch.randn(shape, generator=generator) * 0.05)
            .to(device)
            .requires_grad_()
            for shape in shapes
        ]
        n = 32 if device.type == "cpu" else 128  # as many as a GPU is usually given
        images = torch.randn(n, 3, 16, 16, generator=generator)
        self.images = _channels_last(images).to(device)
        self.device = device

    def __call__(self, precision: Precision) -> None:
        with autocast(precision, self.device):
            x = functional.relu(functional.conv2d(self.images, self.weights[0], padding=2))
            x = functional.relu(functional.conv2d(x, self.weights[1], stride=2, padding=1))
            x = functional.relu(functional.conv2d(x, self.weights[2], stride=2, padding=1))
            x = functional.linear(x.flatten(1), self.weights[3])
        x.float().square().mean().backward()  # type: ignore[no-untyped-call]
        for weight in self.weights:
            weight.grad = None


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

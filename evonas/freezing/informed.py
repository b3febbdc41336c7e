"""What rules that look at a model's weights and gradients would train of it, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evonas.freezing.blocks import Block
from evonas.training.passes import forward

__all__ = ["relative_gradients", "signal_to_noise"]

_SD_OF_IQR = 1.349  # quartiles of a normal distribution are so many standard deviations apart


def relative_gradients(
    model: nn.Module,
    blocks: Sequence[Block],
    batch: tuple[Any, Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
) -> list[float]:
    """Returns for each block the norm of its gradient by that of its weights, the largest being 1.

    Args:
        model: In the mode in which it is trained; its gradients are None afterwards.
        blocks: Of the model.
        batch: Inputs and targets of training examples.
        loss_function: Of outputs and targets.

    Source:
        The relative gradient norm of Auto-RGN: Lee et al. (2022), "Surgical fine-tuning improves
        adaptation to distribution shifts", section 5; there it is taken anew at each step.
    """
    inputs, targets = batch
    torch.autograd.backward(loss_function(forward(model, inputs).float(), targets))
    found = []
    for block in blocks:
        parameters = [model.get_parameter(name) for name in block.parameters]
        gradient = _norm([p.grad for p in parameters if p.grad is not None])
        found.append(gradient / max(_norm(parameters), 1e-12))
    model.zero_grad(set_to_none=True)
    largest = max(found)
    return [value / largest if largest else 0.0 for value in found]


def signal_to_noise(model: nn.Module, blocks: Sequence[Block]) -> list[float]:
    """Returns for each block the mean signal-to-noise ratio of its weight matrices.

    Of a matrix: the sum of the singular values above what noise of its size would have, by the sum
    of the others, by the largest. 0 for a block without a matrix.

    Args:
        model: Its weights are read.
        blocks: Of the model.

    Source:
        Hartford et al. (2024), "Spectrum: targeted training on signal to noise ratio", section 3.2,
        with the threshold of Marchenko and Pastur and a standard deviation from the quartiles of
        the singular values. There modules of one kind are ranked; here it is whole blocks.
    """
    found = []
    for block in blocks:
        matrices = [p for n in block.parameters if (p := model.get_parameter(n)).ndim > 1]
        ratios = [_ratio(matrix.detach().cpu().flatten(1).double()) for matrix in matrices]
        found.append(sum(ratios) / len(ratios) if ratios else 0.0)
    return found


def _ratio(matrix: Tensor) -> float:
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    # Of the small square of the matrix: a tenth of the time of its own decomposition.
    values = torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0).sqrt()
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype))
    sigma = float(quartiles[1] - quartiles[0]) / _SD_OF_IQR
    threshold = sigma * (1.0 + (matrix.shape[0] / matrix.shape[1]) ** 0.5)
    signal = float(values[values > threshold].sum())
    noise = float(values[values <= threshold].sum())
    largest = float(values.max())
    if largest == 0.0:
        return 0.0
    return signal / max(noise, 1e-12 * largest) / largest


def _norm(tensors: Sequence[Tensor]) -> float:
    if not tensors:
        return 0.0
    return float(torch.stack([tensor.detach().float().norm() for tensor in tensors]).norm())

"""Whether loss and metric fit the model's outputs and the targets, before a number is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evonas.training.passes import evaluating, forward

__all__ = ["NoOuterBroadcast", "check_loss", "check_targets"]

_BROADCASTING_LOSSES = {
    "gaussian_nll_loss", "huber_loss", "l1_loss", "mse_loss", "poisson_nll_loss",
    "smooth_l1_loss", "soft_margin_loss",
}  # fmt: skip


class NoOuterBroadcast(TorchFunctionMode):
    """Refuses to combine `(N, 1)` with `(N,)`: torch makes `(N, N)` of them, and a wrong number.

    Args:
        where: What is computed inside, for the error: "the loss", "the metric".

    Example:
        >>> with NoOuterBroadcast("the loss"):
        ...     torch.nn.functional.mse_loss(torch.zeros(3, 1), torch.zeros(3))
        Traceback (most recent call last):
        ...
        ValueError: the loss combines tensors of shapes (3, 1) and (3,), which torch broadcasts
        to (3, 3): give both one shape, with outputs.squeeze(1) or targets.unsqueeze(1)
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)][:2]
        is_loss = getattr(func, "__name__", "") in _BROADCASTING_LOSSES
        wide = _outer_shape(*operands) if len(operands) == 2 else None
        if wide is not None and is_loss:
            raise ValueError(self._message(operands, wide))
        result = func(*args, **kwargs)
        if wide is not None and isinstance(result, Tensor) and tuple(result.shape) == wide:
            raise ValueError(self._message(operands, wide))
        return result

    def _message(self, operands: list[Tensor], wide: tuple[int, ...]) -> str:
        first, second = (tuple(operand.shape) for operand in operands)
        return (
            f"{self._where} combines tensors of shapes {first} and {second}, which torch "
            f"broadcasts to {wide}: give both one shape, with outputs.squeeze(1) or "
            "targets.unsqueeze(1)"
        )


def _outer_shape(first: Tensor, second: Tensor) -> tuple[int, ...] | None:
    """Returns the shape of an elementwise result that is larger than both, for one batch of each.

    None where there is none, or it may be meant: both have as many dimensions.
    """
    shapes = tuple(first.shape), tuple(second.shape)
    if len(shapes[0]) == len(shapes[1]) or not all(shapes) or shapes[0][0] != shapes[1][0]:
        return None
    try:
        wide = tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None
    return wide if wide not in shapes else None


def check_targets(
    model: nn.Module,
    sample: Any,
    targets: Mapping[str, Tensor],
    *,
    loss_function: Callable[[Tensor, Tensor], Tensor] | None,
    metric: Any,
    loss_argument: str = "loss_function",
) -> None:
    """Refuses targets that the loss or the default metric would compute something else of.

    Cross entropy (`loss_function` None) takes class numbers int64 `(N,)` for outputs `(N, C)`;
    its outputs of another shape (one for each token or pixel) are left to the training. Accuracy
    (`metric` None) takes outputs `(N, C)` with C of 2 or more and int64 `(N,)`. A loss of the
    user's is tried on the sample.

    Args:
        model: Is called once on the sample; its modules' modes are kept.
        sample: Inputs of the first examples.
        targets: By the name of the part; the first part's first are the sample's.
        loss_function: None: cross entropy.
        metric: None: accuracy.
        loss_argument: What the caller calls its argument for a loss, for the errors.

    Raises:
        ValueError: They do not fit; says the shapes and what to pass.
    """
    with evaluating(model):
        outputs = forward(model, sample).float()
    if metric is None:
        _check_accuracy(outputs, targets, loss_argument)
    if loss_function is None:
        _check_cross_entropy(outputs, targets, loss_argument)
    else:
        first = next(iter(targets.values()))[: len(outputs)]
        with NoOuterBroadcast(loss_argument):
            loss = loss_function(outputs.clone(), first.to(outputs.device))
        check_loss(loss, loss_argument)


def check_loss(loss: Any, loss_argument: str) -> None:
    """Refuses what a loss returns that no training can go by.

    Raises:
        ValueError: It is not one number.
    """
    if isinstance(loss, Tensor) and loss.numel() != 1:
        raise ValueError(
            f"{loss_argument} must return one number, the loss of a batch, got a tensor "
            f'{tuple(loss.shape)}: take its mean (losses of torch: reduction="mean")'
        )


def _check_accuracy(outputs: Tensor, targets: Mapping[str, Tensor], loss_argument: str) -> None:
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"accuracy, the metric where none is given, takes outputs (N, C) with at least two "
            f"classes; the model returns {_sized(outputs)}: pass metric=, a function of "
            "(outputs, targets) to a number that is larger for better models"
            + (
                ", e.g. lambda outputs, targets: float(((outputs > 0) == targets).float().mean())"
                if outputs.shape[1:] == (1,)
                else ""
            )
        )
    for name, labels in targets.items():
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise ValueError(
                f"accuracy, the metric where none is given, takes class numbers, int64 (N,); "
                f"the targets of {name} are {_dtype(labels)} {_sized(labels)}: "
                f"{_way_out(labels, outputs.shape[1])}, or pass metric= (and "
                f"{loss_argument}=) for other targets"
            )


def _check_cross_entropy(
    outputs: Tensor, targets: Mapping[str, Tensor], loss_argument: str
) -> None:
    if outputs.ndim != 2:
        return
    n_classes = outputs.shape[1]
    for name, labels in targets.items():
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise ValueError(
                f"cross entropy, the loss where none is given, takes class numbers, int64 (N,); "
                f"the targets of {name} are {_dtype(labels)} {_sized(labels)}: "
                f"{_way_out(labels, n_classes)}, or pass {loss_argument}="
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= n_classes:
            raise ValueError(
                f"labels of {name} must be from 0 to {n_classes - 1}, since the model has "
                f"{n_classes} outputs; got {low if low < 0 else high}: number the classes "
                f"from 0, or give the model more outputs (num_labels)"
            )


def _sized(tensor: Tensor) -> str:
    sizes = ", ".join(["N", *map(str, tensor.shape[1:])])
    return f"({sizes},)" if tensor.ndim == 1 else f"({sizes})"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _way_out(labels: Tensor, n_classes: int) -> str:
    if labels.ndim == 2 and labels.shape[1] == n_classes > 1:
        return "pass labels.argmax(1)"
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "pass labels.squeeze(1)" + ("" if labels.dtype == torch.int64 else ".long()")
    return "pass labels.long()" if labels.ndim == 1 else "pass one number for each example"

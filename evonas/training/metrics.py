"""What a validation is summed up by: accuracy, a mean loss, or any function or streaming metric."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from evonas.objectives import Objective
from evonas.training.data.structure import n_examples

__all__ = ["MeanLoss", "Metric", "StreamingMetric", "accuracy", "objective_of"]

_ERRORS = {
    "mse", "rmse", "msle", "rmsle", "mae", "mape", "smape", "error", "err", "loss", "nll",
    "perplexity", "ppl", "wer", "cer", "brier", "entropy", "deviance", "regret", "distance",
}  # fmt: skip
_TURNED = {"neg", "negative", "minus", "one"}  # as in `neg_mse` and `one_minus_error`

Metric = Callable[[Any, Any], float]
"""`(outputs (N, ...), targets (N, ...))` of all examples to a number."""


@runtime_checkable
class StreamingMetric(Protocol):
    """A metric that takes batch by batch, as those of torchmetrics do."""

    def reset(self) -> Any:
        """Forgets all batches."""

    def update(self, outputs: Any, targets: Any) -> Any:
        """Takes a batch."""

    def compute(self) -> Any:
        """Returns the metric of all batches since `reset`."""


class MeanLoss:
    """The mean of a loss over all examples.

    Args:
        loss_function: `(outputs, targets)` to the mean of a batch.
    """

    def __init__(self, loss_function: Callable[[Any, Any], Tensor]) -> None:
        self._loss_function = loss_function
        self.reset()

    def reset(self) -> None:
        """Forgets all batches."""
        self._sum: float | Tensor = 0.0
        self._n = 0

    def update(self, outputs: Any, targets: Any) -> None:
        """Takes a batch."""
        n = n_examples(targets)
        self._sum = self._sum + self._loss_function(outputs, targets).detach() * n
        self._n += n

    def compute(self) -> float:
        """Returns the mean."""
        return float(self._sum) / self._n


def objective_of(name: str, direction: Literal["max", "min"] | None) -> Objective:
    """Returns the objective of a metric; without a direction it is maximised.

    Raises:
        ValueError: It has no direction, and the name of an error, which would be maximised.

    Example:
        >>> objective_of("f1", None).direction
        'max'
        >>> objective_of("val_mse", None)
        Traceback (most recent call last):
        ...
        ValueError: the metric val_mse would be maximised, and has the name of an error: pass \
objectives=evonas.Objective('val_mse', 'min'), or "max" where larger is better
    """
    words = set(re.findall(r"[a-z]+|[A-Z][a-z]*", name)) | set(name.lower().split("_"))
    said = {word.lower() for word in words}
    if direction is None and said & _ERRORS and not said & _TURNED:
        raise ValueError(
            f"the metric {name} would be maximised, and has the name of an error: pass "
            f"objectives=evonas.Objective({name!r}, 'min'), or \"max\" where larger is better"
        )
    return Objective(name, direction or "max")


def accuracy(outputs: Any, targets: Any) -> float:
    """Returns the share in [0, 1] of examples whose largest output `(N, C)` is their target `(N,)`.

    NaN where an output is NaN: the model has diverged, and its argmax would be a guess.

    Raises:
        TypeError: Outputs or targets are more than one tensor.
        ValueError: The outputs are not `(N, C)` with at least two classes, or the targets not
            class numbers `(N,)`.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        raise TypeError(
            "the model must return a tensor, an object with .logits or a dict with 'logits', and "
            f"targets be one tensor, got {type(outputs).__name__} and {type(targets).__name__}: "
            "pass a metric for others"
        )
    is_scores = outputs.ndim == 2 and outputs.shape[1] > 1
    if not is_scores or targets.shape != outputs.shape[:1] or targets.is_floating_point():
        raise ValueError(
            f"accuracy takes outputs (N, C) with at least two classes and integer targets (N,), "
            f"got {tuple(outputs.shape)} and {targets.dtype} {tuple(targets.shape)}: pass a metric"
        )
    if bool(outputs.isnan().any()):
        return math.nan
    return int((outputs.argmax(1) == targets).sum()) / len(targets)

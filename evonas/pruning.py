"""Ending a training early when others were better after as many epochs."""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evonas.arguments import check_int, made_by
from evonas.objectives import Objective
from evonas.records import Evaluation, Status

__all__ = ["Curves", "MedianPruner", "Pruner", "SuccessiveHalving"]

Curve = Mapping[int, float]
"""Epoch (from 0) to the objective's value that the trial reported then."""


class Pruner(ABC):
    """Decides from the learning curves on record which value a trial must reach by which epoch.

    A trial is sent with its thresholds, a plain table, so pruning works wherever trials run. In a
    generational search they are fixed when a generation is asked for: the run stays exact. A trial
    that reports a worse value than its epoch's threshold ends as `pruned`, with that value: below
    every `ok`, no parent of anything, and not trained again.

    The trial must report the objective by its name each epoch: `trial.report(accuracy=...)`.
    """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns all that determines the thresholds, as JSON; a resumed run must have the same."""

    def __repr__(self) -> str:
        return made_by(self, self.settings())

    @abstractmethod
    def thresholds(self, curves: Sequence[Curve], objective: Objective) -> dict[int, float]:
        """Returns epoch to the worst value with which a trial may go on; other epochs are free.

        Args:
            curves: Of the evaluations so far, in ask order; those of pruned ones are shorter.
            objective: Which direction is better.
        """


class MedianPruner(Pruner):
    """A trial must be at least as good as the median of those that got as far.

    Args:
        min_curves: Curves that an epoch needs before it has a threshold.
        warmup_epochs: First epochs without one.

    Source:
        The median stopping rule of Golovin et al. (2017), "Google Vizier", section 3.2, on the
        values of each epoch instead of running averages.

    Example:
        >>> curves = [{0: 0.1, 1: 0.3}, {0: 0.2, 1: 0.5}, {0: 0.3, 1: 0.4}]
        >>> MedianPruner(min_curves=3).thresholds(curves, Objective("accuracy"))
        {0: 0.2}
    """

    def __init__(self, *, min_curves: int = 5, warmup_epochs: int = 0) -> None:
        check_int("min_curves", min_curves, minimum=1)
        check_int("warmup_epochs", warmup_epochs, minimum=0)
        self._min_curves = min_curves
        self._warmup_epochs = warmup_epochs

    def settings(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            "name": type(self).__name__,
            "min_curves": self._min_curves,
            "warmup_epochs": self._warmup_epochs,
        }

    def thresholds(self, curves: Sequence[Curve], objective: Objective) -> dict[int, float]:
        """Returns the median of each epoch, the last one aside (ending there saves nothing)."""
        table = {}
        for epoch, values in _by_epoch(curves).items():
            if epoch >= self._warmup_epochs and len(values) >= self._min_curves:
                table[epoch] = statistics.median(values)
        return table


class SuccessiveHalving(Pruner):
    """At a few epochs (rungs) only the best share may go on; asynchronous, without waiting.

    Args:
        min_epochs: Epochs before the first rung.
        reduction: Rungs are at `min_epochs * reduction**k` epochs; the best `1 / reduction` of
            those that reached one go on.

    Source:
        Li et al. (2020), "A System for Massively Parallel Hyperparameter Tuning" (ASHA); in its
        stopping variant, where a trial that is not promoted ends.

    Example:
        >>> curves = [{0: 0.1, 1: 0.5}, {0: 0.2}, {0: 0.4, 1: 0.9}, {0: 0.3}]
        >>> SuccessiveHalving(reduction=2).thresholds(curves, Objective("accuracy"))
        {0: 0.3}
    """

    def __init__(self, *, min_epochs: int = 1, reduction: int = 3) -> None:
        check_int("min_epochs", min_epochs, minimum=1)
        check_int("reduction", reduction, minimum=2)
        self._min_epochs = min_epochs
        self._reduction = reduction

    def settings(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            "name": type(self).__name__,
            "min_epochs": self._min_epochs,
            "reduction": self._reduction,
        }

    def thresholds(self, curves: Sequence[Curve], objective: Objective) -> dict[int, float]:
        """Returns the value of the last that goes on, at each rung that enough have reached."""
        table = {}
        by_epoch = _by_epoch(curves)
        n_epochs = self._min_epochs
        while n_epochs - 1 <= max(by_epoch, default=-1):
            values = sorted(by_epoch.get(n_epochs - 1, ()), reverse=objective.direction == "max")
            n_kept = len(values) // self._reduction
            if n_kept:
                table[n_epochs - 1] = values[n_kept - 1]
            n_epochs *= self._reduction
        return table


class Curves:
    """The learning curves of a run, and the thresholds that follow from them.

    Args:
        pruner: None: there are no thresholds.
        objective: Whose values count.
        evaluations: On record, in ask order.

    Raises:
        ValueError: See `add`.
    """

    def __init__(
        self, pruner: Pruner | None, objective: Objective, evaluations: Iterable[Evaluation] = ()
    ) -> None:
        self._pruner = pruner
        self._objective = objective
        self._curves: dict[int, Curve] = {}  # by evaluation number
        if pruner is not None:
            for evaluation in evaluations:
                self.add(evaluation)

    def add(self, evaluation: Evaluation) -> None:
        """Takes the curve of a new evaluation.

        Raises:
            ValueError: It ended well without having reported the objective.
        """
        if self._pruner is None or evaluation.status not in (Status.OK, Status.PRUNED):
            return
        name = self._objective.name
        curve = {row.epoch: row.metrics[name] for row in evaluation.epochs if name in row.metrics}
        if not curve:
            reported = sorted({metric for row in evaluation.epochs for metric in row.metrics})
            raise ValueError(
                f"a pruner needs trial.report({name}=...) each epoch, but evaluation "
                f"{evaluation.number} reported {', '.join(reported) or 'nothing'}: report the "
                "objective, or leave the pruner out"
            )
        self._curves[evaluation.number] = curve

    def thresholds(self, before: int | None = None) -> dict[int, float]:
        """Returns the thresholds from the evaluations with a number below `before` (None: all)."""
        if self._pruner is None:
            return {}
        known = [self._curves[n] for n in sorted(self._curves) if before is None or n < before]
        table = self._pruner.thresholds(known, self._objective) if known else {}
        return {int(epoch): float(value) for epoch, value in table.items()}


def _by_epoch(curves: Iterable[Curve]) -> dict[int, list[float]]:
    """Returns the finite values of each epoch but the last that any curve has."""
    found: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, value in curve.items():
            if math.isfinite(value):
                found.setdefault(epoch, []).append(value)
    if found:
        del found[max(found)]
    return dict(sorted(found.items()))

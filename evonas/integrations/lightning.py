"""A callback for the Trainer of Lightning: each validation reaches the trial."""

from __future__ import annotations

from typing import Any

from evonas.exceptions import MissingDependencyError
from evonas.execution.trial import Trial

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise MissingDependencyError(
        f"evonas.integrations.lightning needs lightning ({error}): pip install lightning"
    ) from error

__all__ = ["TrialCallback"]


class TrialCallback(Callback):
    """Reports what a `LightningModule` logs, after each validation epoch.

    A pruner ends the training from inside `trainer.fit()`: let `TrialPruned` pass. The sanity
    check before the first epoch is not reported.

    Args:
        trial: What the fitness function was given.

    Example:
        >>> trainer = Trainer(..., callbacks=[TrialCallback(trial)])  # doctest: +SKIP
        >>> trainer.fit(module, train, val)  # doctest: +SKIP
    """

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial = trial

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Reports the metrics that are logged so far."""
        if trainer.sanity_checking:
            return
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if found:
            self.trial.report(**found)

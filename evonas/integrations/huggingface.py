"""A callback for the Trainer of Hugging Face transformers: each evaluation reaches the trial."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from evonas.exceptions import MissingDependencyError
from evonas.execution.trial import Trial

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingDependencyError(
        f"evonas.integrations.huggingface needs transformers ({error}): pip install transformers "
        "accelerate"
    ) from error

__all__ = ["TrialCallback"]


class TrialCallback(TrainerCallback):
    """Reports what a `transformers.Trainer` evaluates: `eval_accuracy` as `accuracy`.

    A pruner ends the training from inside `trainer.train()`: let `TrialPruned` pass.

    Args:
        trial: What the fitness function was given.

    Example:
        >>> trainer = Trainer(..., callbacks=[TrialCallback(trial)])  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reports the numbers of an evaluation, and the last training loss."""
        found = {
            name.removeprefix("eval_"): float(value)
            for name, value in (metrics or {}).items()
            if isinstance(value, Real)
        }
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if losses:
            found["train_loss"] = float(losses[-1])
        if found:
            self.trial.report(**found)

"""Callbacks for the Trainer of Lightning: one trains by a recipe, one tells the trial."""

from __future__ import annotations

from typing import Any

from evonas.exceptions import MissingDependencyError
from evonas.execution.trial import Trial
from evonas.freezing.mask import applied_mask
from evonas.freezing.recipe import Recipe
from evonas.integrations.recipes import refuse_ema

try:
    from lightning.pytorch import Callback
except (ImportError, RuntimeError) as error:  # of a broken torchvision
    raise MissingDependencyError.of(
        "evonas.integrations.lightning", "lightning", error, "pip install lightning"
    ) from error

__all__ = ["RecipeCallback", "TrialCallback"]


class RecipeCallback(Callback):
    """Trains a `LightningModule` by a recipe, in place of its `configure_optimizers`.

    Frozen blocks stay in eval mode, their batch norms with the statistics that they have. The
    module may hold the searched model under any name. Epochs, batches and clipping are the
    Trainer's arguments. After the fit all parameters are trainable again, adapters merged.

    Args:
        recipe: As `load_recipe` returns it.

    Raises:
        ValueError: In `trainer.fit`: the recipe does not fit the module, or averages weights.

    Example:
        >>> recipe = load_recipe("runs/mine")  # doctest: +SKIP
        >>> trainer = Trainer(callbacks=[RecipeCallback(recipe)])  # doctest: +SKIP
        >>> trainer.fit(module, train, val)  # doctest: +SKIP
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        refuse_ema(recipe, "this callback")
        self.recipe = recipe

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Freezes what is not trained, before the optimizer is made."""
        if stage != "fit":
            return
        recipe = self.recipe.for_model(pl_module)
        groups = recipe.apply(pl_module)

        def configure_optimizers() -> dict[str, Any]:
            optimizer = recipe.training.make_optimizer(groups)
            scheduler = recipe.make_scheduler(optimizer, int(trainer.estimated_stepping_batches))
            if scheduler is None:
                return {"optimizer": optimizer}
            schedule = {"scheduler": scheduler, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": schedule}

        pl_module.configure_optimizers = configure_optimizers

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Gives the module back as it was, with its trained weights."""
        applied = applied_mask(pl_module) if stage == "fit" else None
        if applied is not None:
            applied.undo()
            del pl_module.configure_optimizers


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

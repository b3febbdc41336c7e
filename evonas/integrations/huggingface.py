"""The Trainer of Hugging Face transformers: trained by a recipe, or reporting to a trial."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import ConstantLR

from evonas.exceptions import MissingDependencyError
from evonas.execution.trial import Trial
from evonas.freezing.recipe import Recipe
from evonas.integrations.recipes import refuse_ema

try:
    from transformers import TrainerCallback
except (ImportError, RuntimeError) as error:  # of a broken torchvision
    raise MissingDependencyError.of(
        "evonas.integrations.huggingface",
        "transformers",
        error,
        "pip install transformers accelerate",
    ) from error

__all__ = ["TrialCallback", "training_arguments", "use_recipe"]


def use_recipe(trainer: Any, recipe: Recipe) -> None:
    """Applies a recipe to the model of a Trainer, which then trains with its rates and schedule.

    Of a Trainer of transformers or of a subclass: that of sentence-transformers, the `st_trainer`
    of setfit, those of trl. The model may hold the searched one (a SentenceTransformer of the
    BERT in a classifier). Weights of a loss are trained at the recipe's rate.

    Args:
        trainer: Without an optimizer of its own.
        recipe: As `load_recipe` returns it.

    Raises:
        ValueError: The recipe does not fit the model, or averages weights, which a Trainer does
            not; the Trainer has an optimizer.
        MissingDependencyError: It has adapters, and peft is not installed.

    Example:
        >>> trainer = Trainer(model, args, train_dataset=sentences)  # doctest: +SKIP
        >>> use_recipe(trainer, load_recipe("runs/mine"))  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """
    if trainer.optimizer is not None:
        raise ValueError("the Trainer has an optimizer already: make it without optimizers=")
    refuse_ema(recipe, "a Trainer")
    own = recipe.for_model(trainer.model)
    groups = own.apply(trainer.model)

    def create_optimizer(model: Any = None) -> Any:
        if trainer.optimizer is None:
            known = {id(p) for p in trainer.model.parameters()}
            extra = [p for p in _loss_parameters(trainer) if id(p) not in known]
            more = [{"params": extra, "lr": own.lr, "weight_decay": 0.0}] if extra else []
            trainer.optimizer = own.training.make_optimizer([*groups, *more])
        return trainer.optimizer

    def create_scheduler(num_training_steps: int, optimizer: Any = None) -> Any:
        optimizer = trainer.optimizer if optimizer is None else optimizer
        made = own.make_scheduler(optimizer, num_training_steps)
        trainer.lr_scheduler = ConstantLR(optimizer, factor=1.0) if made is None else made
        return trainer.lr_scheduler

    trainer.create_optimizer = create_optimizer
    trainer.create_scheduler = create_scheduler


def training_arguments(recipe: Recipe) -> dict[str, Any]:
    """Returns what a recipe says of `TrainingArguments`: rate, decay, epochs, batch size, clipping.

    Example:
        >>> args = TrainingArguments("out", **training_arguments(recipe))  # doctest: +SKIP
    """
    training, found = recipe.training, {"learning_rate": recipe.lr}
    names = {
        "n_epochs": "num_train_epochs",
        "batch_size": "per_device_train_batch_size",
        "label_smoothing": "label_smoothing_factor",
    }
    found |= {names[name]: getattr(training, name) for name in names if name in recipe.settings}
    if "grad_clip" in recipe.settings:
        found["max_grad_norm"] = training.grad_clip or 0.0
    return {**found, "weight_decay": recipe.weight_decay}


def _loss_parameters(trainer: Any) -> list[nn.Parameter]:
    losses = getattr(trainer, "loss", None)
    losses = losses.values() if isinstance(losses, Mapping) else [losses]
    return [p for each in losses if isinstance(each, nn.Module) for p in each.parameters()]


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

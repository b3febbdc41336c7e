"""A recipe for the Learner of fastai: its optimizer, its rates, and batch norms that stay still."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from evonas.exceptions import MissingDependencyError
from evonas.freezing.recipe import Recipe
from evonas.integrations.recipes import refuse_ema, refuse_gradual

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai uses what torch calls deprecated
        from fastai.optimizer import OptimWrapper
except (ImportError, RuntimeError) as error:  # of a broken torchvision
    raise MissingDependencyError.of(
        "evonas.integrations.fastai", "fastai", error, "pip install fastai"
    ) from error

__all__ = ["learner_arguments"]


def learner_arguments(recipe: Recipe, model: nn.Module) -> dict[str, Any]:
    """Applies a recipe to a model; returns the arguments of a `Learner` that trains by it.

    Train with `learn.fit(n)`, whose schedule is constant, or `learn.fit_one_cycle(n, learn.lr)`:
    without a rate fastai takes its own. `learn.unfreeze()` would train what the recipe freezes.

    Args:
        recipe: As `load_recipe` returns it.
        model: Changed in place; it may hold the searched one.

    Raises:
        ValueError: The recipe does not fit the model, averages weights or unfreezes in turn.

    Example:
        >>> learn = Learner(dls, model, **learner_arguments(recipe, model))  # doctest: +SKIP
        >>> learn.fit_one_cycle(3, learn.lr)  # doctest: +SKIP
    """
    refuse_ema(recipe, "this Learner")
    refuse_gradual(recipe, "this Learner")
    optimizer = recipe.for_model(model).make_optimizer(model)
    return {
        "opt_func": OptimWrapper(opt=optimizer),
        "lr": [group["lr"] for group in optimizer.param_groups],
        "train_bn": False,  # else fastai trains batch norms in frozen blocks
    }

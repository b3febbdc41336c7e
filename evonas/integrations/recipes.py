"""What the adapters to other libraries share: what of a recipe they cannot do."""

from __future__ import annotations

from evonas.freezing.recipe import Recipe
from evonas.freezing.unfreezing import GRADUAL

__all__ = ["refuse_ema", "refuse_gradual"]


def refuse_ema(recipe: Recipe, who: str) -> None:
    """Refuses a recipe whose weights are averaged over the steps.

    Raises:
        ValueError: It says so.
    """
    if recipe.training.ema:
        raise ValueError(
            f"the recipe averages the weights (ema {recipe.training.ema:g}), which {who} does not:"
            " replace(recipe, settings={**recipe.settings, 'ema': 0.0}) leaves it out"
        )


def refuse_gradual(recipe: Recipe, who: str) -> None:
    """Refuses a recipe whose blocks are unfrozen in turn.

    Raises:
        ValueError: It says so.
    """
    if recipe.unfreezing == GRADUAL:
        raise ValueError(
            f"the recipe unfreezes blocks in turn, which {who} does not: "
            "replace(recipe, unfreezing='at once') trains them from the start"
        )

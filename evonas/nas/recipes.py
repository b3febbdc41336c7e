"""How image classifiers are trained well, by name: what `ImageClassificationProblem` is given."""

from __future__ import annotations

from typing import Any, Literal, get_args

from evonas.arguments import check_choice
from evonas.training import FlipCrop

__all__ = ["RecipeName", "recipe"]

_FEW = 10  # weights an image
_SHORT = 30  # epochs

RecipeName = Literal["plain", "one-cycle", "long"]


def recipe(
    name: RecipeName,
    *,
    flips: bool = True,
    side: int = 32,
    n_params: int | None = None,
    n_images: int | None = None,
    n_epochs: float | None = None,
) -> dict[str, Any]:
    """Returns arguments of `ImageClassificationProblem`, which puts them on record.

    - `plain`: SGD at a constant rate on the images as they are, as published.
    - `one-cycle`: Nesterov's momentum, the rate rises and falls once; flips and crops. For the
      short trainings of a search.
    - `long`: the same, with cutout, averaged weights, and the outputs for an image and its mirror
      image averaged. For the training of what was found.

    Label smoothing, rate, momentum and weight decay are genes of the spaces, or the problem's
    defaults.

    Args:
        name: Of the recipe.
        flips: Whether a mirror image is an image of the same class (not so for digits).
        side: Of the images: crops are shifted by a sixteenth of it, cutout is a quarter.
        n_params: Weights of the network, and
        n_images: to train on: with fewer than 10 weights an image `long` has no cutout, since such
            a network does not learn the images by heart. None: it has.
        n_epochs: Passes over the images, as far as it is known: with fewer than 30 `long` has no
            cutout for the same reason.

    Raises:
        ValueError: There is no recipe of this name.

    Example:
        >>> recipe("one-cycle", flips=False)["augment"]
        FlipCrop(flip=False, pad=2, cutout=0)
    """
    check_choice("name", name, get_args(RecipeName))
    if name == "plain":
        return {}
    cycle = {"optimizer": "nesterov", "schedule": "one_cycle"}
    pad = max(1, side // 16)
    if name == "one-cycle":
        return {**cycle, "augment": FlipCrop(flip=flips, pad=pad)}
    small = n_params is not None and n_images is not None and n_params < _FEW * n_images
    small |= n_epochs is not None and n_epochs < _SHORT
    augment = FlipCrop(flip=flips, pad=pad, cutout=0 if small or not flips else side // 4)
    return {**cycle, "augment": augment, "ema": 0.99, "test_time_flip": flips}

"""A mask or recipe for ultralytics, whose trainings freeze whole layers by number."""

from __future__ import annotations

import re

from evonas.freezing.recipe import FROZEN, Recipe, state_in_words
from evonas.freezing.saved_mask import SavedMask

__all__ = ["freeze_argument"]

_LAYER = re.compile(r"(?:model\.)*(\d+)")


def freeze_argument(found: Recipe | SavedMask) -> list[int]:
    """Returns the argument `freeze` of `YOLO.train`: the numbers of the layers to freeze.

    Args:
        found: A recipe or mask of the model of a YOLO, or of a part of it that has its numbers.

    Raises:
        ValueError: A block is trained in another way than whole and at the rate itself, or is not
            made of whole layers: `freeze` cannot say it.

    Example:
        >>> mask = SavedMask({"a": 1, "b": 0}, contents={"a": ["model.0", "model.1"], "b": []})
        >>> freeze_argument(mask)
        [0, 1]
        >>> model.train(data="mine.yaml", freeze=freeze_argument(mask))  # doctest: +SKIP
    """
    if isinstance(found, Recipe):
        for name, state in found.states.items():
            if state not in (FROZEN, 1.0):
                raise ValueError(
                    f"{name} is trained as {state_in_words(state)!r}, which freeze= cannot say: it "
                    "freezes whole layers, all others are trained at one rate"
                )
    mask = found.mask if isinstance(found, Recipe) else found
    layers: set[int] = set()
    for name in (name for name, bit in mask.items() if bit):
        for path in found.contents.get(name, (name,)):
            number = _LAYER.fullmatch(path)
            if number is None:
                raise ValueError(
                    f"{path} of block {name} is no whole layer of an ultralytics model "
                    "(model.0, model.1, …), which freeze= needs"
                )
            layers.add(int(number[1]))
    return sorted(layers)

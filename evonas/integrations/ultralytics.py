"""A mask or recipe for ultralytics, whose trainings freeze whole layers by number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from evonas.freezing.recipe import Recipe
from evonas.freezing.saved_mask import SavedMask
from evonas.freezing.states import FROZEN, state_in_words

__all__ = ["freeze_argument"]

_LAYER = re.compile(r"(?:model\.)*(\d+)")


def freeze_argument(found: Recipe | SavedMask) -> list[int]:
    """Returns the argument `freeze` of `YOLO.train`: the numbers of the layers to freeze.

    Args:
        found: A recipe or mask of the model of a YOLO, or of a part of it that has its numbers.

    Raises:
        ValueError: A block is trained in another way than whole and at the rate itself, or is not
            made of whole layers; or a part of a trained layer was frozen before the search:
            `freeze` cannot say it.

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
    layers: set[int] = set()
    mask = found.mask if isinstance(found, Recipe) else found
    for name in (name for name, bit in mask.items() if bit):
        for path in found.contents.get(name, (name,)):
            number = _LAYER.fullmatch(path)
            if number is None:
                raise ValueError(
                    f"{path} of block {name} is no whole layer of an ultralytics model "
                    "(model.0, model.1, …), which freeze= needs"
                )
            layers.add(int(number[1]))
    trained = {name for name in found.beside if name not in found.frozen_before}
    trained.update(
        path for name, bit in mask.items() if not bit for path in found.contents.get(name, (name,))
    )
    return sorted(layers | _frozen_before(found.frozen_before, trained))


def _frozen_before(names: Iterable[str], trained: Iterable[str]) -> set[int]:
    """Returns the layers that the model factory of the search had frozen.

    Raises:
        ValueError: A part of one is trained.
    """
    partly = {_number(path) for path in trained}
    found = set()
    for name in names:
        if ".dfl." in name:  # ultralytics freezes it by itself
            continue
        number = _number(name)
        if number is None or number in partly:
            raise ValueError(
                f"{name} was frozen before the search, the rest of its layer is trained: freeze= "
                "cannot say it, it freezes whole layers"
            )
        found.add(number)
    return found


def _number(path: str) -> int | None:
    found = re.match(rf"{_LAYER.pattern}(\.|$)", path)
    return int(found[1]) if found else None

"""`SurrogateEvolution` without one of its parts each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.strategies import Strategy, SurrogateEvolution
from evonas.strategies.steady import Point
from evonas.strategies.surrogate.model import Draw, fitted

__all__ = ["ABLATIONS"]

Floats = NDArray[np.float64]

_FIT_STEPS = 8  # uphill, from where the last ones ended


class WithoutModel(SurrogateEvolution):
    """Evaluates any of the offspring: the model ranks nothing."""

    def _rank(self, candidates: list[Any], *_: Any) -> list[Any]:
        order = list(candidates)
        random.Random(self._next_id).shuffle(order)
        return order


class WithDuplicates(SurrogateEvolution):
    """Proposes what the model likes best, even if it is on record (and is then reused)."""

    def _new_point(self, genes: dict[str, Any], parents: tuple[int, ...] = ()) -> Point | None:
        return Point(genes, self._history.key(genes), parents)


class WithoutSpread(SurrogateEvolution):
    """Begins with points that are random, not spread out."""

    def _far_point(self, rng: random.Random) -> Point | None:
        return self._random_point(rng)


class OneGuess(SurrogateEvolution):
    """Believes the most probable hyperparameters, in place of a draw for each proposal."""

    def _drawn(self, rows: Floats, targets: Floats, rng: random.Random) -> Draw:
        start = self._draw.hyper
        return Draw(fitted(self._encoding, rows, targets, start, n_steps=_FIT_STEPS))


ABLATIONS: dict[str, Callable[[], Strategy]] = {
    "whole": SurrogateEvolution,
    "model off": WithoutModel,
    "one guess, no draws": OneGuess,
    "warping off": lambda: SurrogateEvolution(warp=False),
    "duplicates allowed": WithDuplicates,
    "initial points not spread": WithoutSpread,
    "20 initial points": lambda: SurrogateEvolution(n_initial=20),
    "3 parents": lambda: SurrogateEvolution(n_parents=3),
}

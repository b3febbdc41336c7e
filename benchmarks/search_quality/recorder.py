"""Counts what a peer evaluates, and stops it when it has had its share."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_quality.instance import Genes, Instance

__all__ = ["STUCK_OVER", "Recorder", "Spent", "run_peer", "stuck_share"]

STUCK_OVER = 50  # points without a better one after which a search counts as stuck
_MAX_CALLS = 20  # for each unique evaluation: a peer that only repeats itself is stopped


class Spent(Exception):
    """The evaluations are used up."""


@dataclass
class Recorder:
    """The fitness function that a peer calls, with its record.

    Attributes:
        instance: What is searched.
        n_unique: Different points after which `Spent` is raised.
        values: Key to value, in the order of the first calls.
        scores: For each unique evaluation the scores of the best point so far, as regrets.
        calls: For each call, repeats included, the number of unique evaluations by then.
    """

    instance: Instance
    n_unique: int
    values: dict[str, float] = field(default_factory=dict)
    regrets: list[list[float]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    _best: float = -np.inf

    def __call__(self, genes: Genes) -> float:
        """Returns the value that the search sees.

        Raises:
            Spent: The point is new and there have been enough, or there were far too many calls.
        """
        instance = self.instance
        key = instance.space.key(genes)
        value = self.values.get(key)
        if value is None:
            if len(self.values) >= self.n_unique:
                raise Spent
            value = self.values[key] = instance.value(genes)
            if value > self._best:
                self._best = value
                self._at_best = [
                    instance.optimum[name] - score(genes) for name, score in instance.scores.items()
                ]
            self.regrets.append(self._at_best)
        self.calls.append(len(self.values))
        if len(self.calls) >= _MAX_CALLS * self.n_unique:
            raise Spent
        return value

    def unique_regrets(self) -> NDArray[np.float64]:
        """Returns the regret after each unique evaluation, (n_unique, n_scores).

        Where there were fewer (the space ended, or the peer gave up), the last one stands.
        """
        found = np.array(self.regrets)
        missing = self.n_unique - len(found)
        return np.vstack([found, np.repeat(found[-1:], missing, axis=0)])

    def call_regrets(self) -> NDArray[np.float64]:
        """Returns the regret after each of the first `n_unique` calls, (n_unique, n_scores)."""
        calls = (self.calls + [self.calls[-1]] * self.n_unique)[: self.n_unique]
        return self.unique_regrets()[np.array(calls) - 1]


def run_peer(
    peer: Callable[[Recorder, int], None], instance: Instance, n_unique: int, seed: int
) -> Recorder:
    """Returns the record of one search; the global generators are as before."""
    recorder = Recorder(instance, n_unique)
    state, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with suppress(Spent):
            peer(recorder, seed)
    finally:
        random.setstate(state)
        np.random.set_state(numpys)  # noqa: NPY002
    return recorder


def stuck_share(regrets: NDArray[np.float64], size: int, tolerance: float) -> float:
    """Returns the share of searches that found nothing better in their last 50 points.

    Those that hold the best there is are not stuck.

    Args:
        regrets: (n_searches, n_points) of one score.
        size: Points after which it is asked, more than 50.
        tolerance: Regret up to which the optimum counts as found.
    """
    before, now = regrets[:, size - 1 - STUCK_OVER], regrets[:, size - 1]
    return float(((before == now) & (now > tolerance)).mean())

"""Which genes matter, and with which others: shares of the fitness's variance, by a model of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.run.fitness_model import FitnessModel

__all__ = ["Importance", "importance_of"]

Floats = NDArray[np.float64]
Values = list[Any]

_N_DRAWS = 3_000  # pairs of random points; the shares are exact to about 0.02
_N_PAIRED = 8  # genes of the largest shares, of which pairs are looked at


@dataclass(frozen=True)
class Importance:
    """How much each gene matters over the whole space, as a model of the evaluations has it.

    Attributes:
        alone: Gene to the share of the variance that it explains by itself, the largest total
            first.
        total: Gene to its share with all that it does together with others.
        pairs: Two genes to the share that they explain together and neither alone, of the eight
            genes that matter most, the largest first.
        explained: Share of the variance of evaluations that the model predicts when each is left
            out; near 0 or below, the shares mean nothing.
        n_evaluations: How many the model learnt from.

    Source:
        Sobol' indices of the model's mean over random points of the space, without its
        constraints: the estimators of Saltelli et al. (2010), "Variance based sensitivity analysis
        of model output", table 2; fANOVA (Hutter et al. 2014) has the same shares by another model.
    """

    alone: dict[str, float]
    total: dict[str, float]
    pairs: dict[tuple[str, str], float]
    explained: float
    n_evaluations: int

    def __str__(self) -> str:
        width = max(map(len, self.total))
        lines = [f"{'gene':{width}}  alone  in all"]
        lines += [f"{name:{width}}  {self.alone[name]:5.2f}  {self.total[name]:6.2f}"
                  for name in self.total]  # fmt: skip
        together = [f"{a} with {b} {share:.2f}" for (a, b), share in self.pairs.items()
                    if share >= 0.05]  # fmt: skip
        if together:
            lines.append("together: " + ", ".join(together))
        lines.append(
            f"a model of {self.n_evaluations} evaluations, which explains {self.explained:.0%} of "
            "the variance of those it was not shown"
        )
        return "\n".join(lines)


def importance_of(model: FitnessModel) -> Importance:
    """Returns how much each gene matters, as a model of the evaluations has it."""
    shares = _Shares(model)
    names = list(model.space)
    total = {name: shares.total(i) for i, name in enumerate(names)}
    order = sorted(range(len(names)), key=lambda i: -total[names[i]])
    alone = {i: shares.closed((i,)) for i in order}
    pairs = {
        (names[i], names[j]): max(0.0, shares.closed((i, j)) - alone[i] - alone[j])
        for i, j in combinations(order[:_N_PAIRED], 2)
    }
    return Importance(
        {names[i]: max(0.0, alone[i]) for i in order},
        {names[i]: total[names[i]] for i in order},
        dict(sorted(pairs.items(), key=lambda item: -item[1])),
        model.explained,
        model.n_evaluations,
    )


class _Shares:
    """Sobol' indices of what a model expects, from two sets of random points."""

    def __init__(self, model: FitnessModel) -> None:
        rng = random.Random(0)
        self._model = model
        self._first, self._second = (
            [list(column) for column in zip(*points, strict=True)]
            for points in (
                [model.space.sample_values(rng) for _ in range(_N_DRAWS)]
                for _ in ("first", "second")
            )
        )
        self._of_first, self._of_second = self._values(self._first), self._values(self._second)
        both = np.concatenate((self._of_first, self._of_second))
        self._variance = float(both.var()) or 1.0
        self._of_second -= both.mean()
        self._of_first -= both.mean()
        self._mean = float(both.mean())

    def total(self, gene: int) -> float:
        """Returns the share of a gene with all that it does together with others."""
        change = self._of_first - self._mixed((gene,))
        return float((change**2).mean()) / (2.0 * self._variance)

    def closed(self, genes: tuple[int, ...]) -> float:
        """Returns the share that some genes explain, alone and together."""
        product = self._of_second * (self._mixed(genes) - self._of_first)
        return float(product.mean()) / self._variance

    def _mixed(self, genes: tuple[int, ...]) -> Floats:
        columns = list(self._first)
        for gene in genes:
            columns[gene] = self._second[gene]
        return self._values(columns) - self._mean

    def _values(self, columns: Sequence[Values]) -> Floats:
        return self._model.predict(list(zip(*columns, strict=True)))[0]

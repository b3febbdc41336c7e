"""Which genes matter, and with which others: shares of the fitness's variance, by a model of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.records import Evaluation
from evonas.space import SearchSpace
from evonas.strategies.surrogate import Encoding, fitted_model

__all__ = ["Importance", "importance_of"]

Floats = NDArray[np.float64]
Values = list[Any]

_MIN_EVALUATIONS = 10
_MAX_LEARNT = 200  # evaluations, evenly taken: twice as many take twice as long, for a report too
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


def importance_of(
    space: SearchSpace, evaluations: Sequence[Evaluation], objective: int = 0
) -> Importance:
    """Returns how much each gene of a space matters for an objective.

    Args:
        space: What was searched.
        evaluations: Those that ended `ok`.
        objective: The place of the objective among the values.

    Raises:
        ValueError: There are fewer than ten evaluations, or all of one value.
    """
    if len(evaluations) < _MIN_EVALUATIONS:
        raise ValueError(
            f"{len(evaluations)} evaluations with a fitness say too little of the genes: "
            f"{_MIN_EVALUATIONS} are the least"
        )
    n = min(len(evaluations), _MAX_LEARNT)
    kept = [evaluations[int(i)] for i in np.linspace(0, len(evaluations) - 1, n)]
    values = np.array([entry.values[objective] for entry in kept])
    if np.ptp(values) == 0.0:
        raise ValueError(f"all {n} evaluations have the fitness {float(values[0])!r}")
    space = space.unconstrained()
    points = [space.values(entry.genes, random.Random(entry.number)) for entry in kept]
    targets = (values - values.mean()) / values.std()
    encoding = Encoding(space)
    model = fitted_model(encoding, encoding.rows(points), targets)
    shares = _Shares(space, encoding, lambda rows: model.predict(rows)[0])
    names = list(space)
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
        1.0 - float((model.left_out_errors() ** 2).mean() / targets.var()),
        n,
    )


class _Shares:
    """Sobol' indices of a function of points, from two sets of random points."""

    def __init__(self, space: SearchSpace, encoding: Encoding, function: Any) -> None:
        rng = random.Random(0)
        self._function, self._encoding = function, encoding
        self._first, self._second = (
            [list(column) for column in zip(*points, strict=True)]
            for points in (
                [space.sample_values(rng) for _ in range(_N_DRAWS)] for _ in ("first", "second")
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
        points = [list(point) for point in zip(*columns, strict=True)]
        return np.asarray(self._function(self._encoding.rows(points)))

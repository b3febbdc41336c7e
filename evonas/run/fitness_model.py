"""What evaluations say about points that nobody evaluated: a model, with its uncertainty."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.records import Evaluation, Genes
from evonas.space import SearchSpace
from evonas.space.gene import Gene
from evonas.strategies.surrogate import Encoding, fitted_model

__all__ = ["FitnessModel", "Slice"]

Floats = NDArray[np.float64]

_MIN_EVALUATIONS = 10
_MAX_LEARNT = 200  # evaluations, evenly taken: twice as many take twice as long, for a report too
_N_VALUES = 61  # of a gene, where it has more


@dataclass(frozen=True)
class Slice:
    """What a model of the evaluations expects when one gene changes and the others stay.

    Attributes:
        gene: Its name.
        values: Of the gene, in its order, (n,).
        mean: Expected objective at each, (n,).
        sd: Standard deviation of that expectation, without the noise of a training, (n,).
        explained: Share of the variance of evaluations that the model predicts when each is left
            out; near 0 or below, the rest means nothing.
    """

    gene: str
    values: tuple[Any, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    explained: float


class FitnessModel:
    """A Gaussian process of one objective over a space: that of the strategy `SurrogateEvolution`.

    Args:
        space: What was searched; its constraints do not matter.
        evaluations: Those that ended `ok`.
        objective: The place of the objective among the values.

    Attributes:
        space: The space without its constraints.
        encoding: Its points as rows.
        n_evaluations: How many the model learnt from.
        explained: See `Slice`.

    Raises:
        ValueError: There are fewer than ten evaluations, or all of one value.
    """

    def __init__(
        self, space: SearchSpace, evaluations: Sequence[Evaluation], objective: int = 0
    ) -> None:
        if len(evaluations) < _MIN_EVALUATIONS:
            raise ValueError(
                f"{len(evaluations)} evaluations with a fitness say too little of the genes: "
                f"{_MIN_EVALUATIONS} are the least"
            )
        n = self.n_evaluations = min(len(evaluations), _MAX_LEARNT)
        kept = [evaluations[int(i)] for i in np.linspace(0, len(evaluations) - 1, n)]
        values = np.array([entry.values[objective] for entry in kept])
        if np.ptp(values) == 0.0:
            raise ValueError(f"all {n} evaluations have the fitness {float(values[0])!r}")
        self.space = space.unconstrained()
        self.encoding = Encoding(self.space)
        points = [self.space.values(entry.genes, random.Random(entry.number)) for entry in kept]
        self._mean, self._scale = float(values.mean()), float(values.std())
        targets = (values - self._mean) / self._scale
        self._model = fitted_model(self.encoding, self.encoding.rows(points), targets)
        left_out = float((self._model.left_out_errors() ** 2).mean())
        self.explained = 1.0 - left_out / float(targets.var())

    def predict(self, points: Sequence[Sequence[Any]]) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation of the objective at points, (n,) each.

        Args:
            points: Values of all genes, in the order of the space.
        """
        mean, sd = self._model.predict(self.encoding.rows([list(point) for point in points]))
        return self._mean + self._scale * mean, self._scale * sd

    def slice(self, gene: str, genes: Genes) -> Slice:
        """Returns what is expected along one gene; the others are those of `genes`.

        Raises:
            TypeError, ValueError: There is no such gene; `genes` are no point of the space.
        """
        names = list(self.space)
        if gene not in names:
            raise ValueError(f"no gene {gene!r}: the genes are {', '.join(names)}")
        place = names.index(gene)
        point = self.space.values(self.space.validate(genes), random.Random(0))
        values = _values_of(self.space[gene])
        mean, sd = self.predict([[*point[:place], each, *point[place + 1 :]] for each in values])
        return Slice(gene, values, tuple(mean.tolist()), tuple(sd.tolist()), self.explained)


def _values_of(gene: Gene) -> tuple[Any, ...]:
    if gene.cardinality <= _N_VALUES or gene.n_features > 1:
        return tuple(gene.all_values())
    shares = np.linspace(0.0, 1.0, _N_VALUES)
    return tuple(dict.fromkeys(gene.decode([float(share)]) for share in shares))

"""Points as rows of numbers, and as coordinates whose squared differences are distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Gene, Integer
from evonas.space.repeat import as_range

__all__ = ["Encoding"]

Floats = NDArray[np.float64]

_INACTIVE = -1.0


class Encoding:
    """Points of a space as rows (n, n_genes), and as coordinates in which distances are learnt.

    A row holds the place of a choice, the place of a number between low (0) and high (1), and -1
    for an inactive gene. Distance: 0 or 1 for choices, the squared difference for numbers, its mean
    over the features for a gene of the user's own with several of them (`Gene.encode`). An
    inactive gene is the centre of its values: between them all, and so nearer to each than they
    are to each other. That the point differs is said by the gene that made it inactive. (With a
    distance of 1, as between two choices, every change of a depth made a point a stranger: on
    `layers` of benchmarks.search_quality the regret after 100 evaluations was twice as large.)

    A gene of k choices has k coordinates. Genes that have the same choices, three or more, share
    what is learnt of them: how far each choice is from the others, whichever gene it is of (in a
    cell, an edge without an operation is far from all others). On `cells` of
    benchmarks.search_quality 0.73 of the regret was left after 50 evaluations and 0.70 after 100.

    Args:
        space: What the points belong to.

    Attributes:
        is_number: (n_genes,): whether a gene is a number rather than one of several choices.
        gene_of: (n_coordinates,): the place of each coordinate's gene.
        choice_of: (n_coordinates,): the place of its choice among the shared ones, or -1.
        n_shared: How many choices are shared.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._genes = space.gene_types
        self.is_number = np.array(
            [not isinstance(gene, (Categorical, Boolean)) for gene in self._genes]
        )
        # Coordinates by place, the last one for inactive genes: (n_choices + 1, n_choices).
        self._choices = [
            None if number else _simplex(int(gene.cardinality))
            for gene, number in zip(self._genes, self.is_number, strict=True)
        ]
        self._features = [
            _Features(gene) if gene.n_features > 1 and number else None
            for gene, number in zip(self._genes, self.is_number, strict=True)
        ]
        self._columns = [
            _column_of(gene) if features is None else features.places
            for gene, features in zip(self._genes, self._features, strict=True)
        ]
        self._tests = self._conditions()
        shared = _shared_choices(self._genes)
        self.n_shared = 1 + max((max(places) for places in shared.values()), default=-1)
        genes: list[int] = []
        choices: list[int] = []
        for place, gene in enumerate(self._genes):
            n = gene.n_features if self.is_number[place] else int(gene.cardinality)
            genes += [place] * n
            choices += shared.get(place, [-1] * n)
        self.gene_of, self.choice_of = np.array(genes), np.array(choices)

    @property
    def n_genes(self) -> int:
        """How many columns a row has."""
        return len(self._genes)

    def rows(self, points: Sequence[Sequence[Any]]) -> Floats:
        """Returns lists of values (see `SearchSpace.values`) as rows (n, n_genes)."""
        if not points:
            return np.empty((0, self.n_genes))
        columns = zip(self._columns, zip(*points, strict=True), strict=True)
        rows = np.column_stack([places(column) for places, column in columns])
        # Not `SearchSpace.active`, point by point: with 20 conditions that took longer than the
        # model's predictions.
        active = np.ones(rows.shape, dtype=bool)
        for child, parent, allowed in self._tests:
            places = rows[:, parent]
            if isinstance(allowed, tuple):
                holds = (places >= allowed[0]) & (places <= allowed[1])
            else:
                holds = np.isin(places, allowed)
            active[:, child] &= active[:, parent] & holds
        rows[~active] = _INACTIVE
        return rows

    def _conditions(self) -> list[tuple[int, int, Floats | tuple[float, float]]]:
        """Returns (child, parent, places of the parent that allow the child), parents first.

        A pair of places is a range between them.
        """
        names = list(self._space)
        missing = {names.index(child): parents for child, parents in self._space.conditions.items()}
        found: list[tuple[int, int, Floats | tuple[float, float]]] = []
        while missing:
            ready = [
                child
                for child, parents in missing.items()
                if not any(names.index(parent) in missing for parent in parents)
            ]
            for child in ready:
                for name, values in missing.pop(child).items():
                    parent = names.index(name)
                    found.append((child, parent, self._allowed(parent, values)))
        return found

    def _allowed(self, parent: int, values: Any) -> Floats | tuple[float, float]:
        wanted = as_range(values)
        if wanted is None:
            return self._columns[parent](values)
        gene = self._space.gene_types[parent]
        first, last = gene.decode([0.0]), gene.decode([1.0])
        bounds = [
            first if wanted.low is None else max(first, wanted.low),
            last if wanted.high is None else min(last, wanted.high),
        ]
        low, high = self._columns[parent](bounds)
        return float(low), float(high)

    def weighted(self, left: Floats, right: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Returns the weighted sums of distances over choices and over numbers.

        Args:
            left: Coordinates, (n_left, n_coordinates).
            right: Those of others, (n_right, n_coordinates).
            weights: Of the squared differences, (n_coordinates,).

        Returns:
            Two of (n_left, n_right).
        """
        scales = np.sqrt(weights)
        sums = []
        for kind in (~self.is_number, self.is_number):
            of_kind = kind[self.gene_of]
            scaled = ((part * scales)[:, of_kind] for part in (left, right))
            sums.append(_squared(*scaled) if of_kind.any() else np.zeros((len(left), len(right))))
        return sums[0], sums[1]

    def coordinates(self, rows: Floats) -> Floats:
        """Returns rows (n, n_genes) as coordinates (n, n_coordinates)."""
        found: list[Floats] = []
        for column, table, features in zip(rows.T, self._choices, self._features, strict=True):
            if table is not None:
                found.append(table[column.astype(np.intp)])
            elif features is not None:
                found.append(features.coordinates(column))
            else:
                found.append(np.where(column == _INACTIVE, 0.5, column)[:, None])
        return np.hstack(found)


class _Features:
    """The values of a gene that were met so far, by place, with their features."""

    def __init__(self, gene: Gene) -> None:
        self._gene = gene
        self._places: dict[tuple[float, ...], int] = {}

    def places(self, values: Sequence[Any]) -> Floats:
        met = (tuple(map(float, self._gene.encode(value))) for value in values)
        return np.array([self._places.setdefault(each, len(self._places)) for each in met], float)

    def coordinates(self, column: Floats) -> Floats:
        """Returns (n, n_features) of places, at the centre where they are inactive."""
        centre = (0.5,) * self._gene.n_features
        table = np.array([*self._places, centre])  # in the order of their places
        return np.asarray(table[column.astype(np.intp)] / np.sqrt(self._gene.n_features))


def _simplex(n: int) -> Floats:
    """Returns n points at a squared distance of 1 from each other, and their centre."""
    corners = np.eye(n) / np.sqrt(2.0)
    return np.vstack((corners, corners.mean(axis=0)))


def _shared_choices(genes: Sequence[Gene]) -> dict[int, list[int]]:
    """Returns the places of shared choices of each gene that has the same choices as another."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, gene in enumerate(genes):
        if isinstance(gene, Categorical) and len(gene.choices) > 2:
            alike.setdefault(tuple(sorted(map(repr, gene.choices))), []).append(place)
    shared: dict[int, list[int]] = {}
    first = 0
    for choices, places in alike.items():
        if len(places) > 1:
            known = {choice: first + n for n, choice in enumerate(choices)}
            for place in places:
                shared[place] = [known[repr(choice)] for choice in genes[place].choices]  # type: ignore[attr-defined]
            first += len(choices)
    return shared


def _squared(left: Floats, right: Floats) -> Floats:
    """Returns the squared Euclidean distances, (n_left, n_right)."""
    found: Floats = left @ (-2.0 * right.T)
    found += (left * left).sum(axis=1)[:, None]
    found += (right * right).sum(axis=1)
    return np.maximum(found, 0.0, out=found)


def _column_of(gene: Gene) -> Callable[[Sequence[Any]], Floats]:
    """Returns what turns values of a gene into places, all at once."""
    if isinstance(gene, Categorical):
        if gene.is_hashable:
            places = {choice: float(place) for place, choice in enumerate(gene.choices)}
            return lambda values: np.array([places[value] for value in values])
        return lambda values: np.array([float(gene.position(value)) for value in values])
    if isinstance(gene, (Integer, Float)):
        bounds = np.array([gene.low, gene.decode([1.0])], dtype=np.float64)
        low, high = np.log(bounds) if gene.log else bounds
        scale = high - low if high > low else 1.0

        def scaled(values: Sequence[Any]) -> Floats:
            numbers = np.array(values, dtype=np.float64)
            return np.asarray(((np.log(numbers) if gene.log else numbers) - low) / scale)

        return scaled
    return lambda values: np.array([gene.encode(value)[0] for value in values])

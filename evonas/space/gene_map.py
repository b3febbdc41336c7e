"""Named genes in an order."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evonas.arguments import nearest
from evonas.space.genes import Categorical, Gene

__all__ = ["GeneMap"]


class GeneMap:
    """Named genes in an order, read like a dict of name to gene. Immutable.

    Args:
        genes: Name to gene; a plain list or tuple means `Categorical`.

    Raises:
        ValueError: There are no genes, or a list is no valid `Categorical`.
        TypeError: A gene is neither a `Gene` nor a list, or a name is not a string.
    """

    def __init__(self, genes: Mapping[str, Any]) -> None:
        self._genes = _checked_genes(genes)
        self._names = tuple(self._genes)
        self._types = tuple(self._genes.values())
        self._n = len(self._names)

    def __getitem__(self, name: str) -> Gene:
        try:
            return self._genes[name]
        except KeyError:
            raise KeyError(f"{name!r} is not a gene of the space{self._hint(name)}") from None

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._genes

    def keys(self) -> KeysView[str]:
        """Returns the names of the genes, in order."""
        return self._genes.keys()

    def items(self) -> ItemsView[str, Gene]:
        """Returns names and genes, in order."""
        return self._genes.items()

    @property
    def gene_types(self) -> tuple[Gene, ...]:
        """The genes in order."""
        return self._types

    @property
    def n_features(self) -> int:
        """How many floats `encode` returns."""
        return sum(gene.n_features for gene in self._types)

    def validate_values(self, values: Sequence[Any]) -> list[Any]:
        """Returns a list of values in canonical form, active or not.

        Raises:
            ValueError, TypeError: There are too few or too many, or one is not its gene's.
        """
        if len(values) != self._n:
            raise self._wrong_length(values)
        return [
            gene.validate(name, value)
            for (name, gene), value in zip(self._genes.items(), values, strict=True)
        ]

    def _decoded(self, features: ArrayLike) -> list[Any]:
        vector = np.asarray(features, dtype=np.float64)
        if vector.shape != (self.n_features,):
            raise ValueError(f"features must have shape ({self.n_features},), got {vector.shape}")
        if np.isnan(vector).any():
            raise ValueError("features must be numbers, got NaN")
        numbers = vector.tolist()
        values = []
        at = 0
        for gene in self._types:
            values.append(gene.decode(numbers[at : at + gene.n_features]))
            at += gene.n_features
        return values

    def _wrong_length(self, values: Sequence[Any]) -> ValueError:
        return ValueError(f"values must hold one per gene, {self._n}, got {len(values)}")

    def _hint(self, name: object) -> str:
        """Returns the end of an error about an unknown gene."""
        return f"{nearest(name, self._names)}; the genes of the space are: {', '.join(self._names)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _way_out(value: Any) -> str:
    """Returns how to pass what people write in place of a gene, if that is known."""
    if isinstance(value, range) and len(value) > 0:
        if value.step == 1:
            return f": pass Integer({value.start}, {value.stop - 1})"
        return f": pass {list(value)}" if len(value) <= 10 else f": pass list({value!r})"
    if value is None or isinstance(value, (bool, int, float, str)):
        return f": for a fixed value pass [{value!r}]"
    if isinstance(value, (set, frozenset)):
        return ": a set has no order, pass a list"
    return ""


def _checked_genes(genes: Any) -> dict[str, Gene]:
    if not isinstance(genes, Mapping):
        raise TypeError(
            "SearchSpace takes a dict of name to gene, or to a list of choices, got"
            f" {genes!r} ({type(genes).__name__})"
        )
    if not genes:
        raise ValueError("SearchSpace needs at least one gene, got none")
    found: dict[str, Gene] = {}
    for name, gene in genes.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a gene must be a non-empty string, got {name!r}")
        if isinstance(gene, tuple) and len(gene) == 2 and all(map(_is_number, gene)):
            whole = all(isinstance(bound, Integral) for bound in gene)
            ranges = f"Integer{gene!r} or Float{gene!r}" if whole else f"Float{gene!r}"
            raise TypeError(
                f"gene {name!r}: {gene!r} may mean a range or two choices; give {ranges} for "
                f"the range, {list(gene)!r} for the choices"
            )
        if isinstance(gene, (list, tuple)):
            try:
                gene = Categorical(gene)
            except (TypeError, ValueError) as error:
                raise type(error)(f"gene {name!r}: {error}") from None
        if not isinstance(gene, Gene):
            raise TypeError(
                f"gene {name!r} must be a Gene (Categorical, Integer, Float, Boolean) or a list of"
                f" choices, got {gene!r} ({type(gene).__name__}){_way_out(gene)}"
            )
        found[name] = gene
    return found

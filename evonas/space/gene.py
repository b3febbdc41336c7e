"""What every gene can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

__all__ = ["DEFAULT_SIGMA", "Gene"]

DEFAULT_SIGMA = 0.1  # of a number's (log) range: about one step on grids of five to ten values


class Gene(ABC):
    """One typed variable of a search space: immutable, equal when it describes the same values.

    Encoding: `encode` turns a value into `n_features` floats in [0, 1] and `decode` turns any
    floats back into the nearest value.
    """

    @property
    @abstractmethod
    def first(self) -> Any:
        """The first choice, or the lowest value."""

    @property
    @abstractmethod
    def cardinality(self) -> int | float:
        """How many values there are: an int, or `math.inf`."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """How many floats `encode` returns."""

    @abstractmethod
    def sample(self, rng: Random) -> Any:
        """Returns a random value: uniform over choices or range, log-uniform with `log`."""

    @abstractmethod
    def mutate(self, value: Any, rng: Random, sigma: float = DEFAULT_SIGMA) -> Any:
        """Returns another value than `value`, wherever there is another.

        Args:
            value: A value of this gene in canonical form.
            rng: Source of randomness.
            sigma: Standard deviation of a number's step, as a fraction of its (log) range. Other
                genes do not use it.
        """

    @abstractmethod
    def validate(self, name: str, value: Any) -> Any:
        """Returns the value in canonical form (Python's own types, a copy of lists and dicts).

        Raises:
            ValueError: The value is not among this gene's, or out of bounds.
            TypeError: The value has another type. Both name the gene by `name`.
        """

    @abstractmethod
    def neighbours(self, value: Any) -> Iterator[Any]:
        """Yields the values nearest to `value`: see the classes; never `value` itself."""

    @abstractmethod
    def all_values(self) -> Iterator[Any]:
        """Yields every value in order; raises `ValueError` where there are infinitely many."""

    @abstractmethod
    def encode(self, value: Any) -> list[float]:
        """Returns the value as `n_features` floats in [0, 1]."""

    @abstractmethod
    def decode(self, features: Sequence[float]) -> Any:
        """Returns the value nearest to `n_features` floats."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Returns the gene as JSON; see `gene_from_json`."""

    def blend(self, a: Any, b: Any, rng: Random, alpha: float = 0.5) -> tuple[Any, Any]:
        """Returns two recombined values: here a and b, swapped with probability 0.5.

        Numbers are blended instead: see `Integer.blend` and `Float.blend`.
        """
        return (b, a) if rng.random() < 0.5 else (a, b)

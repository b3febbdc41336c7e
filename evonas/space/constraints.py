"""The constraints of a search space: named predicates over the active genes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evonas.records import Genes

__all__ = ["Constraints", "Predicate"]

Predicate = Callable[[Genes], Any]
"""Takes the active genes, which it must not change; returns whether they are allowed."""


class Constraints(Mapping[str, Predicate]):
    """Named predicates, in the order in which they were given.

    Args:
        predicates: A mapping of name to predicate, one predicate, or several (named by their
            `__name__`).

    Raises:
        ValueError: Two have the same name, or a name is empty.
        TypeError: Something is not callable, or a name is not a string.
    """

    def __init__(
        self, predicates: Mapping[str, Predicate] | Predicate | Iterable[Predicate] | None
    ) -> None:
        self._predicates: dict[str, Predicate] = {}
        for name, predicate in _named(predicates):
            if not isinstance(name, str) or not name:
                raise TypeError(
                    f"the name of a constraint must be a non-empty string, got {name!r}"
                )
            if not callable(predicate):
                raise TypeError(
                    f"constraint {name!r} must be callable as predicate(genes), got {predicate!r}"
                )
            if name in self._predicates:
                raise ValueError(
                    f"two constraints are called {name!r}: name them with a dict,"
                    " constraints={'fits': predicate, ...}"
                )
            self._predicates[name] = predicate

    def __getitem__(self, name: str) -> Predicate:
        return self._predicates[name]

    def __iter__(self) -> Any:
        return iter(self._predicates)

    def __len__(self) -> int:
        return len(self._predicates)

    def violated(self, genes: Genes) -> list[str]:
        """Returns the names of the constraints that do not allow the genes.

        Raises:
            ValueError: A predicate raised, or returned None.
        """
        return [name for name in self._predicates if not self._allows(name, genes)]

    def satisfied(self, genes: Genes) -> bool:
        """Returns whether every constraint allows the genes; asks only up to the first no."""
        return all(self._allows(name, genes) for name in self._predicates)

    def _allows(self, name: str, genes: Genes) -> bool:
        try:
            answer = self._predicates[name](genes)
        except Exception as error:  # whatever it is, say which constraint and where
            raise ValueError(
                f"constraint {name!r} raised {type(error).__name__}: {error}, for the genes"
                f" {genes!r} (only active genes are passed: use genes.get('name') where one may be"
                " inactive)"
            ) from error
        if answer is None:
            raise ValueError(
                f"constraint {name!r} returned None for the genes {genes!r}: expected True or False"
            )
        return bool(answer)


def _named(predicates: Any) -> Iterable[tuple[Any, Any]]:
    if predicates is None:
        return []
    if isinstance(predicates, Mapping):
        return predicates.items()
    if callable(predicates):
        predicates = [predicates]
    if not isinstance(predicates, (list, tuple)):
        raise TypeError(
            "constraints must be {name: predicate}, a predicate or a list of them, got"
            f" {predicates!r} ({type(predicates).__name__})"
        )
    return [(getattr(entry, "__name__", type(entry).__name__), entry) for entry in predicates]

"""Shorthands of a space: genes that repeat with a count, and conditions on a range of a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from evonas.arguments import check_int, check_mapping
from evonas.space.numbers import Integer

__all__ = ["Range", "Repeat", "as_range", "expanded"]


@dataclass(frozen=True)
class Range:
    """In conditions: while the parent, a number, lies from `low` to `high`, both included.

    Args:
        low: None: any below.
        high: None: any above.

    Raises:
        TypeError, ValueError: A bound is no number, both are None, or low > high.

    Example:
        >>> 3 in Range(2), 1 in Range(2), 1 in Range(high=1)
        (True, False, True)
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise TypeError(f"Range: {name} must be a number, got {value!r}")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"Range: {name} must be finite, got {value!r}")
        if self.low is None and self.high is None:
            raise ValueError("Range must have a bound, got none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Range: low must not exceed high, got {self.low} > {self.high}")

    def __contains__(self, value: Any) -> bool:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        above = self.low is None or (is_number and value >= self.low)
        return is_number and above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"at most {self.high}" if self.low is None else f"at least {self.low}"
        return f"from {self.low} to {self.high}"

    def to_json(self) -> dict[str, float | None]:
        """Returns the bounds."""
        return {"low": self.low, "high": self.high}


class Repeat:
    """In a space: the same genes several times, with a gene that says how often.

    `"conv": Repeat(1, 6, {...})` stands for the gene `n_conv`, from 1 to 6, and for each place the
    genes `conv1_<name>`, `conv2_<name>`, …, which are active where `n_conv` reaches that place.
    `Repeat.each(genes, "conv")` gives a model function the active ones, place by place. What
    repeats may hold a `Repeat` again.

    Args:
        low: Fewest; 0 or more.
        high: Most.
        genes: Name to gene, as in a space.
        conditions: Between these genes, by the names that they have here.

    Raises:
        TypeError, ValueError: The counts are no whole numbers, or low > high.

    Example:
        >>> from evonas.space import SearchSpace
        >>> space = SearchSpace({"conv": Repeat(1, 2, {"filters": [16, 32]}), "lr": [0.1, 0.01]})
        >>> list(space)
        ['n_conv', 'conv1_filters', 'conv2_filters', 'lr']
        >>> Repeat.each({"n_conv": 2, "conv1_filters": 16, "conv2_filters": 32, "lr": 0.1}, "conv")
        [{'filters': 16}, {'filters': 32}]
    """

    def __init__(
        self,
        low: int,
        high: int,
        genes: Mapping[str, Any],
        *,
        conditions: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        check_int("Repeat: low", low, minimum=0)
        check_int("Repeat: high", high, minimum=1)
        if low > high:
            raise ValueError(f"Repeat: low must not exceed high, got {low} > {high}")
        check_mapping("Repeat: genes", genes)
        if not genes:
            raise ValueError("Repeat: genes must be at least one, got none")
        if conditions is not None:
            check_mapping("Repeat: conditions", conditions)
        self.low, self.high = low, high
        self.genes, self.conditions = dict(genes), dict(conditions or {})

    @staticmethod
    def each(genes: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        """Returns the genes of each place, by the names that they have within.

        Args:
            genes: Of a point.
            name: Of the `Repeat` in the space.

        Raises:
            KeyError: There is no such `Repeat`.
        """
        count = f"n_{name}"
        if count not in genes:
            raise KeyError(f"{name!r} is no Repeat of these genes, which are: {', '.join(genes)}")
        found = []
        for place in range(1, genes[count] + 1):
            prefix, counter = f"{name}{place}_", f"n_{name}{place}_"
            inner = {
                key.removeprefix(prefix): genes[key] for key in genes if key.startswith(prefix)
            }
            # The count of a Repeat within: n_stage1_block is n_block of the first stage.
            inner |= {
                f"n_{key.removeprefix(counter)}": genes[key]
                for key in genes
                if key.startswith(counter)
            }
            found.append(inner)
        return found

    def __repr__(self) -> str:
        return f"Repeat({self.low}, {self.high}, {self.genes!r})"


def expanded(
    genes: Any, conditions: Mapping[str, Mapping[str, Any]] | None
) -> tuple[Any, Mapping[str, Mapping[str, Any]] | None]:
    """Returns the genes and conditions of a space without shorthands.

    Raises:
        ValueError: Two genes have one name, or a condition is on a `Repeat`.
    """
    if not isinstance(genes, Mapping) or not any(isinstance(g, Repeat) for g in genes.values()):
        return genes, conditions
    found: dict[str, Any] = {}
    given = dict(conditions or {})
    for name, gene in genes.items():
        if not isinstance(gene, Repeat):
            _add(found, name, gene)
            continue
        condition = given.pop(name, {})
        inner_genes, inner_conditions = expanded(gene.genes, gene.conditions)
        count = f"n_{name}"
        _add(found, count, Integer(gene.low, gene.high))
        if condition:
            given[count] = condition
        for place in range(1, gene.high + 1):
            names = {inner: _inner_name(name, place, inner) for inner in inner_genes}
            for inner, own in names.items():
                _add(found, own, inner_genes[inner])
                parents = {
                    names.get(parent, parent): values
                    for parent, values in (inner_conditions or {}).get(inner, {}).items()
                }
                if place > gene.low:
                    parents[count] = list(range(place, gene.high + 1))
                if condition:
                    parents |= {count: parents.get(count, list(range(gene.low, gene.high + 1)))}
                if parents:
                    given[own] = parents
    return found, given


def _inner_name(name: str, place: int, inner: str) -> str:
    if inner.startswith("n_"):  # the count of a Repeat within
        return f"n_{name}{place}_{inner[2:]}"
    return f"{name}{place}_{inner}"


def _add(found: dict[str, Any], name: str, gene: Any) -> None:
    if name in found:
        raise ValueError(f"two genes have the name {name!r}: one of them comes from a Repeat")
    found[name] = gene


def as_range(values: Any) -> Range | None:
    """Returns a range as `to_json` described it, or itself; None where it is no range."""
    if isinstance(values, Mapping) and values and set(values) <= {"low", "high"}:
        return Range(**values)
    return values if isinstance(values, Range) else None

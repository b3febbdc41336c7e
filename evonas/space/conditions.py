"""Which genes are active: the conditions of a search space, checked and made quick to evaluate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from evonas.arguments import nearest
from evonas.space.canonical import canonical_json
from evonas.space.genes import Boolean, Categorical, Float, Gene, Integer
from evonas.space.repeat import Range, as_range

__all__ = ["Conditions"]


class Conditions:
    """Which genes are active, given one value per gene.

    A gene without conditions is always active. One with conditions is active when each of its
    parents is active and has one of the values listed for it.

    Args:
        genes: The genes of the space, in order.
        conditions: `{child: {parent: [values that activate it]}}`.

    Raises:
        ValueError: An unknown gene or value, an empty list, a continuous parent, or a cycle.
        TypeError: Something is not a mapping or a list where one is expected.
    """

    def __init__(self, genes: Mapping[str, Gene], conditions: Mapping[str, Any] | None) -> None:
        self._names = list(genes)
        self._genes = [genes[name] for name in self._names]
        place = {name: index for index, name in enumerate(self._names)}
        self._allowed = _checked(genes, {} if conditions is None else conditions)
        self._parents: list[dict[int, list[Any] | Range]] = [
            {place[parent]: values for parent, values in self._allowed.get(name, {}).items()}
            for name in self._names
        ]
        self.order = self._topological_order()
        """Places of the genes, parents before children."""
        self._tests_of = [
            tuple((parent, _tester(self._genes[parent], v)) for parent, v in parents.items())
            for parents in self._parents
        ]
        self._tests = tuple(
            (index, self._tests_of[index]) for index in self.order if self._parents[index]
        )

    def __bool__(self) -> bool:
        return bool(self._tests)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Returns `{child: {parent: [values], or {"low", "high"}}}` in the order of the genes."""
        return {
            child: {
                parent: values.to_json() if isinstance(values, Range) else copy.deepcopy(values)
                for parent, values in parents.items()
            }
            for child, parents in self._allowed.items()
        }

    def active(self, values: Sequence[Any]) -> list[bool]:
        """Returns for each gene whether it is active; those of inactive genes may be anything."""
        flags = [True] * len(self._names)
        for index, tests in self._tests:
            for parent, allowed in tests:
                if not flags[parent] or values[parent] not in allowed:
                    flags[index] = False
                    break
        return flags

    def is_active(self, index: int, flags: Sequence[bool], values: Sequence[Any]) -> bool:
        """Returns whether one gene is active, from flags and values of those before in `order`."""
        return all(
            flags[parent] and values[parent] in allowed for parent, allowed in self._tests_of[index]
        )

    def enumerate(self) -> Iterator[tuple[list[Any], list[bool]]]:
        """Yields values and activity of every point once; values of inactive genes are None.

        Both lists are changed by the next step: copy what is kept.
        """
        return self._enumerate([None] * len(self._names), [False] * len(self._names), 0)

    def _enumerate(
        self, values: list[Any], flags: list[bool], at: int
    ) -> Iterator[tuple[list[Any], list[bool]]]:
        # Depth first over the genes, parents before children; inactive genes do not branch.
        if at == len(self.order):
            yield values, flags
            return
        index = self.order[at]
        flags[index] = self.is_active(index, flags, values)
        for value in self._genes[index].all_values() if flags[index] else (None,):
            values[index] = value
            yield from self._enumerate(values, flags, at + 1)

    def cardinality(self) -> int | float:
        """Returns how many points differ in an active gene; `math.inf` with a continuous one.

        Counts along the order of the genes, keeping for each combination of those parents that
        still have children to come the number of points so far: exact, and exponential only in
        how many parents are open at once, not in the number of genes.
        """
        if any(isinstance(values, Range) for p in self._parents for values in p.values()):
            return math.inf  # they are on continuous genes
        last_use = {
            parent: at for at, index in enumerate(self.order) for parent in self._parents[index]
        }
        counts: dict[tuple[tuple[int, frozenset[int] | None], ...], int] = {(): 1}
        for at, index in enumerate(self.order):
            groups = self._groups(index) if index in last_use else None
            found: dict[tuple[tuple[int, frozenset[int] | None], ...], int] = {}
            for state, count in counts.items():
                open_parents = dict(state)
                active = all(index in (open_parents[p] or ()) for p in self._parents[index])
                options: list[tuple[frozenset[int] | None, int | float]]
                if not active:
                    options = [(None, 1)]
                else:
                    options = groups or [(None, self._genes[index].cardinality)]
                kept = [item for item in state if last_use[item[0]] > at]
                for children, size in options:
                    if math.isinf(size):
                        return math.inf
                    key = tuple([*kept, (index, children)] if groups else kept)
                    found[key] = found.get(key, 0) + count * int(size)
            counts = found
        return sum(counts.values())

    def _groups(self, parent: int) -> list[tuple[frozenset[int] | None, int | float]]:
        """Returns the sets of children that values of a parent allow, with the number of values."""
        children: dict[str, set[int]] = {}
        for child, parents in enumerate(self._parents):
            listed = parents.get(parent, ())
            for value in () if isinstance(listed, Range) else listed:
                children.setdefault(canonical_json(value), set()).add(child)
        sizes: dict[frozenset[int], int | float] = {}
        for allowed in children.values():
            sizes[frozenset(allowed)] = sizes.get(frozenset(allowed), 0) + 1
        rest = self._genes[parent].cardinality - len(children)
        if rest:
            sizes[frozenset()] = rest
        return list(sizes.items())

    def _topological_order(self) -> tuple[int, ...]:
        """Returns parents before children, each child as early as it can be.

        Early, because `cardinality` costs more the more parents are open at once.
        """
        children: dict[int, list[int]] = {}
        for child, parents in enumerate(self._parents):
            for parent in parents:
                children.setdefault(parent, []).append(child)
        missing = [len(parents) for parents in self._parents]
        order: list[int] = []
        for root in (index for index, parents in enumerate(self._parents) if not parents):
            stack = [root]
            while stack:
                index = stack.pop()
                order.append(index)
                for child in reversed(children.get(index, ())):
                    missing[child] -= 1
                    if not missing[child]:
                        stack.append(child)
        if len(order) < len(self._names):
            stuck = [name for index, name in enumerate(self._names) if index not in set(order)]
            raise ValueError(
                "conditions form a cycle, so these genes would never be active:"
                f" {', '.join(stuck)}; expected each gene to depend on others only"
            )
        return tuple(order)


class _TextSet:
    """Values of a parent whose choices only their JSON texts tell apart (1, 1.0 and True)."""

    def __init__(self, values: Collection[Any]) -> None:
        self._texts = frozenset(canonical_json(value) for value in values)

    def __contains__(self, value: Any) -> bool:
        return canonical_json(value) in self._texts


def _tester(parent: Gene, values: Collection[Any] | Range) -> frozenset[Any] | _TextSet | Range:
    if isinstance(values, Range):
        return values
    plain = (
        parent.is_hashable
        if isinstance(parent, Categorical)
        else isinstance(parent, (Boolean, Integer))
    )
    return frozenset(values) if plain else _TextSet(values)


def _checked(genes: Mapping[str, Gene], conditions: Any) -> dict[str, dict[str, list[Any] | Range]]:
    if not isinstance(conditions, Mapping):
        raise TypeError(
            "conditions must be {child: {parent: [values that activate it]}}, got"
            f" {conditions!r} ({type(conditions).__name__})"
        )
    for child, parents in conditions.items():
        if child not in genes:
            raise ValueError(_unknown("conditions: the conditional gene", child, genes))
        if not isinstance(parents, Mapping) or not parents:
            raise TypeError(
                f"conditions[{child!r}] must be {{parent: [values that activate it]}}, got"
                f" {parents!r}"
            )
    return {
        child: {
            parent: _checked_values(child, parent, values, genes)
            for parent, values in conditions[child].items()
        }
        for child in genes
        if child in conditions
    }


def _checked_values(
    child: str, parent: str, values: Any, genes: Mapping[str, Gene]
) -> list[Any] | Range:
    where = f"conditions[{child!r}][{parent!r}]"
    if parent not in genes:
        raise ValueError(_unknown(f"conditions[{child!r}]: the parent", parent, genes))
    gene = genes[parent]
    wanted = as_range(values)
    if math.isinf(gene.cardinality):
        if wanted is not None and isinstance(gene, Float):
            _check_reached(where, gene, wanted, child)
            return wanted
        raise ValueError(
            f"{where}: {gene!r} is continuous and does not hit listed values; give Range(low, high)"
            " for a Float, or a parent that is Categorical, Integer or Boolean"
        )
    if wanted is not None:  # of the values that the parent has, those within
        values = [value for value in gene.all_values() if value in wanted]
    if not isinstance(values, (list, tuple, set, frozenset, range)):
        raise TypeError(
            f"{where} must be a list of values that activate {child!r}, got {values!r}: put a"
            " single value into a list"
        )
    if not values:
        raise ValueError(f"{where} lists no value, so {child!r} would never be active")
    rank: Callable[[Any], Any] = gene.position if isinstance(gene, Categorical) else gene.encode
    found: dict[str, Any] = {}
    for value in values:
        try:
            valid = gene.validate(parent, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        found[canonical_json(valid)] = valid
    return sorted(found.values(), key=rank)


def _check_reached(where: str, gene: Float, wanted: Range, child: str) -> None:
    low = gene.low if wanted.low is None else max(gene.low, wanted.low)
    high = gene.high if wanted.high is None else min(gene.high, wanted.high)
    if low > high:
        raise ValueError(f"{where}: {gene!r} is never {wanted}, so {child!r} would never be active")


def _unknown(what: str, name: object, genes: Mapping[str, Gene]) -> str:
    return (
        f"{what} {name!r} is not a gene of the space{nearest(name, genes)}; "
        f"its genes are: {', '.join(genes)}"
    )

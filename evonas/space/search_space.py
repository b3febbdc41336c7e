"""The search space: named genes, when each is active, and which points are allowed."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evonas.records import Genes
from evonas.space.canonical import canonical_json, copy_json
from evonas.space.conditions import Conditions
from evonas.space.constraints import Constraints, Predicate
from evonas.space.gene_map import GeneMap
from evonas.space.genes import Categorical, Gene, gene_from_json
from evonas.space.repeat import Range, Repeat, as_range, expanded
from evonas.space.sampling import draw_values, first_satisfying

__all__ = ["SearchSpace", "canonical_json"]


class SearchSpace(GeneMap):
    """Named genes in an order, with conditions and constraints. Immutable.

    A point has two forms. *Genes* are a dict of the active genes only: what a fitness function
    receives, what is stored, and what counts for the key. *Values* are a list with one value for
    every gene in order: what a DEAP individual is. There, inactive genes keep a value that nobody
    sees until a mutation activates the gene.

    The space can be read like a dict of name to gene (`space["lr"]`, `len`, iteration, `items()`),
    except that `values(genes)` is the list above.

    Args:
        genes: Name to gene, in order. A plain list or tuple means `Categorical`; a `Repeat` stands
            for several genes and how often they come.
        conditions: `{child: {parent: [values that activate it]}}`, or `Range(low, high)` for a
            parent that is a number. Several parents must all agree. A gene whose parent is
            inactive is inactive.
        constraints: `{name: predicate}`, one predicate or a list of them (named by `__name__`). A
            predicate takes the active genes and returns whether they are allowed.

    Raises:
        ValueError: There are no genes; a condition names an unknown gene or value, or conditions
            form a cycle; two constraints have one name.
        TypeError: A gene is neither a `Gene` nor a list, a constraint is not callable.

    Example:
        >>> space = SearchSpace(
        ...     {"depth": [1, 2], "width1": [16, 32], "width2": [16, 32]},
        ...     conditions={"width2": {"depth": [2]}},
        ...     constraints={"narrows": lambda genes: genes["width1"] >= genes.get("width2", 0)},
        ... )
        >>> space.cardinality
        6
        >>> space.genes([1, 32, 16])
        {'depth': 1, 'width1': 32}
        >>> space.violated({"depth": 2, "width1": 16, "width2": 32})
        ['narrows']
    """

    def __init__(
        self,
        genes: Mapping[str, Gene | Sequence[Any] | Repeat],
        *,
        conditions: Mapping[str, Mapping[str, Iterable[Any] | Range]] | None = None,
        constraints: Mapping[str, Predicate] | Predicate | Sequence[Predicate] | None = None,
    ) -> None:
        genes, conditions = expanded(genes, conditions)
        super().__init__(genes)
        self._conditions = Conditions(self._genes, conditions)
        self._constraints = Constraints(constraints)
        self._conditional = bool(self._conditions)
        self._constrained = bool(self._constraints)
        self._copied = tuple(
            name
            for name, gene in self._genes.items()
            if isinstance(gene, Categorical) and gene.has_containers
        )
        self._fingerprint: str | None = None

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """`{child: {parent: [values that activate it]}}` in canonical form."""
        return self._conditions.to_json()

    @property
    def constraints(self) -> Mapping[str, Predicate]:
        """Name to predicate."""
        return self._constraints

    # One form of a point to the other.

    def genes(self, values: Sequence[Any]) -> Genes:
        """Returns the active genes of a list of values.

        Args:
            values: One per gene, in order and in canonical form (they are not checked).

        Raises:
            ValueError: There are too few or too many.
        """
        if len(values) != self._n:
            raise self._wrong_length(values)
        if self._conditional:
            flags = self._conditions.active(values)
            genes = dict(compress(zip(self._names, values, strict=True), flags))
        else:
            genes = dict(zip(self._names, values, strict=True))
        for name in self._copied:
            if name in genes:
                genes[name] = copy_json(genes[name])
        return genes

    def values(self, genes: Mapping[str, Any], rng: random.Random | None = None) -> list[Any]:
        """Returns the list of values of a point, with something for the inactive genes.

        Args:
            genes: The active genes; checked as by `validate`.
            rng: Draws the values of inactive genes. None: their first choice or lowest value.

        Raises:
            ValueError, TypeError: See `validate`.
        """
        valid = self.validate(genes)
        return [
            valid[name] if name in valid else gene.first if rng is None else gene.sample(rng)
            for name, gene in self._genes.items()
        ]

    def active(self, values: Sequence[Any]) -> tuple[bool, ...]:
        """Returns for each gene, in order, whether it is active in a list of values."""
        return tuple(self._conditions.active(values))

    def resolve(self, genes: Mapping[str, Any]) -> Genes:
        """Returns the genes with the names of named choices replaced by their objects.

        Raises:
            ValueError: A gene is unknown, or a name is none of its choices.
        """
        resolved = dict(genes)
        for name, value in genes.items():
            gene = self._genes.get(name)
            if gene is None:
                raise ValueError(f"unknown gene {name!r}{self._hint(name)}")
            if isinstance(gene, Categorical) and gene.is_named:
                resolved[name] = gene.object(value)
        return resolved

    # Checking.

    def validate(self, genes: Mapping[str, Any]) -> Genes:
        """Returns the active genes in canonical form and order; inactive ones are dropped.

        Constraints are not asked: see `violated`.

        Raises:
            ValueError: A gene is unknown or missing, or a value is not among its gene's.
            TypeError: `genes` is not a mapping, or a value has the wrong type.
        """
        if not isinstance(genes, Mapping):
            raise TypeError(
                f"genes must be a dict of gene name to value, got {genes!r}"
                f" ({type(genes).__name__})"
            )
        for name in genes:
            if name not in self._genes:
                raise ValueError(f"unknown gene {name!r}{self._hint(name)}")
        values: list[Any] = [None] * self._n
        flags = [False] * self._n
        missing = []
        for index in self._conditions.order:
            if not self._conditions.is_active(index, flags, values):
                continue
            flags[index] = True
            name, gene = self._names[index], self._types[index]
            if name in genes:
                values[index] = gene.validate(name, genes[name])
            else:
                missing.append(f"{name!r} (expected {gene!r})")
        if missing:
            raise ValueError(f"missing gene{'s' * (len(missing) > 1)}: {', '.join(missing)}")
        return dict(compress(zip(self._names, values, strict=True), flags))

    def violated(self, genes: Genes) -> list[str]:
        """Returns the names of the constraints that do not allow these active genes.

        Raises:
            ValueError: A predicate raised or returned None; the message names it and the genes.
        """
        return self._constraints.violated(genes) if self._constrained else []

    def satisfied(self, values: Sequence[Any]) -> bool:
        """Returns whether every constraint allows a list of values.

        Raises:
            ValueError: See `violated`.
        """
        return not self._constrained or self._constraints.satisfied(self.genes(values))

    # Drawing and listing points.

    def sample(self, rng: random.Random | None = None) -> Genes:
        """Returns a random point that satisfies the constraints.

        Args:
            rng: Source of randomness. None: the global `random`, as in DEAP.

        Raises:
            UnsatisfiableSpaceError: See `sample_values`.
        """
        return self.genes(self.sample_values(rng))

    def sample_values(self, rng: random.Random | None = None) -> list[Any]:
        """Returns the list of values of a random point that satisfies the constraints.

        Every gene is drawn by itself, active or not. With constraints, up to 1,000 points are
        drawn; if none is allowed and the space has at most 100,000 points, they are enumerated and
        one of the allowed ones is drawn.

        Raises:
            UnsatisfiableSpaceError: No point was found, or there is none; says how often each
                constraint rejected.
        """
        return draw_values(self, random if rng is None else rng)

    def resample(self, draw: Callable[[], list[Any]]) -> list[Any]:
        """Returns the first of up to 1,000 drawn lists of values that satisfies the constraints.

        Args:
            draw: Returns values in canonical form.

        Raises:
            UnsatisfiableSpaceError: None did; says how often each constraint rejected.
        """
        return first_satisfying(self, draw)

    def enumerate(self, *, constrained: bool = True) -> Iterator[Genes]:
        """Yields every point of a finite space once, in the order of the genes' values.

        Args:
            constrained: Whether to leave out points that violate a constraint.

        Raises:
            ValueError: A gene is continuous.
        """
        if math.isinf(self.cardinality):
            endless = [name for name, gene in self.items() if math.isinf(gene.cardinality)]
            raise ValueError(
                f"the space has infinitely many points: {', '.join(endless)} is continuous"
            )
        for values, flags in self._conditions.enumerate():
            genes = {
                name: copy_json(value)
                for name, value in compress(zip(self._names, values, strict=True), flags)
            }
            if not constrained or not self.violated(genes):
                yield genes

    def neighbours(
        self, genes: Mapping[str, Any], rng: random.Random | None = None
    ) -> Iterator[Genes]:
        """Yields the points that differ in one gene and satisfy the constraints.

        Each gene in turn takes the values that its `neighbours` yields. Where that activates other
        genes, they come with their first choice or lowest value, or drawn from `rng`; where it
        makes genes inactive, they are gone.

        Raises:
            ValueError, TypeError: See `validate`.
        """
        valid = self.validate(genes)
        latent = self.values(valid, rng)
        for index, (name, gene) in enumerate(self._genes.items()):
            if name not in valid:
                continue
            for near in gene.neighbours(valid[name]):
                changed = self.genes([*latent[:index], near, *latent[index + 1 :]])
                if not self.violated(changed):
                    yield changed

    @property
    def cardinality(self) -> int | float:
        """How many distinct points there are, constraints aside; `math.inf` with a `Float`.

        Points that differ in inactive genes only are one.
        """
        return self._conditions.cardinality()

    # What identifies a point and a space.

    def key(self, genes: Mapping[str, Any]) -> str:
        """Returns the SHA-256 (hexadecimal) of the active genes; equal keys, equal points.

        Args:
            genes: In canonical form (from `sample`, `genes`, `validate`; not checked); inactive
                ones do not count.
        """
        if self._conditional:
            genes = self._only_active(genes)
        return hashlib.sha256(canonical_json(genes).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of `to_json()`: genes, their order, conditions, names of constraints.

        The code of constraints is not part of it: rename a constraint when it changes.
        """
        if self._fingerprint is None:
            text = canonical_json(self.to_json())
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprint

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SearchSpace):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    # Numbers, for models of the fitness.

    def encode(self, genes: Mapping[str, Any]) -> NDArray[np.float64]:
        """Returns the genes as a float64 vector (n_features,).

        Active genes: see `Gene.encode`, floats in [0, 1]. Inactive genes: -1 for each feature.

        Args:
            genes: In canonical form (not checked); inactive ones are ignored.

        Raises:
            ValueError: An active gene is missing.
        """
        active = self._only_active(genes)
        features: list[float] = []
        for name, gene in self._genes.items():
            features += gene.encode(active[name]) if name in active else [-1.0] * gene.n_features
        return np.array(features, dtype=np.float64)

    def decode(self, features: ArrayLike) -> Genes:
        """Returns the active genes nearest to a vector (n_features,).

        Conditions decide which are active; the features of inactive genes are ignored. Constraints
        are not asked.

        Raises:
            ValueError: The vector has another shape, or holds NaN.
        """
        return self.genes(self._decoded(features))

    # JSON.

    def to_json(self) -> dict[str, Any]:
        """Returns genes, conditions and the names of the constraints as JSON."""
        return {
            "genes": [{"name": name, **gene.to_json()} for name, gene in self.items()],
            "conditions": self.conditions,
            "constraints": list(self._constraints),
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], constraints: Mapping[str, Predicate] | None = None
    ) -> SearchSpace:
        """Returns the space that `to_json` described.

        Args:
            data: What `to_json` returned.
            constraints: The predicates by name: JSON holds only the names. `{}` reads the space
                without them.

        Raises:
            ValueError: The data is not a space's, or holds constraints other than those given.
        """
        try:
            entries = [dict(entry) for entry in data["genes"]]
            genes = {entry.pop("name"): gene_from_json(entry) for entry in entries}
            conditions, names = data.get("conditions", {}), list(data.get("constraints", []))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is not the JSON of a search space ({error!r})") from None
        given = list(constraints or ())
        if sorted(names) != sorted(given) and constraints != {}:
            raise ValueError(
                f"the space has the constraints {names}, got {given}: pass"
                " constraints={name: predicate}, or constraints={} to read it without them"
            )
        ordered = {name: (constraints or {})[name] for name in names if given}
        return cls(genes, conditions=conditions, constraints=ordered)

    def unconstrained(self) -> SearchSpace:
        """Returns this space without its constraints: the same genes, values and keys."""
        return SearchSpace(self._genes, conditions=self.conditions)

    def __repr__(self) -> str:
        lines = [f"    {name}: {gene!r}," for name, gene in self.items()]
        for child, parents in self.conditions.items():
            when = " and ".join(
                f"{name} is {wanted}" if (wanted := as_range(values)) else f"{name} in {values}"
                for name, values in parents.items()
            )
            lines.append(f"    {child} is active when {when},")
        if self._constraints:
            lines.append(f"    constraints: {', '.join(self._constraints)},")
        return "\n".join(["SearchSpace(", *lines, ")"])

    # Inside.

    def _only_active(self, genes: Mapping[str, Any]) -> Genes:
        flags = self._conditions.active([genes.get(name) for name in self._names])
        active = list(compress(self._names, flags))
        try:
            return {name: genes[name] for name in active}
        except KeyError as error:
            raise ValueError(f"missing gene {error}: expected {', '.join(active)}") from None

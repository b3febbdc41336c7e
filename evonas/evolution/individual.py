"""DEAP individuals and fitnesses as plain importable classes, without `deap.creator`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deap import base

__all__ = ["Fitness", "Individual", "clone", "individual_from_json", "individual_to_json"]


class Fitness(base.Fitness):  # type: ignore[misc]
    """A DEAP fitness whose weights belong to the instance.

    Compares, hashes and is set like DEAP's: `fitness.values = (0.9,)`, `del fitness.values`,
    `fitness.valid`; of two, the greater is the better one.

    Args:
        weights: One per objective: positive to maximise, negative to minimise.
        values: The values, or nothing while there are none.

    Raises:
        ValueError: There are no weights, one is 0, or there are not as many values.

    Example:
        >>> Fitness((-1.0,), (3.0,)) > Fitness((-1.0,), (5.0,))
        True
    """

    def __init__(self, weights: Sequence[float], values: Sequence[float] = ()) -> None:
        self.weights = tuple(weights)
        if not self.weights or not all(self.weights):
            raise ValueError(
                f"weights must be one number other than 0 per objective, got {self.weights!r}"
            )
        if values and len(values) != len(self.weights):
            raise ValueError(
                f"values must be one per weight, {len(self.weights)}, got {tuple(values)!r}"
            )
        super().__init__(values)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fitness:
        # DEAP's own calls the class without arguments and would lose the weights.
        new = type(self).__new__(type(self))
        new.weights = self.weights
        new.wvalues = self.wvalues
        return new

    def __repr__(self) -> str:
        return f"Fitness({self.weights!r}, {self.values if self.valid else ()!r})"


class Individual(list[Any]):
    """A DEAP individual: the list of gene values, its fitness and its lineage.

    Compares like a list. Attributes that others set on it are copied by `deepcopy` and pickled.

    Args:
        values: One value per gene, in the order of the space (see `SearchSpace.values`).
        fitness: None: one objective, maximised, no value yet.

    Attributes:
        fitness: The `Fitness`.
        number: Number of the evaluation it got, or None.
        key: Key of the point that it was when a strategy last looked (see `Problem.key`), or None.
            Operators change an individual in place and leave this as it is.
        parents: Numbers of the evaluations that it was made from.

    Example:
        >>> individual = Individual([64, 0.1])
        >>> individual.fitness.valid
        False
    """

    fitness: Fitness
    number: int | None
    key: str | None
    parents: tuple[int, ...]

    def __init__(self, values: Iterable[Any] = (), fitness: Fitness | None = None) -> None:
        super().__init__(values)
        self.fitness = Fitness((1.0,)) if fitness is None else fitness
        self.number = None
        self.key = None
        self.parents = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Individual:
        # Values are never changed in place (the operators replace them), so they are shared.
        new = type(self).__new__(type(self))
        new[:] = self
        state = new.__dict__
        state.update(self.__dict__)
        state["fitness"] = self.fitness.__deepcopy__(memo)
        if len(state) > _N_ATTRIBUTES:
            for name in state.keys() - _ATTRIBUTES:
                state[name] = copy.deepcopy(state[name], memo)
        return new


_ATTRIBUTES = frozenset(("fitness", "number", "key", "parents"))
_N_ATTRIBUTES = len(_ATTRIBUTES)


def clone(individual: Any) -> Any:
    """Returns a copy of an individual of any class, with a fitness of its own.

    Example:
        >>> clone(Individual([1, 2]))
        [1, 2]
    """
    if isinstance(individual, Individual):  # past deepcopy's dispatch, half of its time
        return individual.__deepcopy__({})
    return copy.deepcopy(individual)


def individual_to_json(individual: Any) -> dict[str, Any]:
    """Returns values, fitness values (None: not evaluated), number, key and parents."""
    return {
        "values": list(individual),
        "fitness": list(individual.fitness.values) if individual.fitness.valid else None,
        "number": individual.number,
        "key": individual.key,
        "parents": list(individual.parents),
    }


def individual_from_json(entry: Mapping[str, Any], weights: Sequence[float]) -> Individual:
    """Returns the evaluated individual that `individual_to_json` described."""
    individual = Individual(entry["values"], Fitness(weights, entry["fitness"]))
    individual.key, individual.number = entry["key"], entry["number"]
    individual.parents = tuple(entry["parents"])
    return individual

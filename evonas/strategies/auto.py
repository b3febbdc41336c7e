"""`strategy="auto"`: which strategy serves a space, a budget and its objectives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evonas.arguments import nearest
from evonas.objectives import Objective
from evonas.space import SearchSpace
from evonas.strategies.aging import AgingEvolution
from evonas.strategies.base import Strategy
from evonas.strategies.generational import Generational
from evonas.strategies.hyperband import Hyperband
from evonas.strategies.local_search import LocalSearch
from evonas.strategies.nsga2 import NSGA2
from evonas.strategies.random_search import RandomSearch
from evonas.strategies.surrogate import SurrogateEvolution

__all__ = ["BY_NAME", "as_strategy", "choose_strategy", "rebuild_strategy"]

BY_NAME: dict[str, Callable[[], Strategy]] = {
    "genetic": Generational,
    "surrogate": SurrogateEvolution,
    "aging": AgingEvolution,
    "hyperband": Hyperband,
    "local": LocalSearch,
    "random": RandomSearch,
    "nsga2": NSGA2,
}
"""The strategies with their defaults, for `evolve(strategy="random")`."""

_MOST_MODELLED = 2_000  # evaluations: of more the model learns from a part, at 0.2 s a proposal
_MOST_GENES = 200
_FEW = 500  # evaluations: the logbook then has a row for each ten


def as_strategy(strategy: object, others: Iterable[str] = ()) -> Strategy:
    """Returns a strategy, or the one of a name.

    Args:
        strategy: What was given.
        others: Further names that the caller knows, for the error.

    Raises:
        ValueError: It is another name.
        TypeError: It is something else, or a class.
    """
    if isinstance(strategy, Strategy):
        return strategy
    names = ", ".join(map(repr, [*others, *BY_NAME]))
    if isinstance(strategy, str):
        if strategy in BY_NAME:
            return BY_NAME[strategy]()
        raise ValueError(
            f"strategy must be a Strategy object or {names}, got {strategy!r}"
            f"{nearest(strategy, BY_NAME)}"
        )
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        name = strategy.__name__
        raise TypeError(f"strategy must be a Strategy, got the class {name}: write {name}()")
    raise TypeError(f"strategy must be a Strategy object or {names}, got {strategy!r}")


def choose_strategy(
    space: SearchSpace, objectives: Sequence[Objective], n_evaluations: int | None
) -> tuple[Strategy, str]:
    """Returns the strategy that our benchmark recommends, and why, in words.

    `SurrogateEvolution` up to 2,000 evaluations and 200 genes; beyond, where a model costs more
    than it brings, `Generational`, or `NSGA2` for several objectives, with 100 individuals. The
    number of workers has no say. What is chosen needs numpy alone.

    Args:
        space: What is searched.
        objectives: What is optimised.
        n_evaluations: The budget, None where it is not known.

    Example:
        >>> strategy, why = choose_strategy(
        ...     SearchSpace({"x": [1, 2, 3]}), [Objective("accuracy")], 100
        ... )
        >>> strategy.name, why
        ('SurrogateEvolution', '1 gene, 1 objective, 100 evaluations')
    """
    n_points = min(space.cardinality, math.inf if n_evaluations is None else n_evaluations)
    why = ", ".join(
        (
            _counted(len(space), "gene"),
            _counted(len(objectives), "objective"),
            "no known number of evaluations"
            if n_evaluations is None
            else _counted(n_evaluations, "evaluation"),
        )
    )
    if len(space) <= _MOST_GENES and (n_points <= _MOST_MODELLED or n_evaluations is None):
        row_every = 50 if n_evaluations is None or n_evaluations > _FEW else 10
        return SurrogateEvolution(row_every=row_every), why
    if len(objectives) > 1:
        return NSGA2(100), why
    return Generational(100), why


def rebuild_strategy(settings: Mapping[str, Any]) -> Strategy:
    """Returns what `choose_strategy` chose when a run began, from the settings that it keeps.

    Raises:
        ValueError: The settings are of none of its strategies.
    """
    classes = {each.__name__: each for each in (SurrogateEvolution, Generational, NSGA2)}
    chosen = classes.get(settings["name"])
    if chosen is None:
        raise ValueError(f"auto never chose {settings['name']!r}, only {', '.join(classes)}")
    arguments = inspect.signature(chosen).parameters
    return chosen(**{name: value for name, value in settings.items() if name in arguments})


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""evonas evolves PyTorch models: their architecture, their training, and which layers to freeze.

Importing it does not import torch. The names below are the public ones; `evonas.nas`,
`evonas.freezing` and `evonas.training` hold what needs torch.
"""

from __future__ import annotations

from evonas.callbacks.base import Observer
from evonas.evolution.individual import Fitness, Individual
from evonas.evolution.toolbox import make_toolbox
from evonas.exceptions import EvonasError, InvalidPoint, SearchInterrupted, TooManyFailures
from evonas.execution.trial import Trial
from evonas.objectives import Objective
from evonas.problem import FunctionProblem, Problem
from evonas.pruning import MedianPruner, SuccessiveHalving
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.run.confirm import confirm
from evonas.run.evolve import evolve
from evonas.run.result import Result, open_run
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Integer
from evonas.space.repeat import Range, Repeat
from evonas.strategies import (
    NSGA2,
    AgingEvolution,
    AskTell,
    Generational,
    Hyperband,
    LocalSearch,
    RandomSearch,
    Strategy,
    SurrogateEvolution,
)

__version__ = "0.1.0"

__all__ = [
    "NSGA2",
    "AgingEvolution",
    "AskTell",
    "Boolean",
    "Categorical",
    "EpochMetrics",
    "Evaluation",
    "EvonasError",
    "Fitness",
    "Float",
    "FunctionProblem",
    "Generational",
    "Hyperband",
    "Individual",
    "Integer",
    "InvalidPoint",
    "LocalSearch",
    "MedianPruner",
    "Objective",
    "Observer",
    "Problem",
    "RandomSearch",
    "Range",
    "Repeat",
    "Result",
    "SearchInterrupted",
    "SearchSpace",
    "Status",
    "Strategy",
    "SuccessiveHalving",
    "SurrogateEvolution",
    "TooManyFailures",
    "Trial",
    "confirm",
    "evolve",
    "make_toolbox",
    "open_run",
]


def __dir__() -> list[str]:
    """Returns the public names: the rooms are found through them, or imported by name."""
    return sorted([*__all__, "__version__"])


_OTHER_WORDS = {
    "Choice": "Categorical", "Choices": "Categorical", "Int": "Integer", "Bool": "Boolean",
    "Real": "Float", "Uniform": "Float", "LogUniform": "Float(low, high, log=True)",
    "Space": "SearchSpace", "NSGAII": "NSGA2", "Random": "RandomSearch", "search": "evolve",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Refuses an unknown name, with the one that is meant."""
    hint = f": it is called {_OTHER_WORDS[name]}" if name in _OTHER_WORDS else ""
    raise AttributeError(f"module 'evonas' has no attribute {name!r}{hint}")

"""evonas evolves PyTorch models: their architecture, their training, and which layers to freeze.

Importing it does not import torch. The names below are the public ones; `evonas.nas`,
`evonas.freezing` and `evonas.training` hold what needs torch.
"""

from __future__ import annotations

from evonas.callbacks.base import Observer
from evonas.chromosome import Fitness, Individual
from evonas.confirm import confirm
from evonas.exceptions import EvonasError, InvalidPoint, SearchInterrupted, TooManyFailures
from evonas.execution.trial import Trial
from evonas.genes import Boolean, Categorical, Float, Integer
from evonas.objectives import Objective
from evonas.problem import FunctionProblem, Problem
from evonas.pruning import MedianPruner, SuccessiveHalving
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.result import Result, open_run
from evonas.search import evolve
from evonas.space import SearchSpace
from evonas.strategies import (
    NSGA2,
    AgingEvolution,
    Generational,
    LocalSearch,
    RandomSearch,
    Strategy,
    SurrogateEvolution,
)
from evonas.toolbox import make_toolbox

__version__ = "0.1.0"

__all__ = [
    "NSGA2",
    "AgingEvolution",
    "Boolean",
    "Categorical",
    "EpochMetrics",
    "Evaluation",
    "EvonasError",
    "Fitness",
    "Float",
    "FunctionProblem",
    "Generational",
    "Individual",
    "Integer",
    "InvalidPoint",
    "LocalSearch",
    "MedianPruner",
    "Objective",
    "Observer",
    "Problem",
    "RandomSearch",
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

"""evonas evolves PyTorch models: their architecture, their training, and which layers to freeze.

Say what may vary, and how good a point is; `evolve` does the rest:

    >>> import evonas as en
    >>> space = {"width": en.Integer(8, 64), "activation": ["relu", "tanh"]}
    >>> def fitness(genes, trial):  # train a model with these genes, return its accuracy
    ...     return genes["width"] / 64 - 0.1 * (genes["activation"] == "tanh")
    >>> result = en.evolve(space, fitness, max_evaluations=60, seed=0, progress=False)
    >>> result.champion.genes
    {'width': 64, 'activation': 'relu'}

With `run_dir="runs/first"` every training is on disk before the search goes on: the same call goes
on where it was stopped, `open_run("runs/first")` reads it, and on a terminal `evonas show`,
`evonas report` and `evonas serve` do. `workers=4` trains four at once.

What there is, and where `help` says more:

- genes of a space: `Integer`, `Float`, `Categorical` (or a list), `Boolean`, `Repeat`;
  `SearchSpace` adds conditions and constraints;
- the search: `evolve`; `confirm`, which trains the best again on fresh seeds; `AskTell`, to drive
  it yourself; the strategies `SurrogateEvolution`, `Generational`, `NSGA2` and others;
  `Objective` for several objectives;
- what comes back: `Result`, with `champion`, `hall_of_fame`, `evaluations`, `importance()`;
- DEAP: `make_toolbox(space)`;
- with torch: `evonas.training.ModelProblem` for any model of yours, which keeps the best weights;
  `evonas.nas` for networks of images and texts; `evonas.freezing` for what to freeze when a
  pretrained model is fine-tuned. Importing `evonas` alone does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
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


if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__, _OTHER_WORDS)

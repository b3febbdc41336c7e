"""Toy problems: cheap, deterministic, importable in any process, each awkward in one way."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

from evonas.exceptions import InvalidPoint
from evonas.execution.trial import Trial
from evonas.objectives import Objective
from evonas.problem import FitnessFunction, FunctionProblem, Problem
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Float, Integer

__all__ = [
    "Flaky",
    "RoughProblem",
    "SlowQuadratic",
    "conditional_space",
    "noisy",
    "onemax",
    "onemax_space",
    "quadratic",
    "quadratic_space",
    "smooth_problem",
]


def onemax_space(n_genes: int = 8) -> SearchSpace:
    """Returns `n_genes` Boolean genes: 2**n_genes points.

    Example:
        >>> onemax_space(3).cardinality
        8
    """
    return SearchSpace({f"bit{index}": Boolean() for index in range(n_genes)})


def onemax(genes: Genes, trial: Trial) -> float:
    """Returns how many genes are true: the best point is all of them."""
    return float(sum(genes.values()))


def quadratic_space(n_genes: int = 2) -> SearchSpace:
    """Returns `n_genes` Float genes in [-5, 5]: a space without an end, and so without repeats."""
    return SearchSpace({f"x{index}": Float(-5.0, 5.0) for index in range(n_genes)})


def quadratic(genes: Genes, trial: Trial) -> float:
    """Returns minus the squared distance from the origin, the best point."""
    return -math.fsum(value * value for value in genes.values())


def noisy(genes: Genes, trial: Trial) -> float:
    """Returns `quadratic` and standard normal noise, the same for the same `trial.seed`."""
    return quadratic(genes, trial) + random.Random(trial.seed).gauss(0.0, 1.0)


class SlowQuadratic:
    """`quadratic` after some sleep: long enough to be interrupted.

    Args:
        seconds: How long each trial sleeps.
    """

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds

    def __call__(self, genes: Genes, trial: Trial) -> float:
        """Sleeps, then returns `quadratic`."""
        time.sleep(self.seconds)
        return quadratic(genes, trial)


class Flaky:
    """A fitness function that raises on a fixed share of the points.

    Which ones follows from `trial.seed`, so a point always ends the same way in one run.

    Args:
        fitness: What it returns where it does not raise.
        rate: The share, in [0, 1].

    Example:
        >>> Flaky(onemax, rate=0.0)({"bit0": True}, Trial())
        1.0
    """

    def __init__(self, fitness: FitnessFunction = onemax, rate: float = 0.2) -> None:
        self.fitness = fitness
        self.rate = rate

    def __call__(self, genes: Genes, trial: Trial) -> object:
        """Returns what `fitness` returns, or raises."""
        if random.Random(trial.seed).random() < self.rate:
            raise RuntimeError(f"flaky: trial {trial.number} failed")
        return self.fitness(genes, trial)


def conditional_space() -> SearchSpace:
    """Returns a small space of layers: one to three widths by condition, never growing.

    170 points satisfy its constraint, of 420: few enough for duplicates.

    Example:
        >>> len(list(conditional_space().enumerate()))
        170
    """
    width = Integer(16, 64, step=16)
    return SearchSpace(
        {
            "depth": [1, 2, 3],
            "width1": width,
            "width2": width,
            "width3": width,
            "activation": ["relu", "gelu", "tanh", "silu", "elu"],
        },
        conditions={"width2": {"depth": [2, 3]}, "width3": {"depth": [3]}},
        constraints={"narrows": _narrows},
    )


def _narrows(genes: Genes) -> bool:
    widths = [genes[name] for name in ("width1", "width2", "width3") if name in genes]
    return widths == sorted(widths, reverse=True)


class RoughProblem(Problem):
    """A problem in which everything happens that can happen to a point.

    Which of it follows from the point's key alone: an eighth each is found invalid before the
    trial, found invalid by the trial (`InvalidPoint`), raises, and has a NaN as its fitness. The
    rest report two epochs and a metric. The fitness depends on the genes, on `trial.seed` and on a
    draw from the global `random`; it has few distinct values, so that ties are frequent.

    Args:
        space: What is searched. None: `conditional_space()`.
        objectives: How many values the fitness has, and their directions.
        smooth: Leave out all that goes wrong.

    Example:
        >>> space = onemax_space(4)
        >>> reasons = [RoughProblem(space).invalid_reason(genes) for genes in space.enumerate()]
        >>> sum(reason is not None for reason in reasons)
        3
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        objectives: Objective | Sequence[Objective] | None = None,
        smooth: bool = False,
    ) -> None:
        super().__init__(conditional_space() if space is None else space, objectives=objectives)
        self.smooth = smooth

    def invalid_reason(self, genes: Genes) -> str | None:
        """Returns a reason for an eighth of the points."""
        return "rough: is invalid" if self._fate(genes) == 0 else None

    def evaluate(self, genes: Genes, trial: Trial) -> tuple[float, ...]:
        """Returns one value per objective, or does something worse."""
        fate = self._fate(genes)
        trial.report(loss=1.0 / (1 + trial.seed % 5))
        if fate == 1:
            raise InvalidPoint("rough: is invalid, as the trial found out")
        if fate == 2:
            raise RuntimeError("rough: raises here")
        if fate == 3:
            return (math.nan,) * len(self.objectives)
        trial.report(loss=0.5)
        trial.record(draw=random.random())  # of the generator that the executor seeds
        rng = random.Random(self.space.key(genes))
        noise = trial.seed % 2 + (0.5 if trial.metrics["draw"] < 0.5 else 0.0)
        return tuple(float(rng.randrange(6)) + noise for _ in self.objectives)

    def _fate(self, genes: Genes) -> int:
        return 7 if self.smooth else int(self.space.key(genes)[:8], 16) % 8


def smooth_problem(objectives: Sequence[Objective], *, sign: float = 1.0) -> Problem:
    """Returns `sign` times `quadratic` as a problem, the first gene being the other objectives."""
    n_others = len(objectives) - 1

    def values(genes: Genes, trial: Trial) -> tuple[float, ...]:
        others = [sign * genes["x0"]] * n_others
        return (sign * quadratic(genes, trial), *others)

    return FunctionProblem(quadratic_space(), values, objectives=objectives, problem_id="smooth")

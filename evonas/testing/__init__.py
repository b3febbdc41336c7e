"""Conformance suites for your own strategies, executors and genes, and toy problems to try them on.

A suite is a class of plain test methods. Subclass it, say how the thing is made, and let pytest
collect the subclass (its name must begin with `Test`); evonas tests its own parts in the same way:

    from evonas.testing import StrategyConformance

    class TestMyStrategy(StrategyConformance):
        def make_strategy(self):
            return MyStrategy(population=10)

`trace` reduces a run to what must not depend on stops or workers; `killed_copies` and
`dies_at_commit` kill one at every or at a chosen moment. Nothing here imports pytest.
"""

from __future__ import annotations

from evonas.testing.executors import ExecutorConformance
from evonas.testing.genes import GeneConformance
from evonas.testing.problems import (
    Flaky,
    RoughProblem,
    SlowQuadratic,
    conditional_space,
    noisy,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
)
from evonas.testing.runs import (
    ProcessKilled,
    commits_watched,
    dies_at_commit,
    killed_copies,
    trace,
)
from evonas.testing.strategies import StrategyConformance

__all__ = [
    "ExecutorConformance",
    "Flaky",
    "GeneConformance",
    "ProcessKilled",
    "RoughProblem",
    "SlowQuadratic",
    "StrategyConformance",
    "commits_watched",
    "conditional_space",
    "dies_at_commit",
    "killed_copies",
    "noisy",
    "onemax",
    "onemax_space",
    "quadratic",
    "quadratic_space",
    "trace",
]

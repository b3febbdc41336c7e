"""What the driver of a search needs to know of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evonas.pruning import Pruner
from evonas.run.budget import Budget

__all__ = ["RunSettings"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What was decided at the run's first start, and what this start adds.

    Attributes:
        seed: The run's seed.
        threads: Threads per trial.
        deterministic: Whether torch must use deterministic algorithms only.
        problem: What `Problem.configure` chose.
        budget: When to stop.
        max_consecutive_failures: Failures in a row that stop the search.
        pruner: Which trials to end early; None: none.
    """

    seed: int
    threads: int
    deterministic: bool
    problem: Mapping[str, Any]
    budget: Budget
    max_consecutive_failures: int
    pruner: Pruner | None = None

"""The records of a search: frozen, plain data, JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["EpochMetrics", "Evaluation", "Genes", "Status"]

Genes = dict[str, Any]
"""One point of a search space as plain data: `{"lr": 0.01, "conv1_filters": 64}`."""


class Status(StrEnum):
    """How an evaluation ended. Only `OK` has a fitness; only `OK` and `INVALID` are final."""

    OK = "ok"
    PRUNED = "pruned"
    INVALID = "invalid"
    FAILED = "failed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether the same point would end the same way: it is never evaluated again."""
        return self in (Status.OK, Status.INVALID)

    @property
    def is_failure(self) -> bool:
        """Whether it counts towards the failures in a row that stop a search."""
        return self not in (Status.OK, Status.INVALID, Status.PRUNED)


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One `trial.report(...)`: the metrics of one epoch.

    Attributes:
        epoch: From 0.
        seconds: Since the trial began.
        metrics: Name to value.
    """

    epoch: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """The record of one finished trial; printed, number, status, fitness and genes of it.

    Attributes:
        number: Place in the order in which the search asked for it, from 0. The files of a run
            carry this number. Reused duplicates take none.
        key: What the point builds, as a SHA-256 (see `Problem.key`).
        genes: The active genes.
        status: How it ended.
        values: One value per objective, in the order of the objectives; empty unless `ok`
            (or `pruned`: the last values reported).
        metrics: Whatever else the fitness function put on record.
        epochs: One entry per `trial.report(...)`.
        seconds: Wall-clock seconds of the trial.
        seed: The trial's seed, derived from the run's seed and the key.
        error: Reason and traceback where there is no fitness.
        started_at: Seconds since 1970 (UTC) at which the trial began.
        output: File with what the trial printed, relative to the run's directory; None where it
            printed nothing, or to the terminal.
    """

    number: int
    key: str
    genes: Genes
    status: Status
    values: tuple[float, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[EpochMetrics, ...] = ()
    seconds: float = 0.0
    seed: int = 0
    error: str | None = None
    started_at: float = 0.0
    output: str | None = None

    @property
    def fitness(self) -> float | tuple[float, ...] | None:
        """The value (a tuple with several objectives), or None where there is none."""
        if self.status is not Status.OK:
            return None
        return self.values[0] if len(self.values) == 1 else self.values

    def __repr__(self) -> str:
        found = self.status.value if self.fitness is None else f"fitness {self.fitness}"
        return f"<Evaluation {self.number}: {found}, genes {self.genes}>"

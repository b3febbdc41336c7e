"""Observers of a search: they get each record after it is committed; nothing depends on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evonas.objectives import Limits, Objective
from evonas.records import Evaluation

__all__ = ["Counts", "Observer", "Observers", "RunInfo"]


@dataclass(slots=True, repr=False)
class Counts:
    """How many proposals came to what, over all starts of the run.

    Attributes:
        by_status: Evaluations by status value.
        reused: Proposals answered by a recorded evaluation.
        unmet: The sentence that no evaluation with a fitness is within the strategy's limits;
            empty once one is, and where there are none.
        copied: Evaluations of earlier runs (`warm_start`); in none of the other counts.
    """

    by_status: dict[str, int] = field(default_factory=dict)
    reused: int = 0
    unmet: str = ""
    copied: int = 0

    def __repr__(self) -> str:
        parts = [f"{n} {status}" for status, n in self.by_status.items() if n]
        parts += [f"{self.reused} reused"]
        parts += [f"{self.copied} copied"] if self.copied else []
        return f"<Counts: {', '.join([f'{self.evaluated} evaluated', *parts])}>"

    @property
    def copied_words(self) -> str:
        """How many were copied, for people; empty where none was."""
        return f"{self.copied:,} copied from earlier runs" if self.copied else ""

    @property
    def evaluated(self) -> int:
        """Trials that ran: all evaluations but those found invalid."""
        return sum(self.by_status.values()) - self.by_status.get("invalid", 0)

    @property
    def failed(self) -> int:
        """Trials that ended without a fitness (pruned ones are not failures)."""
        return self.evaluated - self.by_status.get("ok", 0) - self.by_status.get("pruned", 0)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What an observer is told at a start.

    Attributes:
        run_dir: The run's directory, None in memory.
        strategy: The strategy's name.
        objectives: What is optimised.
        max_evaluations: How many trials this start can run up to at most, where that is known.
        generations: The budget of generations, where there is one.
        resumed: Whether earlier starts left records.
        counts: Of all starts so far; kept up to date by the search.
        best: The best evaluation so far, if any.
        workers: Trials at once.
        threads: Threads of each.
        measured: What was measured to choose workers and threads, in words.
        has_default_budget: Whether the user gave no budget.
        chosen_for: What a strategy was chosen for that the user left to evonas, in words.
        limits: What the strategy keeps to.
    """

    run_dir: Path | None
    strategy: str
    objectives: Sequence[Objective]
    max_evaluations: int | None
    generations: int | None
    resumed: bool
    counts: Counts
    best: Evaluation | None
    chosen_for: str | None = None
    has_default_budget: bool = False
    measured: str | None = None
    workers: int = 1
    threads: int = 1
    limits: Limits = field(default_factory=Limits)


class Observer:
    """Base of observers; override what interests you.

    An observer that raises is switched off with a warning; the search goes on.
    """

    def on_prepare(self, what: str) -> None:
        """The search does `what`, which may take its time, before its first or next trial."""

    def on_choice(self, what: str) -> None:
        """At a run's first start, after `on_start`: what the problem chose by itself."""

    def on_start(self, info: RunInfo) -> None:
        """The search starts (again)."""

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        """An evaluation was committed; `best` is the best so far."""

    def on_row(self, row: Mapping[str, Any]) -> None:
        """A logbook row (a generation) was committed."""

    def on_end(self, reason: str) -> None:
        """The search ends (also when interrupted or stopped by failures)."""


class Observers:
    """Calls several observers, each shielded from the others' errors."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        for observer in observers:
            if not isinstance(observer, Observer):
                raise TypeError(
                    f"callbacks must be evonas.Observer objects, got {type(observer).__name__}"
                )
        self._active = list(observers)

    def notify(self, call: Callable[[Observer], None]) -> None:
        """Calls `call(observer)` on each; one that raises is switched off with a warning."""
        for observer in tuple(self._active):
            try:
                call(observer)
            except Exception as error:  # noqa: BLE001 (whatever it does, the search goes on)
                self._active.remove(observer)
                warnings.warn(
                    f"observer {type(observer).__name__} is switched off after an error: "
                    f"{type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )

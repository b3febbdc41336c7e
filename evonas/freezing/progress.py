"""A mask search as it goes, generation by generation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm.auto import tqdm

from evonas.callbacks import Observer, ProgressBar, RunInfo, format_duration
from evonas.callbacks.progress import FirstFailures
from evonas.freezing.problem import FreezingProblem
from evonas.records import Evaluation

__all__ = ["GenerationLog"]


class GenerationLog(Observer):
    """Prints the fittest mask so far after each generation, with a bar where there is a terminal.

    ```text
    === Generation 1 ===
    Fittest chromosome: [0, 1, 0] | Fitness: 0.8500 | trainable 34.1% | 12 trained, 3 reused
    ```

    The first failure of each kind is printed when it comes, with the last line of its error.

    Args:
        problem: Whose masks these are.
        file: Where to print. None: standard output.
    """

    def __init__(self, problem: FreezingProblem, file: TextIO | None = None) -> None:
        self._problem = problem
        self._file = file
        self._bar = ProgressBar()
        self._best: Evaluation | None = None
        self._failures = FirstFailures()
        self._before: int | None = None  # trainings of earlier starts, until this one goes on

    def on_prepare(self, what: str) -> None:
        """Says what takes its time before a trial."""
        self._say_going_on()
        self._write(f"preparing: {what}")

    def on_start(self, info: RunInfo) -> None:
        """Remembers where a search goes on."""
        self._best, self._counts = info.best, info.counts
        self._before = info.counts.evaluated if info.resumed else None
        self._bar.on_start(info)

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        """Moves the bar; says what failed."""
        self._say_going_on()
        self._best = best
        failure = self._failures.first_of_its_kind(evaluation)
        if failure is not None:
            self._write(failure)
        self._bar.on_evaluation(evaluation, best)

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Prints a generation."""
        self._say_going_on()
        self._write(f"=== Generation {row['gen'] + 1} ===")
        failed = f" ({row['failed']} of them failed)" if row["failed"] else ""
        counts = f"{row['nevals']} trained{failed}, {row['reused']} reused"
        left = self._bar.seconds_left()
        if left:
            counts += f" | {format_duration(left)} left"
        if self._best is None:
            self._write(f"no mask has a fitness yet | {counts}")
            return
        if self._counts.unmet:
            self._write(f"{self._counts.unmet} | {counts}")
            return
        best = self._problem.short(self._best.genes)
        share = self._best.metrics.get("trainable_share")
        trainable = "" if share is None else f" | trainable {share:.1%}"
        self._write(
            f"Fittest chromosome: {best} | Fitness: {self._best.values[0]:.4f}{trainable}"
            f" | {counts}"
        )

    def on_end(self, reason: str) -> None:
        """Clears the bar; says where nothing was left to do."""
        self._bar.on_end(reason)
        if self._before is not None and not reason.startswith("stopped by"):
            self._write(f"finished already, after {self._before} trainings: {reason}")

    def _say_going_on(self) -> None:
        """Only once it does: a finished run has nothing to go on with."""
        if self._before is not None:
            self._write(f"going on after {self._before} trainings")
            self._before = None

    def _write(self, line: str) -> None:
        file = sys.stdout if self._file is None else self._file
        tqdm.write(line, file=file)
        file.flush()

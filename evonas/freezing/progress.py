"""A mask search as it goes, generation by generation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

from evonas.callbacks import Observer, ProgressBar, RunInfo, format_duration
from evonas.freezing.problem import FreezingProblem
from evonas.records import Evaluation

__all__ = ["GenerationLog"]


class GenerationLog(Observer):
    """Prints the fittest mask so far after each generation, with a bar where there is a terminal.

    ```text
    === Generation 1 ===
    Fittest chromosome: [0, 1, 0] | Fitness: 0.8500 | trainable 34.1% | 12 trained, 3 reused
    ```

    Args:
        problem: Whose masks these are.
        file: Where to print. None: standard output.
    """

    def __init__(self, problem: FreezingProblem, file: TextIO | None = None) -> None:
        self._problem = problem
        self._file = file
        self._bar = ProgressBar()
        self._best: Evaluation | None = None

    def on_start(self, info: RunInfo) -> None:
        """Says where a search goes on."""
        self._best = info.best
        if info.resumed:
            self._write(f"going on after {info.counts.evaluated} trainings")
        self._bar.on_start(info)

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        """Moves the bar."""
        self._best = best
        self._bar.on_evaluation(evaluation, best)

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Prints a generation."""
        self._write(f"=== Generation {row['gen'] + 1} ===")
        counts = f"{row['nevals']} trained, {row['reused']} reused"
        if row["failed"]:
            counts += f", {row['failed']} failed"
        left = self._bar.seconds_left()
        if left:
            counts += f" | {format_duration(left)} left"
        if self._best is None:
            self._write(f"no mask has a fitness yet | {counts}")
            return
        mask = list(self._problem.mask_of(self._best.genes))
        share = self._best.metrics.get("trainable_share")
        trainable = "" if share is None else f" | trainable {share:.1%}"
        self._write(
            f"Fittest chromosome: {mask} | Fitness: {self._best.values[0]:.4f}{trainable}"
            f" | {counts}"
        )

    def on_end(self, reason: str) -> None:
        """Clears the bar."""
        self._bar.on_end(reason)

    def _write(self, line: str) -> None:
        file = sys.stdout if self._file is None else self._file
        tqdm.write(line, file=file)
        file.flush()

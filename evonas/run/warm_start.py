"""Evaluations of earlier runs as the beginning of a new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from evonas.files import display_path
from evonas.objectives import Objective
from evonas.problem import Problem
from evonas.records import Evaluation, Genes, Status
from evonas.run.identity import configure_as
from evonas.run.store import RunReader

__all__ = ["best_points", "load_warm_start"]


def load_warm_start(problem: Problem, runs: Iterable[Path]) -> dict[Path, list[Evaluation]]:
    """Returns the `ok` evaluations of other runs of this problem by run, each point once.

    The problem is configured as the first of them was (its precision, say), if it leaves that open.
    Repeats of `confirm` are not among them: each point has the score that its search gave it.

    Args:
        problem: Of the new run.
        runs: Directories of runs, read and left as they are.

    Raises:
        FileNotFoundError: There is no run in a directory.
        RunMismatchError: A run is of another space, problem or objectives; says what differs.
        RunCorruptError, SchemaVersionError: A run cannot be read.
    """
    found: dict[Path, list[Evaluation]] = {}
    keys: set[str] = set()
    for run in runs:
        entries = found.setdefault(run, [])
        with RunReader.open(run) as reader:
            configure_as(
                problem, reader.begun_record(), f"the run {display_path(run)} of warm_start"
            )
            for evaluation in reader.evaluations():
                if evaluation.status is Status.OK and evaluation.key not in keys:
                    keys.add(evaluation.key)
                    entries.append(evaluation)
    return found


def best_points(copies: Sequence[Evaluation], objective: Objective, n: int) -> list[Genes]:
    """Returns the genes of the `n` best copies by one objective, best first."""
    ranked = sorted(copies, key=lambda entry: -objective.weight * entry.values[0])
    return [dict(entry.genes) for entry in ranked[:n]]

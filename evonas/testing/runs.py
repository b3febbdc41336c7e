"""Compare two runs, and kill one at a chosen commit."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from evonas.records import Evaluation
from evonas.run.result import Result
from evonas.run.store import RunReader, Store

__all__ = ["ProcessKilled", "commits_watched", "dies_at_commit", "killed_copies", "trace"]


class ProcessKilled(BaseException):
    """Stands for `kill -9` inside `dies_at_commit`; nothing that runs after it is saved."""


@contextmanager
def commits_watched(watch: Callable[[int, bool], None]) -> Iterator[None]:
    """Calls `watch(number, done)` before and after each commit to any run database.

    Args:
        watch: Takes the commit's number, from 1, and whether it is done. What it raises before a
            commit undoes that, and leaves `evolve` either way.
    """
    begin = Store._transaction
    numbers = itertools.count(1)

    def transaction(store: Store) -> Any:
        return _Watched(begin(store), watch, numbers)

    with patch.object(Store, "_transaction", transaction):
        yield


class _Watched:
    """A transaction that tells of its commit."""

    def __init__(self, inner: Any, watch: Callable[[int, bool], None], numbers: Any) -> None:
        self._inner = inner
        self._watch = watch
        self._numbers = numbers

    def __enter__(self) -> None:
        self._inner.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> Any:
        if error is not None:
            return self._inner.__exit__(kind, error, trace)
        number = next(self._numbers)
        try:
            self._watch(number, False)
        except BaseException as raised:
            self._inner.__exit__(type(raised), raised, raised.__traceback__)
            raise
        self._inner.__exit__(None, None, None)
        self._watch(number, True)
        return None


@contextmanager
def dies_at_commit(number: int, *, before: bool = False) -> Iterator[None]:
    """Inside, the process dies at the `number`-th commit to a run database (from 1).

    From then on nothing is committed, just as after `kill -9`, and `ProcessKilled` leaves `evolve`.
    Only one run may be driven inside.

    Args:
        number: At which commit.
        before: Whether that commit is lost with the process, or the last that it made.

    Example:
        >>> from evonas import evolve
        >>> with dies_at_commit(3):
        ...     evolve({"x": [1, 2]}, lambda genes, trial: 0.0, population=2)
        Traceback (most recent call last):
        ...
        evonas.testing.runs.ProcessKilled
    """

    def watch(at: int, done: bool) -> None:
        if at > number or (at == number and done is not before):
            raise ProcessKilled

    with commits_watched(watch):
        yield


def killed_copies(search: Callable[[Path], object], folder: Path) -> list[Path]:
    """Returns copies of a run's directory, each as `kill -9` right after one commit leaves it.

    Args:
        search: Drives one run in the directory that it is given; called once.
        folder: Where to put the run (as `whole`) and the copies.

    Returns:
        One directory per commit, in order; the run itself is in `folder / "whole"`.
    """
    run_dir = folder / "whole"
    copies: list[Path] = []

    def watch(number: int, done: bool) -> None:
        if done:
            copies.append(folder / f"killed{number:04}")
            shutil.copytree(run_dir, copies[-1])

    with commits_watched(watch):
        search(run_dir)
    return copies


def trace(result: Result) -> dict[str, Any]:
    """Returns all of a run that must not depend on stops or workers: timings are left out.

    Champion, hall of fame, logbook and evaluations; for a run on disk also what the strategy
    proposed and its last state. Two runs with equal traces are the same run.

    Args:
        result: Of `evolve` or `open_run`.

    Returns:
        Plain data, so that a test runner shows where two differ.
    """
    found: dict[str, Any] = {
        "logbook": [dict(row) for row in result.logbook],
        "hall_of_fame": [_untimed(entry) for entry in result.hall_of_fame],
        "champion": _untimed(result.champion) if result.hall_of_fame else None,
        "evaluations": [_untimed(entry) for entry in result.evaluations],
        "counts": {**result.counts.by_status, "reused": result.counts.reused},
    }
    if result.run_dir is not None:
        with RunReader.open(result.run_dir) as reader:
            found["proposals"] = list(reader.proposals())
            found["state"] = reader.state()
    return found


def _untimed(entry: Evaluation) -> dict[str, Any]:
    return {
        "number": entry.number,
        "key": entry.key,
        "genes": entry.genes,
        "status": entry.status.value,
        "values": entry.values,
        "metrics": dict(entry.metrics),
        "epochs": [(row.epoch, dict(row.metrics)) for row in entry.epochs],
        "seed": entry.seed,
        # The last line: a traceback names other files where another executor ran the trial.
        "error": entry.error and entry.error.strip().splitlines()[-1],
    }

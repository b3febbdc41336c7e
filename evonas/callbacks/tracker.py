"""What the loggers for TensorBoard and MLflow share: each record once, over all starts of a run."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonas.callbacks.base import Observer, RunInfo
from evonas.objectives import Objective
from evonas.records import EpochMetrics, Evaluation
from evonas.run.store import RunReader, RunRecord

__all__ = ["Logged", "PlacedEvaluation", "Tracker", "curve", "numbers", "scalars"]


@dataclass(frozen=True, slots=True)
class Logged:
    """What earlier starts have logged already.

    Attributes:
        evaluations: Numbers of evaluations.
        rows: The logbook's rows, by their `gen`.
    """

    evaluations: frozenset[int] = frozenset()
    rows: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class PlacedEvaluation:
    """An evaluation at its place in the course of the search.

    Attributes:
        step: How many evaluations ended before it.
        evaluation: The record.
        began: Seconds since 1970 at which its trial began; now for an invalid one, which had none.
        ended: The same for its end.
        best: The best of the first objective so far within the search's limits, or None.
    """

    step: int
    evaluation: Evaluation
    began: float
    ended: float
    best: float | None


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the run database holds at a start."""

    identity: str
    n_copied: int
    record: RunRecord | None
    evaluations: Sequence[Evaluation]
    rows: Sequence[Mapping[str, Any]]


class Tracker(Observer):
    """Base of loggers that keep what they were told in a place of their own.

    Consistency:
        At each start it is compared with the run database what was logged, and what is missing is
        logged then: an evaluation that was committed and not logged when the process was killed is
        not lost, and none is logged twice.
    """

    def on_start(self, info: RunInfo) -> None:
        """Opens the log, and brings it up to the run database."""
        self.objectives: Sequence[Objective] = tuple(info.objectives)
        self._limits = info.limits
        self._run_dir = info.run_dir
        self._step = 0
        self._best: float | None = None
        recorded = _recorded(info.run_dir)
        logged = self.open(info, recorded.identity, recorded.record)
        self._n_copied = recorded.n_copied
        # Those that are logged first, whenever they ended: their steps are taken.
        for evaluation in recorded.evaluations:
            if evaluation.number in logged.evaluations:
                self._place(evaluation)
        for evaluation in recorded.evaluations:
            if evaluation.number not in logged.evaluations:
                self.on_evaluation(evaluation, None)
        for row in recorded.rows:
            if row["gen"] not in logged.rows:
                self.log_row(row)

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        """Logs the evaluation."""
        point = self._place(evaluation)
        if point is not None:
            self.log_evaluation(point)

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Logs a row of the logbook."""
        self.log_row(row)

    def on_end(self, reason: str) -> None:
        """Closes the log."""
        self.close(self._outcome(reason), reason)

    @abstractmethod
    def open(self, info: RunInfo, identity: str, record: RunRecord | None) -> Logged:
        """Opens the log of the run `identity` and returns what it holds."""

    @abstractmethod
    def log_evaluation(self, point: PlacedEvaluation) -> None:
        """Logs an evaluation."""

    @abstractmethod
    def log_row(self, row: Mapping[str, Any]) -> None:
        """Logs a row of the logbook."""

    @abstractmethod
    def close(self, outcome: str, reason: str) -> None:
        """Closes the log; `outcome` is `finished`, `interrupted`, `failures` or `error`."""

    def _place(self, evaluation: Evaluation) -> PlacedEvaluation | None:
        """Returns where the evaluation stands; None for one copied from another run."""
        if self._limits.allow(evaluation, self.objectives):
            value = evaluation.values[0]
            if self._best is None or self.objectives[0].better(value, self._best):
                self._best = value
        if evaluation.number < self._n_copied:
            return None
        self._step += 1
        began = evaluation.started_at or time.time()
        return PlacedEvaluation(
            self._step - 1, evaluation, began, began + evaluation.seconds, self._best
        )

    def _outcome(self, reason: str) -> str:
        if self._run_dir is not None:
            with RunReader.open(self._run_dir) as reader:
                return str(reader.sessions()[-1]["outcome"])
        # A search in memory tells nobody but by what it raises.
        raised = sys.exc_info()[0]
        if raised is None:
            return "finished"
        return "interrupted" if issubclass(raised, KeyboardInterrupt) else "error"


def _recorded(run_dir: Path | None) -> _Recorded:
    if run_dir is None:
        return _Recorded(uuid.uuid4().hex[:12], 0, None, (), ())
    with RunReader.open(run_dir) as reader:
        record = reader.begun_record()
        began = reader.sessions()[0]["started_at"]
        # Of the run, not of its directory: that may be moved, or made anew.
        identity = hashlib.sha256(f"{began!r} {record.seed}".encode()).hexdigest()[:12]
        ended = sorted(
            reader.evaluations(), key=lambda entry: (entry.started_at + entry.seconds, entry.number)
        )
        return _Recorded(identity, record.n_copied, record, ended, reader.logbook())


def numbers(entries: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, float]:
    """Returns the entries that are numbers, as floats.

    Example:
        >>> numbers({"params": 10, "test_set": None, "frozen": True, "name": "x"})
        {'params': 10.0, 'frozen': 1.0}
    """
    return {
        name: float(value)
        for name, value in dict(entries).items()
        if isinstance(value, (bool, int, float))
    }


def scalars(genes: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Returns the genes as hyperparameters: lists, dicts and None as JSON text."""
    found: dict[str, bool | float | str] = {}
    for name, value in genes.items():
        is_plain = isinstance(value, (bool, str, int)) or (
            isinstance(value, float) and math.isfinite(value)
        )
        found[name] = value if is_plain else json.dumps(value)
    return found


def curve(epochs: Sequence[EpochMetrics]) -> list[tuple[int, float, dict[str, float]]]:
    """Returns epoch, seconds since the trial began, and what was reported."""
    return [(entry.epoch, entry.seconds, numbers(entry.metrics)) for entry in epochs]

"""The driver's side of the run database: one transaction per step."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from evonas.arguments import check_choice
from evonas.exceptions import RunStorageError
from evonas.execution.user_code import refuse_while_reading
from evonas.execution.weights import TrialFiles
from evonas.records import Evaluation, Status
from evonas.run.store.encoding import to_json
from evonas.run.store.integrity import put_rows, verify
from evonas.run.store.lock import LOCK, RunLock
from evonas.run.store.reader import PlannedProposal, RunReader
from evonas.run.store.record import RunRecord
from evonas.run.store.schema import DATABASE, connect, create_schema, make_directory, prepare

__all__ = ["Store"]


class _Transaction:
    """All of it or nothing; a plain class, because a generator costs as much as the commit."""

    __slots__ = ("_connection", "_lock", "_run_dir")

    def __init__(
        self, connection: sqlite3.Connection, run_dir: Path | None, lock: RunLock | None
    ) -> None:
        self._connection = connection
        self._run_dir = run_dir
        self._lock = lock

    def __enter__(self) -> None:
        if self._lock is not None:
            self._lock.check()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._storage_error(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
                return
        except sqlite3.Error as failed:
            error = failed
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise self._storage_error(error) from error

    def _storage_error(self, error: sqlite3.Error) -> RunStorageError:
        where = "the run in memory" if self._run_dir is None else self._run_dir / DATABASE
        return RunStorageError(
            f"{where} could not be written ({error}); what was committed before is safe: make "
            "room or mend the disk, then run the same command again"
        )


class Store(RunReader):
    """One run's database, held by its one driver.

    Args:
        connection: An open database of the current schema.
        run_dir: The run's directory, or None in memory.
        lock: Held while this process drives the run.
    """

    def __init__(
        self, connection: sqlite3.Connection, run_dir: Path | None, lock: RunLock | None = None
    ) -> None:
        super().__init__(connection, run_dir)
        self._lock = lock
        self._session: list[Any] = []  # the row of this start

    @classmethod
    def create(
        cls, run_dir: Path | None, *, durability: Literal["process", "power"] = "process"
    ) -> Store:
        """Returns the database of `run_dir` to drive it: made where missing, and locked.

        Raises:
            RunInUseError: Another process drives this run.
            RunCorruptError: `run.db` is damaged, or empty beside files of a run.
            SchemaVersionError: `run.db` comes from a newer evonas.
            RunStorageError: The directory cannot be written.
        """
        refuse_while_reading("what writes a run")
        check_choice("durability", durability, ("process", "power"))
        if run_dir is None:
            connection = connect(":memory:")
            create_schema(connection)
            store = cls(connection, None)
            store.files = TrialFiles.in_memory()
            return store
        make_directory(run_dir)
        lock = RunLock(run_dir / LOCK)
        try:
            connection = prepare(run_dir / DATABASE, durability, lock.hold_database, verify)
        except BaseException:
            lock.release()
            raise
        lock.keep_open_in_forks(connection)
        return cls(connection, run_dir, lock)

    def close(self) -> None:
        """Closes the database and lets go of the run."""
        if self._lock is not None and not self._lock.is_ours:
            return  # the file is the driver's: see `RunLock.keep_open_in_forks`
        super().close()
        if self._lock is not None:
            self._lock.release()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection, self.run_dir, self._lock)

    def write_record(self, record: RunRecord) -> None:
        """Commits what the run is, in place of what was on record."""
        rows = [(name, to_json(value)) for name, value in record.to_json().items()]
        with self._transaction():
            put_rows(self._connection, "record", rows)

    def begin_session(self, environment: Mapping[str, Any]) -> None:
        """Opens the row of this start; `close_session` closes it."""
        number = self._all("SELECT ifnull(max(id), 0) + 1 FROM sessions")[0][0]
        self._session = [number, time.time(), 0.0, None, None, to_json(environment)]
        with self._transaction():
            put_rows(self._connection, "sessions", [self._session])

    def close_session(self, seconds: float, outcome: str, reason: str) -> None:
        """Says how this start ended: finished, interrupted, failures or error, and why."""
        self._session[2:5] = seconds, outcome, reason
        with self._transaction():
            put_rows(self._connection, "sessions", [self._session])

    def add_evaluation(
        self, evaluation: Evaluation, *, session_seconds: float | None = None
    ) -> None:
        """Commits one finished evaluation with its epochs, and how long the session has run."""
        self.add_evaluations([evaluation], session_seconds=session_seconds)

    def add_evaluations(
        self, evaluations: Iterable[Evaluation], *, session_seconds: float | None = None
    ) -> None:
        """Commits finished evaluations, all of them or none."""
        with self._transaction():
            for evaluation in evaluations:
                self._insert_evaluation(evaluation)
            if session_seconds is not None:
                self._session[2] = session_seconds
                put_rows(self._connection, "sessions", [self._session])

    def replace_evaluations(self, copies: Sequence[Evaluation]) -> list[Evaluation]:
        """Commits evaluations of other runs as all that a run that has not begun holds.

        Returns:
            The copies as they are on record: numbered from 0, without files of output.
        """
        numbered = [replace(copy, number=number, output=None) for number, copy in enumerate(copies)]
        if not numbered and not self.next_number():
            return []
        with self._transaction():
            # Left behind where an earlier start ended before it had said what the run is.
            self._connection.execute("DELETE FROM epochs")
            self._connection.execute("DELETE FROM evaluations")
            for copy in numbered:
                self._insert_evaluation(copy)
        return numbered

    def _insert_evaluation(self, evaluation: Evaluation) -> None:
        values = evaluation.values
        row = (
            evaluation.number,
            evaluation.key,
            evaluation.status.value,
            _real(values[0]) if values and evaluation.status is Status.OK else None,
            to_json(values),
            to_json(evaluation.genes),
            to_json(evaluation.metrics) if evaluation.metrics else "{}",
            _real(evaluation.seconds),
            evaluation.seed,
            evaluation.error,
            _real(evaluation.started_at),
            evaluation.output,
        )
        put_rows(self._connection, "evaluations", [row])
        if evaluation.epochs:
            rows = [
                (evaluation.number, row.epoch, _real(row.seconds), to_json(row.metrics))
                for row in evaluation.epochs
            ]
            put_rows(self._connection, "epochs", rows)

    def checkpoint(
        self,
        state: Mapping[str, Any],
        *,
        proposals: Iterable[PlannedProposal] = (),
        invalid: Iterable[Evaluation] = (),
        rows: Sequence[Mapping[str, Any]] = (),
        first_row: int = 0,
    ) -> None:
        """Commits one step of the strategy, whole or not at all.

        Args:
            state: `Strategy.state_dict()`, after the step.
            proposals: What the step asked for (an id seen before is pointed anew).
            invalid: Points that the step found to be invalid.
            rows: Logbook rows that the step closed.
            first_row: Number of the first of them.
        """
        planned = [
            (plan.id, plan.evaluation, int(plan.reused), plan.generation, to_json(plan.parents))
            for plan in proposals
        ]
        connection = self._connection
        with self._transaction():
            put_rows(connection, "strategy", [(1, to_json(state))])
            for evaluation in invalid:
                self._insert_evaluation(evaluation)
            put_rows(connection, "proposals", planned)
            put_rows(
                connection,
                "logbook",
                [(first_row + index, to_json(row)) for index, row in enumerate(rows)],
            )

    def add_confirmation(self, repeat: int, evaluation: Evaluation) -> None:
        """Commits one repeat of a known point on a fresh seed."""
        row = (
            evaluation.key,
            repeat,
            evaluation.status.value,
            to_json(evaluation.values),
            to_json(evaluation.metrics),
            _real(evaluation.seconds),
            evaluation.seed,
            evaluation.error,
        )
        with self._transaction():
            put_rows(self._connection, "confirmations", [row])


def _real(value: float) -> float:
    return float(value) + 0.0  # SQLite gives -0.0 back as 0.0

"""What can be asked of a run database."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from evonas.exceptions import RunStorageError
from evonas.execution.weights import ATTACHMENTS, TrialFiles
from evonas.records import EpochMetrics, Evaluation, Genes, Status
from evonas.run.store.encoding import from_json
from evonas.run.store.integrity import verify
from evonas.run.store.lock import LOCK, is_held
from evonas.run.store.record import RunRecord
from evonas.run.store.schema import DATABASE, check_version, connect, corrupt, not_begun

__all__ = ["KnownPoint", "PlannedProposal", "RunReader"]

_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """The line of the index that says a key was evaluated already."""

    number: int
    status: Status


@dataclass(frozen=True, slots=True)
class PlannedProposal:
    """A proposal of the strategy and the evaluation that answers it (done, or still to do)."""

    id: int
    evaluation: int
    reused: bool
    generation: int
    parents: tuple[int, ...]


class RunReader:
    """Every query; it never writes. `open` reads a run from outside, `Store` drives one.

    Thread safety: none.
    """

    def __init__(self, connection: sqlite3.Connection, run_dir: Path | None) -> None:
        self._connection = connection
        self.run_dir = run_dir
        self.files: TrialFiles | None = (
            None if run_dir is None else TrialFiles(run_dir / ATTACHMENTS)
        )
        """The files of the trials, as each evaluation knows them."""

    @classmethod
    def open(cls, run_dir: Path) -> RunReader:
        """Returns the database of an existing run, read-only; works while it is being written.

        Raises:
            FileNotFoundError: There is no run in `run_dir`.
            RunCorruptError: `run.db` is damaged, or empty beside files of a run.
            SchemaVersionError: `run.db` comes from a newer evonas.
        """
        path = run_dir / DATABASE
        if not path.is_file():
            raise _no_run(run_dir)
        uri = path.resolve().as_uri()
        # At rest it is taken as it is: WAL's own files would be made anew, and left behind.
        if is_held(run_dir / LOCK) is not False or _has_log(path):
            try:
                return cls(_open_read_only(f"{uri}?mode=ro", path), run_dir)
            except sqlite3.OperationalError as error:
                # A read-only medium has no room for WAL's shared memory file.
                if _has_log(path):  # what `immutable` would not read
                    raise RunStorageError(
                        f"{path} cannot be read with its {DATABASE}-wal ({error}): copy the run, "
                        "with all its files, to where you can write"
                    ) from error
        try:
            return cls(_open_read_only(f"{uri}?mode=ro&immutable=1", path), run_dir)
        except sqlite3.OperationalError as error:
            raise RunStorageError(f"{path} cannot be read: {error}") from error

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Closes the database."""
        self.close()

    def record(self) -> RunRecord | None:
        """Returns what the run is, or None before its first start.

        Raises:
            RunCorruptError: What is stored is no record of a run.
        """
        found = {
            name: from_json(value) for name, value in self._all("SELECT name, value FROM record")
        }
        if not found:
            return None
        try:
            return RunRecord.from_json(found)
        except (TypeError, ValueError) as error:
            raise corrupt(self._file, error) from error

    def begun_record(self) -> RunRecord:
        """Returns what the run is.

        Raises:
            FileNotFoundError: It has not begun yet.
            RunCorruptError: What is stored is no record of a run.
        """
        record = self.record()
        if record is None:
            raise FileNotFoundError(f"{self.run_dir} holds a run that has not begun yet")
        return record

    def state(self) -> dict[str, Any] | None:
        """Returns the strategy's last committed state, or None before its first step."""
        rows = self._all("SELECT state FROM strategy")
        return self._json(rows[0][0], dict) if rows else None

    def logbook(self) -> list[dict[str, Any]]:
        """Returns the logbook's rows, in order."""
        rows = self._all("SELECT entry FROM logbook ORDER BY row")
        return [self._json(text, dict) for (text,) in rows]

    def known(self) -> dict[str, KnownPoint]:
        """Returns key to the latest evaluation of that key."""
        rows = self._rows("SELECT key, number, status FROM evaluations ORDER BY number")
        return {key: KnownPoint(number, Status(status)) for key, number, status in rows}

    def counts(self) -> dict[str, int]:
        """Returns how many evaluations have each status, and `reused` proposals.

        Those copied from other runs at the start are not counted: this run did not make them.
        """
        rows = self._all(
            "SELECT status, count(*) FROM evaluations WHERE number >= "
            "ifnull((SELECT CAST(value AS INTEGER) FROM record WHERE name = 'n_copied'), 0) "
            "GROUP BY status"
        )
        counts = {status.value: 0 for status in Status} | dict(rows)
        counts["reused"] = self._all("SELECT count(*) FROM proposals WHERE reused")[0][0]
        return counts

    def next_number(self) -> int:
        """Returns the first evaluation number that neither a record nor a plan has taken."""
        rows = self._all(
            "SELECT max(ifnull((SELECT max(number) FROM evaluations), -1),"
            " ifnull((SELECT max(evaluation) FROM proposals), -1)) + 1"
        )
        return int(rows[0][0])

    def next_proposal_id(self) -> int:
        """Returns one more than the largest proposal id on record."""
        return int(self._all("SELECT ifnull(max(id), -1) + 1 FROM proposals")[0][0])

    def reused_in_a_row(self) -> int:
        """Returns how many proposals, counted from the last, reused a record."""
        rows = self._all(
            "SELECT count(*) FROM proposals WHERE id > "
            "ifnull((SELECT max(id) FROM proposals WHERE NOT reused), -1)"
        )
        return int(rows[0][0])

    def failures_in_a_row(self, before: int, retryable: Container[int] = ()) -> int:
        """Returns how many trials failed, counted back from the last proposal before id `before`.

        Args:
            before: A proposal's id.
            retryable: Evaluations at which the count ends.
        """
        rows = self._rows(
            "SELECT number, status FROM proposals JOIN evaluations ON number = evaluation"
            " WHERE id < ? AND NOT reused ORDER BY id DESC",
            before,
        )
        failed = (Status(status).is_failure and number not in retryable for number, status in rows)
        return sum(1 for _ in takewhile(bool, failed))

    def planned(self, ids: Sequence[int]) -> dict[int, PlannedProposal]:
        """Returns those of the proposals `ids` that were committed, by id."""
        found: dict[int, PlannedProposal] = {}
        for start in range(0, len(ids), 500):  # SQLite bounds the variables of a statement
            part = ids[start : start + 500]
            marks = ", ".join("?" * len(part))
            for row in self._all(f"SELECT * FROM proposals WHERE id IN ({marks})", *part):
                found[row[0]] = self._planned(row)
        return found

    def proposals(self, first: int = 0) -> Iterator[PlannedProposal]:
        """Yields every proposal from id `first` on, in the order in which the strategy made it."""
        for row in self._rows("SELECT * FROM proposals WHERE id >= ? ORDER BY id", first):
            yield self._planned(row)

    def evaluation(self, number: int) -> Evaluation | None:
        """Returns the evaluation with its epochs, or None where it is not (yet) recorded."""
        return next(self._evaluations("WHERE number = ?", number), None)

    def numbers(self, first: int = 0) -> list[int]:
        """Returns the numbers on record from `first` on, ascending."""
        rows = self._all("SELECT number FROM evaluations WHERE number >= ? ORDER BY number", first)
        return [number for (number,) in rows]

    def evaluations(self) -> Iterator[Evaluation]:
        """Yields every evaluation with its epochs, in ask order."""
        return self._evaluations("ORDER BY number")

    def best(self, n: int, *, maximise: bool) -> list[Evaluation]:
        """Returns the `n` best `ok` evaluations by the first objective; of equals, the earliest."""
        order = "DESC" if maximise else "ASC"
        return list(
            self._evaluations(f"WHERE status = 'ok' ORDER BY value {order}, number LIMIT ?", n)
        )

    def seconds(self) -> float:
        """Returns the seconds of all sessions together."""
        return float(self._all("SELECT ifnull(sum(seconds), 0) FROM sessions")[0][0])

    def sessions(self) -> list[dict[str, Any]]:
        """Returns one dict per start: started_at, seconds, outcome, reason, environment."""
        names = ("started_at", "seconds", "outcome", "reason", "environment")
        rows = self._all(f"SELECT {', '.join(names)} FROM sessions ORDER BY id")
        return [dict(zip(names, (*row[:4], self._json(row[4], dict)), strict=True)) for row in rows]

    def confirmations(self) -> dict[tuple[str, int], Evaluation]:
        """Returns (key, repeat) to its record; `number` is the repeat."""
        rows = self._all("SELECT * FROM confirmations ORDER BY key, repeat")
        return {
            (row[0], row[1]): Evaluation(
                number=row[1],
                key=row[0],
                genes={},
                status=Status(row[2]),
                values=self._values(row[3]),
                metrics=self._json(row[4], dict),
                seconds=row[5],
                seed=row[6],
                error=row[7],
                kept=self.files,
            )
            for row in rows
        }

    def repeats(self) -> dict[str, tuple[Evaluation, ...]]:
        """Returns key to the records of its repeats, in their order."""
        found: dict[str, tuple[Evaluation, ...]] = {}
        for (key, _), repeat in self.confirmations().items():
            found[key] = (*found.get(key, ()), repeat)
        return found

    def _evaluations(self, clause: str, *parameters: Any) -> Iterator[Evaluation]:
        rows = self._rows(
            "SELECT number, key, status, fitness, genes, metrics, seconds, seed, error, started_at,"
            f" output FROM evaluations {clause}",
            *parameters,
        )
        repeats = self.repeats()
        for row in rows:
            genes: Genes = self._json(row[4], dict)
            yield Evaluation(
                number=row[0],
                key=row[1],
                status=Status(row[2]),
                values=self._values(row[3]),
                genes=genes,
                metrics=self._json(row[5], dict),
                epochs=self._epochs(row[0]),
                seconds=row[6],
                seed=row[7],
                error=row[8],
                started_at=row[9],
                output=row[10],
                kept=self.files,
                repeats=repeats.get(row[1], ()),
            )

    def _epochs(self, number: int) -> tuple[EpochMetrics, ...]:
        rows = self._all(
            "SELECT epoch, seconds, metrics FROM epochs WHERE evaluation = ? ORDER BY epoch", number
        )
        return tuple(EpochMetrics(epoch, at, self._json(text, dict)) for epoch, at, text in rows)

    def _all(self, statement: str, *parameters: Any) -> list[Any]:
        return list(self._rows(statement, *parameters))

    def _rows(self, statement: str, *parameters: Any) -> Iterator[Any]:
        """Yields the rows of a query; an error of SQLite's leaves as one of the run's.

        Raises:
            RunStorageError: The database cannot be read.
            RunCorruptError: It is damaged.
        """
        try:
            for row in self._connection.execute(statement, parameters):  # noqa: UP028
                yield row  # `yield from` would close the cursor, behind a closed database too
        except sqlite3.OperationalError as error:
            raise RunStorageError(f"{self._file} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise corrupt(self._file, error) from error

    def _json(self, text: str, kind: type = object) -> Any:
        """Returns a JSON value of a type.

        Raises:
            RunCorruptError: The text is another, or no JSON.
        """
        try:
            found = from_json(text)
        except (ValueError, RecursionError) as error:
            raise corrupt(self._file, error) from error
        if not isinstance(found, kind):
            raise corrupt(self._file, f"{text[:40]!r} is not a JSON {kind.__name__}")
        return found

    def _values(self, text: str) -> tuple[float, ...]:
        found = self._json(text, list)
        if not all(isinstance(value, (int, float)) for value in found):
            raise corrupt(self._file, f"{text[:40]!r} is not a list of numbers")
        return tuple(found)

    def _planned(self, row: Sequence[Any]) -> PlannedProposal:
        parents = tuple(self._json(row[4], list))
        return PlannedProposal(row[0], row[1], bool(row[2]), row[3], parents)

    @property
    def _file(self) -> Path:
        return (self.run_dir or Path()) / DATABASE


def _open_read_only(uri: str, path: Path) -> sqlite3.Connection:
    connection = connect(uri, uri=True)
    try:
        check_version(connection, path)
        verify(connection, path)
        not_begun(connection, path)
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        raise corrupt(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _has_log(path: Path) -> bool:
    try:
        return path.with_name(f"{DATABASE}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _no_run(run_dir: Path) -> FileNotFoundError:
    if not run_dir.exists():
        return FileNotFoundError(f"{run_dir} holds no run: there is no such directory")
    if not run_dir.is_dir():
        return FileNotFoundError(f"{run_dir} is a file: pass the directory of a run")
    text = f"{run_dir} holds no run: there is no {DATABASE} in it"
    runs = sorted(found.parent for found in run_dir.glob(f"*/{DATABASE}"))
    if runs:
        named = ", ".join(map(str, runs[:_MAX_NAMED]))
        more = f" and {len(runs) - _MAX_NAMED} more" if len(runs) > _MAX_NAMED else ""
        text += f"; there are runs in {named}{more}"
    return FileNotFoundError(text)

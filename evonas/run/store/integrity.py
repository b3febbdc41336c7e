"""A checksum for each row of a run database, and what is checked before a run is believed."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evonas.records import Status
from evonas.run.store.schema import SCHEMA, corrupt

__all__ = ["put_rows", "verify"]

_N_COLUMNS = {
    "record": 2, "evaluations": 12, "epochs": 4, "proposals": 5, "strategy": 2, "logbook": 2,
    "sessions": 6, "confirmations": 8,
}  # fmt: skip
_PUT = {
    table: f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * (n + 1))})"
    for table, n in _N_COLUMNS.items()
}
_STATUS = {"evaluations": 2, "confirmations": 2}
_STATUSES = {status.value for status in Status}


def put_rows(connection: sqlite3.Connection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Writes rows, each with its checksum, in place of those of the same primary key.

    Args:
        connection: Of a run database.
        table: Its name.
        rows: A value for each column but the last, in the types in which they are read back.
    """
    connection.executemany(_PUT[table], [(*row, _checksum(row)) for row in rows])


def verify(connection: sqlite3.Connection, path: Path, *, drives: bool = False) -> None:
    """Refuses a database in which anything is not as evonas wrote it.

    The tables and nothing else, in their own structure; in each row the types and the checksum.
    So a flipped bit is found wherever it lies, and a run that somebody made up cannot have views
    that never end or values of other types.

    Args:
        connection: An open database of this schema.
        path: Its file.
        drives: Whether a search wants it.

    Raises:
        RunCorruptError: Something is not.
        sqlite3.OperationalError: It cannot be read.
    """
    try:
        found = connection.execute("SELECT type, sql FROM sqlite_master ORDER BY rowid").fetchall()
        if found != [("table", statement) for statement in SCHEMA]:
            raise corrupt(path, "its tables are not those of a run", drives=drives)
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise corrupt(path, damage, drives=drives)
        for table in _N_COLUMNS:
            _verify_table(connection, table, path, drives)
    except sqlite3.OperationalError as error:
        if str(error).startswith(("no such", "malformed")):
            raise corrupt(path, error, drives=drives) from error
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise corrupt(path, error, drives=drives) from error


def _verify_table(connection: sqlite3.Connection, table: str, path: Path, drives: bool) -> None:
    status = _STATUS.get(table)
    # By statements of its own: a row is not sound because the rows around it are.
    for *row, checksum in connection.execute(f"SELECT * FROM {table}"):
        sound = checksum == _checksum(row) and bytes not in map(type, row)
        if not sound or (status is not None and row[status] not in _STATUSES):
            raise corrupt(path, f"a row of {table} is not as it was written", drives=drives)


def _checksum(row: Sequence[Any]) -> int:
    # Not repr of texts: of a strategy's state it would cost as much as writing it.
    parts = ["'" + value if type(value) is str else repr(value) for value in row]
    return zlib.crc32("\0".join(parts).encode("utf-8", "surrogatepass"))

"""The tables of a run database, and what opening one checks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from evonas.exceptions import RunCorruptError, RunStorageError, SchemaVersionError
from evonas.files import replace_file

__all__ = [
    "DATABASE",
    "SCHEMA",
    "SCHEMA_VERSION",
    "check_version",
    "connect",
    "corrupt",
    "create_schema",
    "make_database",
    "make_directory",
    "not_begun",
    "prepare",
]

SCHEMA_VERSION = 4
DATABASE = "run.db"
_APPLICATION_ID = 0x65766F6E  # "evon": tells a run database from any other SQLite file
_CHAMPION = ("ga-champ-", "mask.json", "report.html")
_MAX_NAMED = 5
_NEW_RUN = ", or pass a new run_dir"

_SCHEMA = """
CREATE TABLE record (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE evaluations (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    status TEXT NOT NULL,
    value REAL,             -- first objective, for ORDER BY; NULL unless ok
    fitness TEXT NOT NULL,  -- JSON list, one number per objective
    genes TEXT NOT NULL,    -- JSON object, the active genes
    metrics TEXT NOT NULL,
    seconds REAL NOT NULL,
    seed INTEGER NOT NULL,
    error TEXT,
    started_at REAL NOT NULL,
    output TEXT,            -- file with what the trial printed, in the run's directory
    checksum INTEGER NOT NULL
);
CREATE TABLE epochs (
    evaluation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    seconds REAL NOT NULL,
    metrics TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (evaluation, epoch)
) WITHOUT ROWID;
CREATE TABLE proposals (
    id INTEGER PRIMARY KEY,
    evaluation INTEGER NOT NULL,  -- evaluations.number: its own, or the one it reuses
    reused INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    parents TEXT NOT NULL,        -- JSON list of evaluations.number
    checksum INTEGER NOT NULL
);
CREATE TABLE strategy (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    state TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE logbook (
    row INTEGER PRIMARY KEY,
    entry TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    seconds REAL NOT NULL,
    outcome TEXT,                 -- finished, interrupted, failures, error; NULL: no end
    reason TEXT,
    environment TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE confirmations (
    key TEXT NOT NULL,
    repeat INTEGER NOT NULL,
    status TEXT NOT NULL,
    fitness TEXT NOT NULL,
    metrics TEXT NOT NULL,
    seconds REAL NOT NULL,
    seed INTEGER NOT NULL,
    error TEXT,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (key, repeat)
) WITHOUT ROWID;
"""
SCHEMA = tuple(filter(None, map(str.strip, _SCHEMA.split(";\n"))))
"""The statement that makes each table; the last column of each is of `integrity`."""


def connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    """Returns a connection in autocommit mode; one in memory may be used from any thread."""
    # Autocommit: transactions are begun and ended by hand, so that a step is one of them.
    in_memory = path == ":memory:"
    return sqlite3.connect(
        path, timeout=30.0, isolation_level=None, uri=uri, check_same_thread=not in_memory
    )


def make_directory(run_dir: Path) -> None:
    """Makes the run's directory.

    Raises:
        RunStorageError: It cannot be made or written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunStorageError(f"run_dir {run_dir} cannot be made: {error}") from error
    if not os.access(run_dir, os.W_OK | os.X_OK):
        raise RunStorageError(f"run_dir {run_dir} is not writable: pass another run_dir")


def make_database(path: Path) -> None:
    """Makes a new database, whole or not at all: so an empty file is a damaged one.

    Raises:
        RunStorageError, sqlite3.Error: It cannot be written.
    """
    for end in ("wal", "shm"):  # SQLite would take an old log for the new file's
        path.with_name(f"{path.name}-{end}").unlink(missing_ok=True)

    def write(part: Path) -> None:
        # Not in WAL mode: closing ignores it when a full disk keeps the log out of the file.
        connection = connect(str(part))
        try:
            create_schema(connection)
        finally:
            connection.close()
            part.with_name(f"{part.name}-journal").unlink(missing_ok=True)

    replace_file(path, write)


def corrupt(path: Path, error: object, *, drives: bool = False) -> RunCorruptError:
    """Returns the error that says that `path` is damaged, and what to do.

    Args:
        path: The database.
        error: What is wrong with it.
        drives: Whether a search wants it: that could begin elsewhere.
    """
    return RunCorruptError(
        f"{path} is damaged ({error}): restore it from a backup{_NEW_RUN if drives else ''} "
        "(the files beside it are left as they are)"
    )


def not_begun(connection: sqlite3.Connection, path: Path) -> bool:
    """Returns whether a database holds no run yet.

    Raises:
        RunCorruptError: None, although there are files of a run beside it.
        sqlite3.Error: The database cannot be read.
    """
    if connection.execute("SELECT EXISTS (SELECT 1 FROM record)").fetchone()[0]:
        return False
    # A run that was killed keeps all it has in the log: without it the database looks new, and a
    # search would number its files anew over those that are there.
    # Folders and champions only: a log of the shell's may be there before the run is.
    beside = sorted(
        entry.name
        for entry in path.parent.iterdir()
        if entry.name.startswith(_CHAMPION) or (entry.is_dir() and entry.name[0] != ".")
    )
    if beside:
        named = ", ".join(beside[:_MAX_NAMED]) + (", …" if len(beside) > _MAX_NAMED else "")
        raise RunCorruptError(
            f"{path} holds nothing, but there are files of a run beside it ({named}): is "
            f"{DATABASE}-wal missing? Copy a run with all its files{_NEW_RUN}"
        )
    return True


def create_schema(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new database, in one transaction.

    Raises:
        sqlite3.Error: The database cannot be written.
    """
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def check_version(connection: sqlite3.Connection, path: Path, *, drives: bool = False) -> None:
    """Refuses what is no run database, and one from a newer evonas.

    Args:
        connection: An open database.
        path: Its file.
        drives: Whether a search wants it.

    Raises:
        RunCorruptError: It is damaged, or of another program.
        SchemaVersionError: It has a newer schema.
        sqlite3.OperationalError: It cannot be opened.
    """
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        n_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise corrupt(path, error, drives=drives) from error
    if not n_tables:
        raise corrupt(path, "it is empty", drives=drives)
    other = _NEW_RUN if drives else ""
    if application != _APPLICATION_ID:
        raise RunCorruptError(
            f"{path} is not an evonas run database: pass the directory of a run{other}"
        )
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path} has schema version {version}, this evonas reads up to {SCHEMA_VERSION}: "
            f"upgrade evonas{other}"
        )
    if version < SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path} has schema version {version}, made by an earlier evonas; this one reads "
            f"{SCHEMA_VERSION}: open it with the version that made it{other}"
        )


def prepare(
    path: Path, durability: str, hold: Callable[[Path], None], check: Callable[..., None]
) -> sqlite3.Connection:
    """Returns a database open for its driver: made where there is none, else checked.

    Args:
        path: The database.
        durability: `process` or `power`.
        hold: Locks the file, before anything is done with it.
        check: Refuses a damaged database (`verify`).

    Raises:
        RunInUseError: `hold` says so.
        RunStorageError: It cannot be written, is damaged, or has another schema.
    """
    connection = None
    existed = path.exists()
    try:
        if not existed:
            if path.with_name("stats").exists():  # numbered anew, its files would not fit
                raise RunCorruptError(
                    f"{path} is missing although {path.parent} holds the files of a run (stats): "
                    "restore run.db from a backup, or pass a new run_dir"
                )
            make_database(path)
        if path.is_file():
            hold(path)
        connection = connect(str(path))
        check_version(connection, path, drives=True)
        connection.execute("PRAGMA journal_mode = WAL")
        if existed:
            check(connection, path, drives=True)
            not_begun(connection, path)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, (sqlite3.OperationalError, OSError)):
            raise RunStorageError(f"{path} cannot be written: {error}") from error
        if isinstance(error, sqlite3.DatabaseError):
            raise corrupt(path, error, drives=True) from error
        raise
    return connection

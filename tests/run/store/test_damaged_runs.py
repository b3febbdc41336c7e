from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import evonas as en
from evonas.exceptions import RunCorruptError, RunStorageError, SchemaVersionError
from evonas.run.store import SCHEMA_VERSION, RunReader, Store
from evonas.run.store.integrity import put_rows
from evonas.testing import killed_copies, onemax, onemax_space, trace


def search(run_dir: Path) -> en.Result:
    return en.evolve(
        onemax_space(), onemax, population=8, generations=4, elite=1, seed=0, run_dir=run_dir
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    search(path)
    return path


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run"


def truncated(size: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(size)

    return damage


def overwritten(at: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\xa5\x5a" * 40)

    return damage


DAMAGES = {
    "emptied": truncated(0),
    "cut to a byte": truncated(1),
    "cut in the header": truncated(60),
    "cut to the header": truncated(100),
    "cut to a page": truncated(4096),
    "cut in the middle": truncated(20_000),
    "a broken header": overwritten(0),
    "a broken schema": overwritten(100),
    "a broken table": overwritten(4096),
    "text": lambda path: path.write_text("this is no database\n" * 500),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_database_is_refused_and_left_as_it_is(name: str, run: Path) -> None:
    DAMAGES[name](run / "run.db")
    (run / "notes.txt").write_text("mine")
    before = (run / "run.db").read_bytes()
    message = r"(?s)run.db is damaged \(.*\): restore it from a backup{} \(the files beside it"
    with pytest.raises(RunCorruptError, match=message.format(", or pass a new run_dir")):
        search(run)
    with pytest.raises(RunCorruptError, match=message.format("")):  # a reader cannot begin anew
        trace(en.open_run(run))
    assert (run / "run.db").read_bytes() == before
    assert (run / "notes.txt").read_text() == "mine"


def test_a_database_of_another_program(run: Path) -> None:
    (run / "run.db").unlink()
    other = sqlite3.connect(run / "run.db")
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    for attempt in (search, en.open_run):
        with pytest.raises(RunCorruptError, match=r"run.db is not an evonas run database: pass"):
            attempt(run)


def test_an_older_schema_is_refused(run: Path) -> None:
    database = sqlite3.connect(run / "run.db")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    database.close()
    message = (
        f"run.db has schema version {SCHEMA_VERSION - 1}, made by an earlier evonas; "
        f"this one reads {SCHEMA_VERSION}"
    )
    with pytest.raises(SchemaVersionError, match=f"{message}.* or pass a new run_dir"):
        search(run)
    with pytest.raises(SchemaVersionError, match=message):
        en.open_run(run)


def test_a_newer_schema(run: Path) -> None:
    database = sqlite3.connect(run / "run.db")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    before = (run / "run.db").read_bytes()
    message = (
        f"run.db has schema version {SCHEMA_VERSION + 1}, this evonas reads up to "
        f"{SCHEMA_VERSION}: upgrade evonas"
    )
    with pytest.raises(SchemaVersionError, match=f"{message}, or pass a new run_dir"):
        search(run)
    with pytest.raises(SchemaVersionError, match=f"{message}$"):
        en.open_run(run)
    assert (run / "run.db").read_bytes() == before


def changed(run: Path, *statements: str) -> None:
    database = sqlite3.connect(run / "run.db")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


HOSTILE = {
    "a table that is not there": ["DROP TABLE logbook"],
    "another table": ["CREATE TABLE more (a)"],
    "a view that never ends": [
        "DROP TABLE logbook",
        "CREATE VIEW logbook AS WITH RECURSIVE n(row) AS (SELECT 0 UNION ALL SELECT row + 1 FROM n)"
        " SELECT row, '{}' AS entry, 0 AS checksum FROM n",
    ],
    "a trigger": [
        "CREATE TRIGGER t AFTER INSERT ON evaluations BEGIN DELETE FROM evaluations; END",
    ],
    "another value": ["UPDATE evaluations SET value = 99 WHERE number = 3"],
    "another fitness": ["UPDATE evaluations SET fitness = '[99.0]' WHERE number = 3"],
    "another key": ["UPDATE evaluations SET key = 'x' WHERE number = 3"],
    "a status that is none": ["UPDATE evaluations SET status = 'great' WHERE number = 3"],
    "a blob": ["UPDATE evaluations SET genes = x'ff00' WHERE number = 3"],
    "no number": ["UPDATE evaluations SET seconds = 'long' WHERE number = 3"],
    "another reason": ["UPDATE sessions SET reason = 'other'"],
    "another command": ["UPDATE sessions SET environment = '{}'"],
    "another state": ["UPDATE strategy SET state = '{}'"],
    "another row": ["UPDATE logbook SET entry = '{}' WHERE row = 1"],
    "another plan": ["UPDATE proposals SET evaluation = 0 WHERE id = 5"],
    "another record": ["UPDATE record SET value = '7' WHERE name = 'seed'"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_evonas_did_not_write_is_refused(name: str, run: Path) -> None:
    changed(run, *HOSTILE[name])
    for attempt in (search, en.open_run):
        with pytest.raises(RunCorruptError, match=r"run.db is damaged \("):
            attempt(run)


FORGED = {
    "no JSON": ("evaluations", 5, "["),
    "a list of genes": ("evaluations", 5, "[1]"),
    "endless nesting": ("evaluations", 6, '{"a":' * 50_000),
    "a fitness of text": ("evaluations", 4, '["a"]'),
    "a number that is none": ("evaluations", 6, '{"m":{"$number":"foo"}}'),
    "a status": ("evaluations", 2, "great"),
    "a row of the logbook": ("logbook", 1, "[]"),
    "an environment": ("sessions", 5, "3"),
    "parents": ("proposals", 4, "{}"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_row_with_a_forged_checksum_is_no_raw_error(name: str, run: Path) -> None:
    table, column, text = FORGED[name]
    database = sqlite3.connect(run / "run.db")
    row = list(database.execute(f"SELECT * FROM {table}").fetchone()[:-1])
    row[column] = text
    put_rows(database, table, [row])
    database.commit()
    database.close()

    def read() -> None:
        found = en.open_run(run)
        _ = found.evaluations, found.logbook, found.sessions, found.proposals

    with pytest.raises(RunCorruptError, match=r"run.db is damaged \("):
        read()


def test_no_flipped_byte_goes_unseen(sound: Path, tmp_path: Path) -> None:
    """What is read of a run with a flipped byte is what was written, or a named error."""
    whole = (sound / "run.db").read_bytes()
    expected = trace(en.open_run(sound)), en.open_run(sound).sessions
    run = tmp_path / "run"
    run.mkdir()
    rng = random.Random(0)
    refused = 0
    for place in sorted(rng.sample(range(len(whole)), 250)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        (run / "run.db").write_bytes(flipped)
        try:
            found = en.open_run(run)
            assert (trace(found), found.sessions) == expected, place
        except RunStorageError:
            refused += 1
    assert refused > 50, "most of a small file is free space"


def test_a_database_that_is_a_directory(run: Path) -> None:
    (run / "run.db").unlink()
    (run / "run.db").mkdir()
    with pytest.raises(RunStorageError, match=r"run.db cannot be written: unable to open"):
        search(run)


def test_a_database_that_was_removed_leaves_a_new_run(run: Path) -> None:
    """Unless there are numbered files, which would not fit the new run's numbers."""
    (run / "run.db").unlink()
    (run / "stats").mkdir()
    with pytest.raises(RunCorruptError, match=r"run.db is missing although .* \(stats\): restore"):
        search(run)
    (run / "stats").rmdir()
    assert len(search(run).logbook) == 4


def test_the_log_of_a_removed_database_is_not_taken_for_the_new_ones(
    tmp_path: Path, sound: Path
) -> None:
    killed = killed_copies(search, tmp_path)[-5]
    assert (killed / "run.db-wal").stat().st_size > 0
    (killed / "run.db").unlink()
    assert trace(search(killed)) == trace(en.open_run(sound))
    with RunReader.open(killed) as reader:
        assert len(reader.sessions()) == 1


def test_a_start_that_died_while_it_made_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves no run.db, so that an empty one is always damage."""

    def dies(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("evonas.run.store.schema.create_schema", dies)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path)
    assert not (tmp_path / "run.db").exists()
    assert len(search(tmp_path).logbook) == 4
    assert not (tmp_path / "run.db.new").exists()


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is no run.db in it"):
        en.open_run(tmp_path)
    Store.create(tmp_path).close()
    with pytest.raises(FileNotFoundError, match="holds a run that has not begun yet"):
        en.open_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere holds no run: there is no such"):
        RunReader.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"run.db is a file: pass the directory of a run"):
        RunReader.open(tmp_path / "run.db")


def test_a_directory_of_runs_names_them(tmp_path: Path) -> None:
    for number in range(7):
        Store.create(tmp_path / f"run{number}").close()
    listed = ", ".join(str(tmp_path / f"run{number}") for number in range(5))
    message = f"there is no run.db in it; there are runs in {listed} and 2 more$"
    with pytest.raises(FileNotFoundError, match=message):
        RunReader.open(tmp_path)


def test_a_killed_run_copied_without_its_log(tmp_path: Path) -> None:
    """All that it has is in the log: the database alone looks as if it had not begun."""
    killed = killed_copies(search, tmp_path)[-5]
    (killed / "output").mkdir()
    assert en.open_run(killed).counts.evaluated > 0
    (killed / "run.db-wal").unlink()
    (killed / "run.db-shm").unlink(missing_ok=True)
    before = (killed / "run.db").read_bytes()
    message = (
        r"run.db holds nothing, but there are files of a run beside it \(output\): is run.db-wal "
        "missing\\? Copy a run with all its files, or pass a new run_dir"
    )
    for attempt in (search, en.open_run):
        with pytest.raises(RunCorruptError, match=message):
            attempt(killed)
    assert (killed / "run.db").read_bytes() == before
    # What a shell's redirection makes before the run begins is no file of a run.
    (killed / "output").rmdir()
    (killed / "log.txt").touch()
    assert len(search(killed).logbook) == 4


def test_reading_a_run_at_rest_leaves_nothing_behind(run: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    assert len(en.open_run(run).evaluations) > 8
    assert sorted(path.name for path in run.iterdir()) == before
    (run / "run.db-wal").touch()  # as an older reader left it
    en.open_run(run)
    assert not (run / "run.db-shm").exists()


def test_reading_sees_what_is_only_in_the_log(tmp_path: Path) -> None:
    copies = killed_copies(search, tmp_path)
    counts = [en.open_run(copy).counts.evaluated for copy in copies]
    assert counts == sorted(counts)
    assert counts[-1] > counts[1]

from __future__ import annotations

import ast
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import RunInUseError, RunStorageError
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.run.store import KnownPoint, PlannedProposal, RunReader, Store
from evonas.run.store.encoding import from_json, to_json
from evonas.run.store.lock import RunLock
from evonas.testing import onemax, onemax_space

ROOT = Path(__file__).resolve().parents[3]


def evaluation(number: int, value: float | None = 1.0, **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "key": f"key{number}",
        "genes": {"x": number, "name": "é", "list": [1, {"a": None}]},
        "status": Status.OK if value is not None else Status.FAILED,
        "values": () if value is None else (value,),
    }
    return Evaluation(number, **(fields | changes))


FULL = Evaluation(
    number=3,
    key="abc",
    genes={"lr": 0.1 + 0.2, "layers": [1, 2], "on": True, "none": None},
    status=Status.OK,
    values=(0.1, -1e300),
    metrics={"params": 12, "loss": math.inf, "text": "a\x00b\udcff", "nested": {"x": [0.5]}},
    epochs=(
        EpochMetrics(0, 0.25, {"loss": 2.0}),
        EpochMetrics(1, 0.5, {"loss": math.inf, "acc": 1}),
    ),
    seconds=1.5,
    seed=2**32 - 1,
    error=None,
    started_at=1.7e9,
)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_record_comes_back_as_it_was(on_disk: bool, tmp_path: Path) -> None:
    with Store.create(tmp_path if on_disk else None) as store:
        store.add_evaluation(FULL)
        store.add_evaluation(evaluation(4, None, error="Traceback …"))
        assert store.evaluation(3) == FULL
        assert list(store.evaluations()) == [FULL, evaluation(4, None, error="Traceback …")]
        assert store.evaluation(5) is None
    if on_disk:
        with RunReader.open(tmp_path) as reader:
            assert reader.evaluation(3) == FULL


def test_nan_comes_back_as_nan() -> None:
    with Store.create(None) as store:
        epochs = (EpochMetrics(0, 0.0, {"loss": math.nan}),)
        store.add_evaluation(evaluation(0, None, metrics={"x": [math.nan]}, epochs=epochs))
        found = store.evaluation(0)
        assert found is not None
        assert math.isnan(found.metrics["x"][0])
        assert math.isnan(found.epochs[0].metrics["loss"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1.5, None, True, "ü"]}, '{"b":1,"a":[1.5,null,true,"ü"]}'),
        ((1, 2), "[1,2]"),
        (math.nan, '{"$number":"NaN"}'),
        ({"x": [math.inf, -math.inf]}, '{"x":[{"$number":"Infinity"},{"$number":"-Infinity"}]}'),
        ("\udcff", '"\\udcff"'),
    ],
)
def test_json_as_it_is_stored(value: Any, text: str) -> None:
    assert to_json(value) == text
    text.encode()  # SQLite takes UTF-8 only
    assert repr(from_json(text)) == repr([1, 2] if value == (1, 2) else value)


def test_best_ranks_by_value_then_by_number() -> None:
    with Store.create(None) as store:
        for number, value in enumerate((1.0, 3.0, None, 2.0, 3.0, 1.0)):
            store.add_evaluation(evaluation(number, value))
        assert [entry.number for entry in store.best(4, maximise=True)] == [1, 4, 3, 0]
        assert [entry.number for entry in store.best(10, maximise=False)] == [0, 5, 3, 1, 4]
        assert store.best(0, maximise=True) == []


def test_pruned_values_never_rank() -> None:
    with Store.create(None) as store:
        store.add_evaluation(evaluation(0, 9.0, status=Status.PRUNED))
        store.add_evaluation(evaluation(1, 1.0))
        assert [entry.number for entry in store.best(9, maximise=True)] == [1]
        assert [entry.number for entry in store.best(9, maximise=False)] == [1]
        assert store.evaluation(0).values == (9.0,)  # type: ignore[union-attr]


def plan(id: int, evaluation: int, reused: bool = False) -> PlannedProposal:  # noqa: A002
    return PlannedProposal(id, evaluation, reused, id // 2, (id, 7))


def test_a_step_is_committed_whole() -> None:
    with Store.create(None) as store:
        invalid = evaluation(2, None, status=Status.INVALID, error="no shape")
        proposals = [plan(0, 0), plan(1, 1), plan(2, 0, True), plan(3, 0, True)]
        store.checkpoint({"a": 1}, proposals=proposals, invalid=[invalid], rows=[{"gen": 0}])
        assert store.state() == {"a": 1}
        assert list(store.proposals()) == proposals
        assert store.evaluation(2) == invalid
        assert store.logbook() == [{"gen": 0}]
        assert (store.next_number(), store.next_proposal_id()) == (3, 4)
        assert store.reused_in_a_row() == 2
        assert store.planned([1, 3, 99]) == {1: plan(1, 1), 3: plan(3, 0, True)}
        assert store.counts()["reused"] == 2

        class Broken:
            pass

        with pytest.raises(TypeError, match="Broken is not JSON"):
            store.checkpoint({"a": 2}, proposals=[plan(4, 3)], rows=[{"x": Broken()}], first_row=1)
        assert store.state() == {"a": 1}
        assert len(list(store.proposals())) == 4


def test_a_point_is_known_by_its_latest_evaluation() -> None:
    with Store.create(None) as store:
        store.add_evaluation(evaluation(0, None, key="same"))
        store.add_evaluation(evaluation(1, 2.0, key="same"))
        store.add_evaluation(evaluation(2, None, key="other"))
        assert store.known() == {
            "same": KnownPoint(1, Status.OK),
            "other": KnownPoint(2, Status.FAILED),
        }


def test_failures_in_a_row_are_counted_back_from_a_proposal() -> None:
    with Store.create(None) as store:
        for number, value in enumerate((None, 1.0, None, None, None)):
            store.add_evaluation(evaluation(number, value))
        proposals = [plan(number, number) for number in range(5)]
        store.checkpoint({}, proposals=[*proposals, plan(5, 1, True), plan(6, 5)])
        assert store.failures_in_a_row(99) == 3  # neither the reused one nor the open one counts
        assert store.failures_in_a_row(4) == 2
        assert store.failures_in_a_row(2) == 0
        assert store.failures_in_a_row(1) == 1
        assert store.failures_in_a_row(99, retryable={2, 3}) == 1


def test_sessions_add_up() -> None:
    with Store.create(None) as store:
        assert store.seconds() == 0.0
        store.begin_session({"python": "3"})
        store.add_evaluation(evaluation(0), session_seconds=2.5)
        assert store.seconds() == 2.5
        assert store.sessions()[0]["outcome"] is None
        store.close_session(3.0, "finished", "all done")
        store.begin_session({"python": "3"})
        store.close_session(1.0, "error", "oh")
        assert store.seconds() == 4.0
        outcomes = [(entry["outcome"], entry["reason"]) for entry in store.sessions()]
        assert outcomes == [("finished", "all done"), ("error", "oh")]
        assert store.sessions()[0]["environment"] == {"python": "3"}


def test_confirmations_come_back(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        record = evaluation(1, 0.5, seed=4, seconds=2.0, metrics={"a": 1})
        store.add_confirmation(1, record)
        found = store.confirmations()[record.key, 1]
    assert (found.values, found.seed, found.seconds) == ((0.5,), 4, 2.0)


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        store.add_evaluation(evaluation(0))
        with RunReader.open(tmp_path) as reader:
            assert len(list(reader.evaluations())) == 1
            store.add_evaluation(evaluation(1))  # not blocked by the reader
            assert len(list(reader.evaluations())) == 2
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader._connection.execute("DELETE FROM evaluations")


def test_a_run_on_a_medium_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.create(tmp_path) as store:
        store.add_evaluation(evaluation(0))
    connects = []

    def connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
        connects.append(path)
        if "immutable" not in path:  # what SQLite says where it cannot make the -shm file
            raise sqlite3.OperationalError("unable to open database file")
        return sqlite3.connect(path, uri=uri)

    monkeypatch.setattr("evonas.run.store.reader.connect", connect)
    for held, n_connects in ((None, 2), (False, 1)):  # at rest it is opened like that at once
        connects.clear()
        monkeypatch.setattr("evonas.run.store.reader.is_held", lambda path, held=held: held)
        with RunReader.open(tmp_path) as reader:
            assert reader.evaluation(0) is not None
        assert len(connects) == n_connects
    (tmp_path / "run.db-wal").write_text("what would not be read")
    with pytest.raises(RunStorageError, match=r"run.db-wal \(.*\): copy the run, with all its"):
        RunReader.open(tmp_path)
    (tmp_path / "run.db-wal").unlink()
    monkeypatch.setattr(
        "evonas.run.store.reader.connect",
        lambda path, uri: sqlite3.connect(tmp_path / "no" / "such", uri=False),
    )
    with pytest.raises(RunStorageError, match=r"run.db cannot be read: unable to open"):
        RunReader.open(tmp_path)


def test_durability(tmp_path: Path) -> None:
    for durability, level in (("process", 1), ("power", 2)):
        with Store.create(tmp_path / durability, durability=durability) as store:  # type: ignore[arg-type]
            assert store._connection.execute("PRAGMA synchronous").fetchone()[0] == level
            assert store._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    with pytest.raises(ValueError, match="durability must be 'process' or 'power', got 'disk'"):
        Store.create(tmp_path, durability="disk")  # type: ignore[arg-type]


# -- one driver --------------------------------------------------------------------------------


def test_a_second_driver_in_this_process(tmp_path: Path) -> None:
    message = rf"is in use by this process \({os.getpid()}\)"
    with Store.create(tmp_path), pytest.raises(RunInUseError, match=message):
        Store.create(tmp_path / ".." / tmp_path.name)
    Store.create(tmp_path).close()


def test_a_second_driver_in_another_process(tmp_path: Path) -> None:
    code = (
        "from evonas.run.store import Store; from pathlib import Path;"
        f"Store.create(Path({str(tmp_path)!r}))"
    )
    with Store.create(tmp_path) as store:
        with RunReader.open(tmp_path), RunReader.open(tmp_path):
            pass  # readers of this process must not let go of its lock
        store.add_evaluation(evaluation(0))
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT,
            check=False,
        )  # fmt: skip
        assert f"RunInUseError: run {tmp_path} is in use by process {os.getpid()}" in done.stderr
        assert "pass another run_dir" in done.stderr
    done = subprocess.run([sys.executable, "-c", code], timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_lock_is_let_go_of_when_the_database_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("no database" * 100)
    for _ in range(2):
        with pytest.raises(RunStorageError, match="damaged"):
            Store.create(tmp_path)


def test_releasing_twice_is_harmless(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "lock")
    lock.release()
    other = RunLock(tmp_path / "lock")
    lock.release()
    with pytest.raises(RunInUseError, match="in use"):
        RunLock(tmp_path / "lock")
    other.release()


# -- opening a run never runs code -------------------------------------------------------------

CAN_RUN_CODE = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "importlib",
    "runpy",
}


def test_reading_a_run_can_run_no_code() -> None:
    """No module that turns data into code, in storage and in all that reads a run."""
    run = ROOT / "evonas" / "run"
    files = [*(run / "store").glob("*.py"), run / "result.py"]
    assert len(files) > 4
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("eval", "exec", "compile", "__import__", "load_extension"):
                    found.append(f"{file.name}:{node.lineno} calls {called}")
            found += [
                f"{file.name} imports {name}"
                for name in names
                if name.split(".")[0] in CAN_RUN_CODE
            ]
    assert found == []


def test_nothing_but_json_numbers_and_text_is_stored(tmp_path: Path) -> None:
    en.evolve(onemax_space(), onemax, population=6, generations=4, run_dir=tmp_path)
    database = sqlite3.connect(tmp_path / "run.db")
    tables = [
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    for table in tables:
        for row in database.execute(f"SELECT * FROM {table}"):
            assert all(isinstance(cell, (int, float, str, type(None))) for cell in row)
    database.close()
    assert {"record", "evaluations", "epochs", "proposals", "strategy", "logbook"} <= set(tables)

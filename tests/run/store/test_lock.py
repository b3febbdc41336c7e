from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import evonas as en
from evonas.exceptions import RunInUseError
from evonas.run.store.lock import RunLock, is_held

SECOND = """
import sys
from pathlib import Path
from evonas.exceptions import RunInUseError
from evonas.run.store.lock import RunLock, is_held
path = Path(sys.argv[1])
print(is_held(path))
try:
    RunLock(path)
except RunInUseError:
    print("refused")
else:
    print("taken")
"""


def elsewhere(path: Path) -> list[str]:
    """What another process finds out, which then tries to take the lock."""
    done = subprocess.run(
        [sys.executable, "-c", SECOND, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_asking_neither_takes_the_lock_nor_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert is_held(path) is False
    assert not path.exists()
    lock = RunLock(path)
    path.read_bytes()  # closing a file lets go of record locks of the process on it
    before = path.stat()
    assert is_held(path) is True
    assert elsewhere(path) == ["True", "refused"]
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(RunInUseError, match="in use by this process"):
        RunLock(path)
    lock.release()
    assert is_held(path) is False
    assert elsewhere(path) == ["False", "taken"]


def test_a_lock_that_cannot_be_read_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.lock"
    path.touch()

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("evonas.run.store.lock.os.open", refuse)
    assert is_held(path) is None


DRIVER = """
import os, shutil, sys
from pathlib import Path
import evonas as en
what, run_dir = sys.argv[1], Path(sys.argv[2])

class Does(en.Observer):
    def on_evaluation(self, evaluation, best):
        if evaluation.number != 2:
            return
        if what == "copy":
            shutil.copytree(run_dir, run_dir.with_name("copied"))
        if what == "unlock":
            (run_dir / "run.lock").unlink()
        if what == "remove":
            shutil.rmtree(run_dir)
        if what == "replace":
            shutil.copy(run_dir / "run.db", run_dir / "new.db")
            os.replace(run_dir / "new.db", run_dir / "run.db")
        if what == "fork" and os.fork() == 0:
            return  # and the search goes on, in two processes
        print("ready", flush=True)
        sys.stdin.readline()

def fitness(genes, trial):
    with open(sys.argv[3], "a") as file:
        file.write(f"{trial.number}\\n")
    if what == "fork in fitness" and trial.number == 2:
        if os.fork():
            os.wait()
    return genes["x"]

if what == "fork in fitness":
    print("ready", flush=True)
en.evolve({"x": list(range(8))}, fitness, max_evaluations=6, seed=0, run_dir=run_dir,
          callbacks=[Does()])
"""


class Driven:
    """A search in another process, stopped in the middle."""

    def __init__(self, what: str, folder: Path) -> None:
        self.run_dir, self.log = folder / "run", folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, what, str(self.run_dir), str(self.log)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate("\n\n", timeout=60)
        return self.process.returncode, errors

    def trained(self) -> list[str]:
        return self.log.read_text().split()


def second(run_dir: Path) -> None:
    en.evolve({"x": list(range(8))}, lambda genes, trial: 0, max_evaluations=6, run_dir=run_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="record locks of other systems are dropped")
@pytest.mark.parametrize("what", ["copy", "unlock"])
def test_nothing_lets_a_second_driver_in(what: str, tmp_path: Path) -> None:
    driven = Driven(what, tmp_path)
    with pytest.raises(RunInUseError, match="in use by"):
        second(driven.run_dir)
    assert driven.end()[0] == 0
    assert len(driven.trained()) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="record locks of other systems are dropped")
@pytest.mark.parametrize("link", ["symlink", "link"])
def test_a_link_to_the_database_is_the_same_run(link: str, tmp_path: Path) -> None:
    driven = Driven("nothing", tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    getattr(os, link)(driven.run_dir / "run.db", other / "run.db")
    with pytest.raises(RunInUseError, match="in use by another driver of the same file"):
        second(other)
    assert driven.end()[0] == 0


@pytest.mark.parametrize(("what", "word"), [("remove", "removed"), ("replace", "replaced")])
def test_a_run_that_goes_while_it_runs_is_said(what: str, word: str, tmp_path: Path) -> None:
    status, errors = Driven(what, tmp_path).end()
    assert status == 1
    assert f"RunStorageError: {tmp_path}/run/run.db was {word}" in errors


@pytest.mark.parametrize("what", ["fork", "fork in fitness"])
def test_a_fork_does_not_drive_the_run(what: str, tmp_path: Path) -> None:
    driven = Driven(what, tmp_path)
    status, errors = driven.end()
    assert status == 0, errors
    said = {"fork": "of which this one is a fork", "fork in fitness": "forked it and returned"}
    assert said[what] in errors
    trained = driven.trained()
    assert sorted(set(trained)) == [str(number) for number in range(6)]
    assert len(trained) <= 6 + (what == "fork"), "each once; one was in hand in the fork"
    assert len(en.open_run(driven.run_dir).evaluations) == 6

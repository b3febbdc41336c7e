from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main
from evonas.run.identity import start_command
from evonas.run.signature import is_ours, sign
from evonas.run.store.integrity import put_rows

ROOT = Path(__file__).resolve().parents[2]
Search = Callable[..., en.Result]

SCRIPT = """
import sys
import evonas as en

def fitness(genes, trial):
    return genes["x"]

if __name__ == "__main__":
    en.evolve({"x": en.Integer(1, 50)}, fitness, population=4, generations=int(sys.argv[1]),
              elite=1, seed=0, run_dir="run")
    sys.exit(7)
"""


def with_environment(run: Path, *, signed: bool = True, **changes: Any) -> None:
    """Changes what the last start of a run put on record, as if it had been so."""
    with sqlite3.connect(run / "run.db") as database:
        *row, text, _ = database.execute("SELECT * FROM sessions ORDER BY id DESC").fetchone()
        found = json.loads(text) | changes
        if signed:
            found["signature"] = sign(found)
        put_rows(database, "sessions", [(*row, json.dumps(found))])
    database.close()


def test_the_command_runs_where_it_ran_and_gives_its_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "job.py").write_text(SCRIPT)
    command = [sys.executable, "-X", "utf8", "job.py", "2"]
    assert subprocess.run(command, cwd=tmp_path, check=False, timeout=60).returncode == 7
    run = tmp_path / "run"
    assert en.open_run(run).sessions[0]["environment"]["command"] == command
    assert main(["resume", str(run), "--print"]) == 0
    assert capfd.readouterr().out == f"cd {tmp_path} && {shlex.join(command)}\n"
    assert main(["resume", str(run), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"command": command, "directory": str(tmp_path)}
    assert len(en.open_run(run).sessions) == 1
    assert main(["resume", str(run)]) == 7
    assert "running" in capfd.readouterr().err
    assert len(en.open_run(run).sessions) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": None}, "does not know the command that made it"),
        ({"directory": "/nowhere/at/all"}, "the directory /nowhere/at/all, in which .* is gone"),
        ({"command": ["/nowhere/python", "x.py"]}, "/nowhere/python, which started .* is gone"),
    ],
)
def test_what_cannot_run_says_what_to_do(
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    search: Search,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    search(tmp_path, generations=1)
    with_environment(tmp_path, **changes)
    assert main(["resume", str(tmp_path)]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("moved", [True, False])
def test_a_run_that_was_moved_or_copied_is_refused_before_anything_starts(
    moved: bool, tmp_path: Path, search: Search, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its command would go on with the original, or begin anew where that was."""
    run, other = tmp_path / "run", tmp_path / "other"
    search(run, generations=1)
    mark = tmp_path / "mark"
    with_environment(run, command=[sys.executable, "-c", f"open({str(mark)!r}, 'w')"])
    (tmp_path / "link").symlink_to(run)
    assert main(["resume", str(tmp_path / "link"), "--print"]) == 0  # the same directory
    (shutil.move if moved else shutil.copytree)(run, other)
    capfd.readouterr()
    for option in ([], ["--print"], ["--json"]):
        assert main(["resume", str(other), *option]) == 1
        shown, errors = capfd.readouterr()
        assert shown == ""
        assert errors.startswith(
            f"evonas: {other} was moved here or is a copy: its command goes on with {run}; run it "
            f"with this directory in place of that one (--run-dir {other}, or run_dir= in its "
            f"code): cd {os.getcwd()} && {sys.executable} -c "
        )
    assert not mark.exists()
    assert main(["show", str(other)]) == 0
    shown = capfd.readouterr().out
    assert "evonas resume" not in shown
    assert f"moved here or copied: its command goes on with {run}." in shown


STRANGERS = {
    "its directory": {},
    "no directory": {"run_dir": None},
    "a relative directory": {"run_dir": "run"},
    "whatever the directory is": {"run_dir": "/proc/self/cwd"},
    "a signature of its own": {"signature": "0" * 64},
    "no text": {"signature": 3},
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_strangers_command_does_not_run_unasked(
    name: str,
    tmp_path: Path,
    search: Search,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, mark = tmp_path / "run", tmp_path / "mark"
    search(run, generations=1)
    command = [sys.executable, "-c", f"open({str(mark)!r}, 'w')  # \x1b[8m"]
    with_environment(
        run, signed=False, **{"command": command, "directory": str(tmp_path), **STRANGERS[name]}
    )
    monkeypatch.chdir(run if name == "whatever the directory is" else tmp_path)
    assert main(["resume", str(run)]) == 1
    assert not mark.exists()
    errors = capfd.readouterr().err
    assert "\x1b" not in errors
    if name in ("its directory", "a signature of its own", "no text"):
        assert f"{run} was not started by you on this machine. Its command is" in errors
        assert "\\x1b[8m" in errors
        assert main(["resume", str(run), "--yes"]) == 0
        assert mark.exists()


def test_a_person_is_asked(tmp_path: Path, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    search(tmp_path, generations=1)
    mark = tmp_path / "mark"
    command = [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]
    with_environment(tmp_path, signed=False, command=command, directory=str(tmp_path))
    for answer, status in (("n\n", 1), ("y\n", 0)):
        answers = io.StringIO(answer)
        answers.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", answers)
        assert main(["resume", str(tmp_path)]) == status
        assert mark.exists() is (status == 0)


def test_the_secret_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = {"command": ["a"], "directory": "/", "run_dir": "/r"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    signed = {**start, "signature": sign(start)}
    assert is_ours(signed)
    assert (tmp_path / "evonas" / "secret").stat().st_mode & 0o777 == 0o600
    for name in start:
        assert not is_ours({**signed, name: "other"})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert not is_ours(signed)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert sign(start) is None


def test_a_run_that_is_running_is_refused(
    tmp_path: Path, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = []

    class Resumes(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            if evaluation.number == 2:
                statuses.append(main(["resume", str(tmp_path)]))

    search(tmp_path, generations=1, callbacks=[Resumes()])
    assert statuses == [1]
    assert "is running already" in capsys.readouterr().err


def test_a_command_that_writes_elsewhere_is_told(
    tmp_path: Path, search: Search, capfd: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path, generations=1)
    with_environment(
        tmp_path, command=[sys.executable, "-c", "import os; os._exit(3)"], directory=os.getcwd()
    )
    assert main(["resume", str(tmp_path)]) == 3
    assert "is as it was: its command goes on with another directory" in capfd.readouterr().err


def test_a_command_killed_by_a_signal_gives_the_status_that_shells_give(
    tmp_path: Path, search: Search
) -> None:
    search(tmp_path, generations=1)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with_environment(tmp_path, command=[sys.executable, "-c", code], directory=os.getcwd())
    assert main(["resume", str(tmp_path)]) == 128 + 9


@pytest.mark.parametrize(
    ("arguments", "has_file", "expected"),
    [
        (["job.py", "--fast"], True, ["job.py", "--fast"]),
        (["-m", "package.job"], True, ["-m", "package.job"]),
        (["-c", "import job"], False, ["-c", "import job"]),
        (["-"], False, None),
        ([], False, None),
        (["-m", "ipykernel_launcher", "-f", "x.json"], False, None),
        (["-i", "job.py"], True, None),
    ],
)
def test_which_starts_can_be_repeated(
    arguments: list[str],
    has_file: bool,
    expected: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", *arguments])
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", "x.py" if has_file else None, raising=False
    )
    command = start_command()
    assert command == (None if expected is None else [sys.executable, *expected])

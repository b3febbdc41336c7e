"""How the command starts and ends, whatever it is told to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import evonas as en
from evonas.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["list", "show", "serve", "report", "export", "source", "compare", "resume"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "Missing argument 'RUN'"),
        (["tell", "x"], "No such command 'tell'"),
        (["show", "x", "--yaml"], "No such option"),
        (["show", "x", "--every", "0"], "Invalid value for '--every'"),
        (["export", "x"], "Missing option '--format'"),
        (["export", "x", "--format", "xls"], "'xls' is not one of"),
        (["compare", "x"], "compare wants two runs or more"),
        (["show", "x", "--every", "3"], "--every says how often --watch looks: give --watch too"),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert message in errors


def test_no_command_shows_the_help_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "evonas show runs/demo --watch" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_teaches_by_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    examples = re.findall(r"^ +(evonas .*)$", shown, re.M)
    assert examples
    for example in examples:
        assert not command or f"evonas {command[0]} " in example
    assert max(map(len, shown.splitlines())) <= 80
    assert main([*command, "-h"]) == 0
    assert capsys.readouterr().out == shown


def test_the_list_of_commands_is_not_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:")[1].split("Exit status:")[0]
    assert re.findall(r"^  (\w+) ", listed, re.M) == sorted(COMMANDS)
    assert "..." not in listed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert shown in (
        f"evonas, version {en.__version__}\n",
        "evonas, version of a source tree that is not installed\n",
    )


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "evonas: .* holds no run: there is no run.db in it"),
        (lambda path: (path / "run.db").write_text("x" * 5000), "evonas: .*run.db is damaged"),
        (lambda path: (path / "run.db").touch(), "evonas: .*run.db is damaged .it is empty."),
        (
            lambda path: (path / "a").mkdir() or (path / "a" / "run.db").touch(),
            "evonas: .* holds no run: there is no run.db in it; there are runs in .*/a",
        ),
        (lambda path: path.rmdir(), "evonas: .*/run holds no run: there is no such directory"),
        (lambda path: path.rmdir() or path.touch(), "evonas: .* is a file: pass the directory of"),
    ],
)
@pytest.mark.parametrize(
    "arguments", [["show"], ["report"], ["export", "--format=csv"], ["compare", "."], ["resume"]]
)
def test_a_run_that_cannot_be_read_ends_with_1(
    prepare: Callable[[Path], Any],
    message: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    prepare(run)
    assert main([arguments[0], str(run), *arguments[1:]]) == 1
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert re.match(message, errors)
    assert errors.count("\n") == 1
    assert "run_dir" not in errors  # it is no search that could begin elsewhere


@pytest.mark.parametrize("command", [["show"], ["compare", "RUN"], ["export", "--format=CSV"]])
def test_the_database_stands_for_its_run(
    command: list[str], ended: en.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(ended.run_dir) if word == "RUN" else word for word in command]
    assert main([*words, str(ended.run_dir)]) == 0
    by_directory = capsys.readouterr().out
    assert main([*words, f"{ended.run_dir}/run.db"]) == 0
    assert capsys.readouterr().out == by_directory


@pytest.mark.parametrize(
    "command",
    [
        ["report"],
        ["export", "--format=csv"],
        ["export", "--format=optuna"],
        ["export", "--format=nn-dataset"],
        ["source", "champion"],
    ],
)
def test_no_tree_is_made_for_an_output(
    command: list[str],
    classified: en.Result,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [command[0], str(classified.run_dir), *command[1:], "-o"]
    assert main([*words, str(tmp_path / "no" / "x")]) == 1
    assert re.search(
        f"no/x cannot be written: there is no directory {tmp_path}/no; make it, or give another -o",
        capsys.readouterr().err,
    )
    assert not list(tmp_path.iterdir())
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    assert main([*words, str(tmp_path / "x")]) == 1
    assert "is not writable; give another -o" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_no_traceback(
    ended: en.Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evonas.cli.show.read_state", interrupted)
    assert main(["show", str(ended.run_dir), "--watch"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_in_a_process_a_closed_pipe_is_no_error_and_nothing_heavy_is_imported(
    ended: en.Result,
) -> None:
    code = (
        "import sys; from evonas.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'plotly', 'optuna', 'pandas', 'mlflow', 'tensorboard'}; "
        "print(sorted(heavy & sys.modules.keys()), status, file=sys.stderr)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "show", str(ended.run_dir)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "[] 0\n")


def test_the_report_says_where_it_is(
    ended: en.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "mine.html"
    assert main(["report", str(ended.run_dir), "-o", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "RUN"],
        ["show", "RUN", "--json"],
        ["show", "RUN", "--watch"],
        ["export", "RUN", "--format", "csv"],
        ["export", "RUN", "--format", "json"],
        ["compare", "RUN", "RUN"],
        ["resume", "RUN", "--print"],
        ["source", "RUN", "champion"],
    ],
)
def test_reading_a_run_never_changes_it(
    arguments: list[str], ended: en.Result, snapshot: Callable[[Path], Any]
) -> None:
    assert ended.run_dir is not None
    before = snapshot(ended.run_dir)
    main([str(ended.run_dir) if word == "RUN" else word for word in arguments])
    assert snapshot(ended.run_dir) == before
    assert "run.db" in before


def test_commands_come_from_click() -> None:
    # What shells complete with, and what makes `--help` the same everywhere.
    from evonas.cli import command

    assert isinstance(command._evonas, click.Group)
    assert sorted(command._evonas.commands) == sorted(COMMANDS)

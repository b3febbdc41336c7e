"""Every argument and option of the command line, given what it cannot take: one line that says so.

Each is tried through `main`, as a person types it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest

import evonas as en
from evonas.cli.command import _evonas, main

WRONG = {
    "empty": "", "word": "abc", "minus": "-1", "zero": "0", "nan": "nan", "inf": "inf",
    "huge": "1" * 400, "missing": "no/such/thing", "device": "/dev/full", "escape": "\x1b[2J",
    "bytes": os.fsdecode(b"\xff\xfe"), "option": "--nonsense", "glob": "*", "tilde": "~nobody/x",
}  # fmt: skip

# By command: what it needs beside the argument that is tried.
NEEDED = {"source": ["champion"], "export": ["--format", "json"]}
# What is no mistake: a file may have any name that the disk takes, a number may name an evaluation.
ACCEPTED = {
    ("show", "every"): {"inf"},
    ("source", "key"): {"zero"},
    ("serve", "port"): {"zero"},
    ("serve", "host"): {"zero"},  # a way to write 0.0.0.0
    "output": {
        "word",
        "minus",
        "zero",
        "nan",
        "inf",
        "escape",
        "bytes",
        "glob",
        "option",
    },
}
CASES = [
    (name, parameter.name)
    for name, command in _evonas.commands.items()
    for parameter in command.params
    if not (isinstance(parameter, click.Option) and parameter.is_flag)
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    en.evolve({"x": [1, 2, 3]}, lambda g, t: g["x"], max_evaluations=2, run_dir=folder, seed=0)
    return folder


def line(command: str, parameter: Any, value: str, run: Path) -> list[str]:
    """The command with `value` for `parameter`, and all else as it should be."""
    if parameter.name in ("run", "runs"):
        return [command, value, *NEEDED.get(command, [])]
    if isinstance(parameter, click.Argument):
        return [command, str(run), value]
    needed = [] if parameter.name == "form" else NEEDED.get(command, [])
    return [command, str(run), *needed, parameter.opts[-1], value]


@pytest.mark.parametrize(("command", "name"), CASES)
@pytest.mark.parametrize("label", WRONG)
def test_what_an_argument_cannot_take_is_said_in_one_line(
    command: str,
    name: str,
    label: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if command == "serve":
        monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: sockets[0].close())
    parameter = next(p for p in _evonas.commands[command].params if p.name == name)
    before = sorted(run.iterdir())
    status = main(line(command, parameter, WRONG[label], run))
    said = capsys.readouterr().err
    accepted = ACCEPTED.get((command, name), ACCEPTED.get(name, set()))
    if label in accepted and status == 0:
        return
    assert status in (1, 2)
    assert "Traceback" not in said
    assert said.strip()
    assert sorted(run.iterdir()) == before
    assert sorted(tmp_path.iterdir()) == []

"""`evonas serve`: where it listens, and the address that it prints."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from evonas.cli import main

pytest.importorskip("uvicorn", reason="pip install 'evonas[live]'")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, tuple[str, int]]]:
    """The application and the address of each server that would run."""
    found: list[tuple[Any, tuple[str, int]]] = []

    def run(self: Any, sockets: list[socket.socket]) -> None:
        found.append((self.config.app, sockets[0].getsockname()))
        sockets[0].close()

    monkeypatch.setattr("uvicorn.Server.run", run)
    return found


def test_it_listens_on_this_machine_alone_and_prints_a_token(
    served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["serve", str(tmp_path), "--port", "0"]) == 0
    printed = capsys.readouterr().out.split()
    tokens = set()
    for line, (_, (host, port)) in zip(printed, served, strict=True):
        found = re.fullmatch(rf"http://127\.0\.0\.1:{port}/([\w-]{{20,}})/", line)
        assert found
        assert host == "127.0.0.1"
        tokens.add(found[1])
    assert len(tokens) == 2, "each start has a token of its own"


def test_a_port_that_is_taken_says_so(
    served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(tmp_path), "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert served == []


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "no")]) == 1
    assert "is no folder" in capsys.readouterr().err


def test_without_uvicorn_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(tmp_path)]) == 1
    assert "pip install 'evonas[live]'" in capsys.readouterr().err

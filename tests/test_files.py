from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from evonas.exceptions import DataError, RunStorageError
from evonas.files import as_directory, copy_file, display_path, replace_file, write_text


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_equal_file_is_left_alone(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "a.txt"
    source.write_text("ä")
    write_text(path, "ä")
    before = path.stat()
    write_text(path, "ä")
    copy_file(source, path)
    assert path.stat().st_ino == before.st_ino
    source.write_text("b")
    copy_file(source, path)
    assert path.read_text() == "b"


def test_a_failed_writer_leaves_the_last_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")

    def full(part: Path) -> None:
        part.write_text("ha")
        raise OSError("No space left on device")

    with pytest.raises(DataError, match=r"a\.txt cannot be written \(No space left.*: buy a disk"):
        replace_file(path, full, way_out="buy a disk", error=DataError)
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/null")):
        with pytest.raises(RunStorageError, match=r"cannot be written \(it is not a regular file"):
            replace_file(path, lambda part: part.write_text("x"))
    assert fifo.is_fifo()
    with pytest.raises(RunStorageError, match="cannot be written"):
        replace_file(tmp_path / "no" / "a", lambda part: part.write_text("x"), parents=False)


def test_a_directory_is_absolute_and_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert as_directory("~/runs/x") == as_directory("runs/y/../x") == tmp_path / "runs" / "x"
    assert as_directory(Path("x")) == tmp_path / "x"
    assert display_path(tmp_path / "runs" / "x") == "runs/x"
    assert display_path("/elsewhere") == "/elsewhere"


@pytest.mark.parametrize(
    ("value", "error"),
    [("", ValueError), ("a\0b", ValueError), (3, TypeError), (b"x", TypeError), (None, TypeError)],
)
def test_what_is_no_directory_is_refused_by_name(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"run_dir must be the path of a directory, got "):
        as_directory(value)


def test_a_current_directory_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(
        RunStorageError, match="'x' is relative to the current directory, which was"
    ):
        as_directory("x")
    assert display_path(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_a_name_that_no_disk_takes_is_refused() -> None:
    with pytest.raises(RunStorageError, match=r"run_dir '1{60}' cannot be used: File name too"):
        as_directory("1" * 400)

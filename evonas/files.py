"""Files that are written whole or not at all."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evonas.exceptions import EvonasError, RunStorageError

__all__ = ["as_directory", "copy_file", "display_path", "replace_file", "write_text"]

_RESUME = (
    "free the disk or restore the permissions and run the same command again; finished "
    "evaluations are kept in run.db"
)


def as_directory(value: str | os.PathLike[str], name: str = "run_dir") -> Path:
    """Returns a directory's absolute path, `~` expanded: a later `os.chdir` changes nothing.

    Raises:
        TypeError: It is neither a string nor a path.
        ValueError: It is empty, or holds a null character.
        RunStorageError: It is relative to a current directory that is gone, or no disk takes it.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(
            f"{name} must be the path of a directory, got {value!r} ({type(value).__name__})"
        )
    if not text or "\0" in text:
        raise ValueError(f"{name} must be the path of a directory, got {text!r}")
    try:
        path = Path(os.path.abspath(os.path.expanduser(text)))
    except FileNotFoundError:
        raise RunStorageError(
            f"{name} {text!r} is relative to the current directory, which was removed: change to "
            "another directory, or pass an absolute path"
        ) from None
    try:
        path.exists()
    except OSError as error:  # a longer name than any disk takes
        raise RunStorageError(f"{name} {text[:60]!r} cannot be used: {error.strerror}") from None
    return path


def display_path(path: str | Path) -> str:
    """Returns a path as people wrote it: relative where it lies in the current directory."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def replace_file(
    path: Path,
    write: Callable[[Path], Any],
    *,
    way_out: str = _RESUME,
    error: type[EvonasError] = RunStorageError,
    parents: bool = True,
) -> None:
    """Lets `write` make a file in the folder of `path`, then renames it to `path`.

    Args:
        path: A file of this name is replaced; a device, a FIFO or a folder is not.
        write: Gets the temporary file, which exists and is empty.
        way_out: What the error tells the user to do.
        error: Class of the error.
        parents: Whether missing folders are made.

    Raises:
        EvonasError: (of class `error`) The file cannot be written; `path` is as it was.
    """
    part: Path | None = None
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        os.close(handle)
        part = Path(name)
        write(part)
        part.chmod(0o644)  # mkstemp's 0600 would hide the file from colleagues
        part.replace(path)
    except OSError as failure:
        raise error(f"{path} cannot be written ({failure}): {way_out}") from failure
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file, unless it has this text already.

    Raises:
        RunStorageError: It cannot be written.
    """
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass  # missing or damaged: written anew
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, unless the target is equal already.

    Raises:
        RunStorageError: It cannot be written.
    """
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    replace_file(target, lambda part: shutil.copyfile(source, part))

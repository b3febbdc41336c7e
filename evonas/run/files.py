"""Where the files of a run for people are, and how each is written: whole or not at all."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evonas.exceptions import RunStorageError

__all__ = [
    "ARCHITECTURES",
    "STATISTICS",
    "champion_module",
    "copy_file",
    "numbered",
    "replace_file",
    "write_text",
]

ARCHITECTURES = "ga_architecture"
"""The folder of a run with the source of each evaluation: `ga-<name>-<number>.py`."""

STATISTICS = "stats"
"""The folder of a run with a folder for each evaluation, in which there is a file for each epoch:
`<task>_<data set>_<metric>_ga-<name>-<number>/<epoch>.json`."""


def numbered(folder: Path) -> dict[int, Path]:
    """Returns the entries of a folder by the evaluation number at the end of their names.

    Raises:
        OSError: The folder cannot be read.
    """
    if not folder.is_dir():
        return {}
    found = {}
    for path in folder.iterdir():
        name = path.stem if path.suffix == ".py" else path.name
        number = name.rpartition("-")[2]
        if number.isdecimal() and not path.name.startswith("."):
            found[int(number)] = path
    return found


def champion_module(run_dir: Path) -> Path | None:
    """Returns the champion's module where the run has one."""
    return next(iter(sorted(run_dir.glob("ga-champ-*.py"))), None)


def write_text(path: Path, text: str) -> None:
    """Writes a file, unless it has this text already.

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


_RESUME = (
    "free the disk or restore the permissions and run the same command again; finished "
    "evaluations are kept in run.db"
)


def replace_file(path: Path, write: Callable[[Path], Any], *, way_out: str = _RESUME) -> None:
    """Lets `write` make a file beside `path`, then puts it in its place.

    Raises:
        RunStorageError: It cannot be written.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        part = Path(name)
        write(part)
        part.chmod(0o644)  # mkstemp's 0600 would hide the file from colleagues
        part.replace(path)
    except OSError as error:
        raise RunStorageError(f"{path} cannot be written ({error}): {way_out}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)

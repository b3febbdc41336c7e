"""Names and places of a run's files for people."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "CHECKPOINTS",
    "STATISTICS",
    "champion_module",
    "numbered",
]

ARCHITECTURES = "ga_architecture"
"""The folder of a run with the source of each evaluation: `ga-<name>-<number>.py`."""

CHECKPOINTS = "checkpoints"
"""The folder of a run with where trainings ended that may go on; it may be deleted."""

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

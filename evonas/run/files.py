"""Names and places of a run's files for people."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "ATTACHMENTS",
    "CONFIRMED",
    "STATISTICS",
    "attached",
    "champion_module",
    "numbered",
]

ARCHITECTURES = "ga_architecture"
"""The folder of a run with the source of each evaluation: `ga-<name>-<number>.py`."""

STATISTICS = "stats"
"""The folder of a run with a folder for each evaluation, in which there is a file for each epoch:
`<task>_<data set>_<metric>_ga-<name>-<number>/<epoch>.json`."""


ATTACHMENTS = "attachments"
"""The folder of a run with a folder for what the champion's trial attached, named by its number."""

CONFIRMED = "confirmed"
"""What the name of such a folder begins with where a repeat of `confirm` attached it."""


def attached(run_dir: Path, number: int) -> dict[str, Path]:
    """Returns what the trial of an evaluation attached, or its repeat in `confirm`, by name.

    Raises:
        OSError: The folder cannot be read.
    """
    for name in (f"{CONFIRMED}{number}", str(number)):
        folder = run_dir / ATTACHMENTS / name
        if folder.is_dir():
            return {path.name: path for path in sorted(folder.iterdir())}
    return {}


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

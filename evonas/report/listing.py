"""The runs of a folder, each in a line: where it is, how it is, and its best."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonas.exceptions import EvonasError
from evonas.files import as_directory
from evonas.report.formats import number
from evonas.report.state import is_preparing, read_state
from evonas.run.repeats import mean_of_repeats, repeats_text
from evonas.run.store.schema import DATABASE

__all__ = ["PREPARING", "Listed", "find_runs", "listed"]

PREPARING = "preparing (measuring, checking, reading data); no trial has begun"
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list.

    Attributes:
        path: Its directory.
        state: In words; of a run that cannot be read, why.
        is_running: Whether a search holds it.
        changed_at: When its database was last written, in seconds since 1970.
        strategy: The name of its strategy.
        seed: Of the search.
        trained: How many evaluations were trained.
        copied: How many it began with, of earlier runs (`warm_start`).
        seconds: Of searching.
        best: Objective to the champion's value; empty without one.
        unmet: The sentence that no evaluation is within the limits; empty where one is.
        repeated: What `confirm` made of the champion, in words; empty where it did not run.
        mean: Of the champion's repeats.
    """

    path: Path
    state: str
    is_running: bool = False
    changed_at: float = 0.0
    strategy: str = ""
    seed: int | None = None
    trained: int = 0
    seconds: float = 0.0
    best: tuple[tuple[str, float], ...] = ()
    unmet: str = ""
    repeated: str = ""
    mean: float | None = None
    copied: int = 0

    @property
    def best_words(self) -> str:
        """The champion's values, or that none is within the limits; empty without a fitness."""
        values = ", ".join(f"{name} {number(value)}" for name, value in self.best)
        return self.unmet or f"{values}{self.repeated}"

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {
            "run_dir": str(self.path),
            "state": self.state,
            "running": self.is_running,
            "changed_at": self.changed_at,
            "strategy": self.strategy,
            "seed": self.seed,
            "trained": self.trained,
            "copied": self.copied,
            "seconds": self.seconds,
            "best": dict(self.best),
            "mean_of_repeats": self.mean,
            "unmet": self.unmet or None,
        }


def find_runs(folder: Path) -> list[Path]:
    """Returns the runs in a folder and up to four folders below it, the last written first.

    A run's own folders are not looked into, and links are not followed.

    Raises:
        FileNotFoundError: There is no such folder.
        RunStorageError: It can be none.
    """
    folder = as_directory(folder, "FOLDER")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: pass a folder that holds runs")
    found = []
    for place, folders, files in os.walk(folder):
        if DATABASE in files:
            found.append(Path(place))
            folders.clear()
        elif len(Path(place).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found, key=lambda run: (-changed_at(run), str(run)))


def changed_at(run: Path) -> float:
    """Returns when a run's database was last written, in seconds since 1970; 0: there is none."""
    times = []
    for name in (DATABASE, f"{DATABASE}-wal"):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def listed(run: Path) -> Listed:
    """Returns a run's line; one that cannot be read says why."""
    at = changed_at(run)
    try:
        if is_preparing(run):
            return Listed(run, PREPARING, is_running=True, changed_at=at)
        state = read_state(run)
    except (EvonasError, OSError) as error:
        return Listed(run, str(error), changed_at=at)
    result = state.result
    champion = result.champion if result.hall_of_fame else None
    names = [objective.name for objective in result.objectives]
    return Listed(
        run,
        state.words,
        is_running=not state.has_ended,
        changed_at=at,
        strategy=result.record.strategy_name,
        seed=result.record.seed,
        trained=result.counts.evaluated,
        seconds=result.seconds,
        best=() if champion is None else tuple(zip(names, champion.values, strict=True)),
        unmet=result.counts.unmet,
        repeated="" if champion is None else repeats_text(champion),
        mean=None if champion is None else mean_of_repeats(champion),
        copied=result.counts.copied,
    )

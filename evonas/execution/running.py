"""What a long trial has reported so far, in a file for whoever watches the search."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evonas.execution.trial import TrialSettings
from evonas.records import EpochMetrics, Genes

__all__ = ["RunningFile", "forget", "read_running", "running_file"]

_EVERY = 1.0
"""Seconds: trials that are shorter leave no file, longer ones write theirs no more often."""
_MAX_ROWS = 400
_END = ".running.json"


class RunningFile:
    """Writes what a trial has reported beside the file of its output, and removes it at the end.

    A file that cannot be written is none: whoever watches costs no training.

    Args:
        genes: Of the trial.
        settings: Of the trial.
        then: Called after each report, too.
    """

    def __init__(
        self,
        genes: Genes,
        settings: TrialSettings,
        then: Callable[[EpochMetrics], None] | None = None,
    ) -> None:
        self._genes, self._settings, self._then = genes, settings, then
        self._rows: list[EpochMetrics] = []
        self._written_at: float | None = None
        self._began = time.time()

    def __call__(self, row: EpochMetrics) -> None:
        """Takes a report."""
        if self._settings.output is not None:
            self._rows.append(row)
            if row.seconds - (self._written_at or 0.0) >= _EVERY:
                self._written_at = row.seconds
                with contextlib.suppress(OSError):
                    self._write(running_file(self._settings.output))
        if self._then is not None:
            self._then(row)

    def remove(self) -> None:
        """Removes the file, if there is one: the trial has ended."""
        if self._written_at is not None:
            forget(self._settings.output)

    def _write(self, path: Path) -> None:
        if len(self._rows) > _MAX_ROWS:
            self._rows = [*self._rows[:-1:2], self._rows[-1]]
        told = {
            "number": self._settings.number,
            "device": self._settings.device,
            "pid": os.getpid(),
            "started_at": self._began,
            "genes": self._genes,
            "epochs": [[row.epoch, row.seconds, dict(row.metrics)] for row in self._rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(path)


def forget(output: str | None) -> None:
    """Removes the file of a trial that has ended, if there is one.

    Args:
        output: The file for what it prints.
    """
    if output is not None:
        with contextlib.suppress(OSError):
            running_file(output).unlink(missing_ok=True)


def running_file(output: str) -> Path:
    """Returns the file of a trial, by the file for what it prints."""
    return Path(output).with_suffix(_END)


def read_running(folder: Path) -> list[dict[str, Any]]:
    """Returns what the trials under way have reported, by number; anybody may have written it.

    Args:
        folder: The run's directory.
    """
    found = []
    for path in sorted((folder / "output").glob(f"*{_END}")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # it has just ended, or is none of ours
        if isinstance(told, dict) and type(told.get("number")) is int:
            found.append(told)
    return sorted(found, key=lambda told: int(told["number"]))

"""Tasks and outcomes as bytes: JSON, so that reading them can neither run code nor half succeed."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from evonas.execution.base import Outcome, Task
from evonas.execution.trial import TrialSettings
from evonas.records import EpochMetrics, Status

__all__ = [
    "decode_epoch",
    "decode_outcome",
    "decode_task",
    "encode_epoch",
    "encode_outcome",
    "encode_task",
]

_SETTINGS = tuple(field.name for field in fields(TrialSettings))


def encode_task(task: Task) -> bytes:
    """Returns a task as bytes.

    Raises:
        TypeError: Genes or settings are not JSON.

    Example:
        >>> task = Task({"lr": 0.1}, TrialSettings(seed=3))
        >>> decode_task(encode_task(task)) == task
        True
    """
    settings = {name: getattr(task.settings, name) for name in _SETTINGS}
    settings |= {name: dict(settings[name]) for name in ("problem", "process")}
    return _dump({"genes": task.genes, "settings": settings})


def decode_task(data: bytes) -> Task:
    """Returns what `encode_task` was given (tuples among the genes as lists)."""
    found = json.loads(data)
    settings = found["settings"]
    settings["parents"] = tuple(settings["parents"])
    settings["thresholds"] = tuple(map(tuple, settings["thresholds"]))
    return Task(found["genes"], TrialSettings(**settings))


def encode_epoch(row: EpochMetrics) -> bytes:
    """Returns a row of `trial.report` as bytes."""
    return _dump(_epoch(row))


def decode_epoch(data: bytes) -> EpochMetrics:
    """Returns what `encode_epoch` was given."""
    return EpochMetrics(*json.loads(data))


def encode_outcome(outcome: Outcome) -> bytes:
    """Returns an outcome as bytes.

    Raises:
        TypeError: A metric is not JSON.
    """
    found: dict[str, Any] = {
        name: getattr(outcome, name)
        for name in (
            "status", "values", "metrics", "seconds", "error", "started_at", "output", "attached",
        )
    }  # fmt: skip
    return _dump({**found, "epochs": [_epoch(row) for row in outcome.epochs]})


def decode_outcome(data: bytes) -> Outcome:
    """Returns what `encode_outcome` was given.

    Raises:
        ValueError: The bytes are no outcome.
    """
    try:
        found = json.loads(data)
        found["status"] = Status(found["status"])
        found["values"] = tuple(found["values"])
        found["epochs"] = tuple(EpochMetrics(*row) for row in found["epochs"])
        return Outcome(**found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{data[:80]!r} is no outcome of a trial ({error!r})") from None


def _epoch(row: EpochMetrics) -> list[Any]:
    return [row.epoch, row.seconds, dict(row.metrics)]


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")

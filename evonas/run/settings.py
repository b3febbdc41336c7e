"""The less common arguments of `evolve`, in groups: its signature names the others."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from deap.base import Toolbox

from evonas.execution.base import Executor
from evonas.pruning import Pruner

__all__ = [
    "GeneticSettings",
    "RecordSettings",
    "Settings",
    "StopSettings",
    "WorkerSettings",
    "with_defaults",
]


class GeneticSettings(TypedDict, total=False):
    """Of the genetic algorithm, beside `population` and `generations`."""

    elite: int | None
    toolbox: Toolbox | None


class StopSettings(TypedDict, total=False):
    """What else ends a search, or a training of it, beside `max_evaluations` and `max_seconds`."""

    patience: int | None
    target_fitness: float | None
    max_consecutive_failures: int
    pruner: Pruner | None


class WorkerSettings(TypedDict, total=False):
    """How trials run, beside `workers` and `devices`."""

    executor: Executor | concurrent.futures.Executor | None
    workers_per_device: int | None
    trial_timeout: float | None
    lost_retries: int | None
    fused: int | None
    threads_per_trial: int | None
    deterministic: bool


class RecordSettings(TypedDict, total=False):
    """What is recorded and kept, beside `run_dir`."""

    problem_id: str | None
    warm_start: Iterable[str | os.PathLike[str]]
    durability: Literal["process", "power"]
    keep_files: Literal["best", "all"]
    keep_bytes: int | None
    metadata: Mapping[str, Any] | None


class Settings(GeneticSettings, StopSettings, WorkerSettings, RecordSettings, total=False):
    """All of them: what a function annotates that passes them on (`**settings: Unpack[Settings]`).

    `evolve` says what each of them means.
    """


def with_defaults(settings: Settings) -> Settings:
    """Returns the settings with the defaults of those that are not given.

    Example:
        >>> with_defaults({"patience": 3})["keep_files"]
        'best'
    """
    defaults: Settings = {
        "elite": None, "toolbox": None,
        "patience": None, "target_fitness": None, "max_consecutive_failures": 10, "pruner": None,
        "executor": None, "workers_per_device": None, "trial_timeout": None, "lost_retries": None,
        "fused": None, "threads_per_trial": None, "deterministic": False,
        "problem_id": None, "warm_start": (), "durability": "process", "keep_files": "best",
        "keep_bytes": 10 << 30, "metadata": None,
    }  # fmt: skip
    return {**defaults, **settings}

"""Where trials run: one interface, `submit` to a future."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
from evonas.execution.base import Executor, Outcome, Task, run_trial
from evonas.execution.fused import FusedExecutor
from evonas.execution.futures import FuturesExecutor
from evonas.execution.processes import ProcessExecutor
from evonas.execution.ray import RayExecutor
from evonas.execution.serial import SerialExecutor
from evonas.execution.trial import Trial, TrialSettings

__all__ = [
    "Executor",
    "FusedExecutor",
    "FuturesExecutor",
    "Outcome",
    "ProcessExecutor",
    "RayExecutor",
    "SerialExecutor",
    "Task",
    "Trial",
    "TrialSettings",
    "run_trial",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__)

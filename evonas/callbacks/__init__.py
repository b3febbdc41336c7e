"""Observers of records: progress on a terminal, TensorBoard, MLflow, and whatever a user brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
from evonas.callbacks.base import Counts, Observer, Observers, RunInfo
from evonas.callbacks.mlflow import MLflowLogger
from evonas.callbacks.progress import ProgressBar
from evonas.callbacks.tensorboard import TensorBoardLogger
from evonas.report.formats import format_duration

__all__ = [
    "Counts",
    "MLflowLogger",
    "Observer",
    "Observers",
    "ProgressBar",
    "RunInfo",
    "TensorBoardLogger",
    "format_duration",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__)

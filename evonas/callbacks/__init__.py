"""Observers of records: progress on a terminal, TensorBoard, MLflow, and whatever a user brings."""

from __future__ import annotations

from evonas.callbacks.base import Counts, Observer, Observers, RunInfo
from evonas.callbacks.mlflow import MLflowLogger
from evonas.callbacks.progress import ProgressBar, format_duration
from evonas.callbacks.tensorboard import TensorBoardLogger

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

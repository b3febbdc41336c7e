"""Observers of records: progress on a terminal, and whatever a user brings."""

from __future__ import annotations

from evonas.callbacks.base import Counts, Observer, Observers, RunInfo
from evonas.callbacks.progress import ProgressBar, format_duration

__all__ = ["Counts", "Observer", "Observers", "ProgressBar", "RunInfo", "format_duration"]

"""A tqdm bar for the run, and a line per generation above it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

from evonas.callbacks.base import Observer, RunInfo
from evonas.records import Evaluation

__all__ = ["ProgressBar", "format_duration"]


class ProgressBar(Observer):
    """Shows evaluations, best fitness, duplicates reused, failures and the time left.

    Args:
        bar: Whether to draw the bar (on stderr). None: when stderr is a terminal.
        rows: Where to print a line per generation; None prints none.
    """

    def __init__(self, *, bar: bool | None = None, rows: TextIO | None = None) -> None:
        self._wants_bar = sys.stderr.isatty() if bar is None else bar
        self._rows = rows
        self._bar: tqdm[Any] | None = None
        self._header_due = True

    def on_start(self, info: RunInfo) -> None:
        """Draws the bar at what earlier starts have done."""
        self._info = info
        self._began = time.monotonic()
        self._done_before = info.counts.evaluated
        if self._wants_bar:
            self._bar = tqdm(
                total=info.max_evaluations,
                initial=self._done_before,
                desc="evaluations",
                unit="",
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
            )
        if info.chosen_for and self._rows is not None:
            self._write(f"strategy: {info.strategy}, chosen for {info.chosen_for}")

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        """Moves the bar."""
        if self._bar is None:
            return
        counts = self._info.counts
        self._bar.n = counts.evaluated
        shown = {"best": "none yet" if best is None else _number(best.values[0])}
        if counts.reused:
            shown["reused"] = str(counts.reused)
        if counts.failed:
            shown["failed"] = str(counts.failed)
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(0)
        self._bar.refresh()

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Prints a generation's line."""
        if self._rows is None:
            return
        if self._header_due:
            self._write(
                f"{'gen':>4} {'evaluated':>9} {'reused':>6} {'failed':>6}"
                f" {'best':>9} {'mean':>9} {'time left':>10}"
            )
            self._header_due = False
        left = self.seconds_left()
        self._write(
            f"{row['gen']:>4} {row['nevals']:>9} {row['reused']:>6} {row['failed']:>6}"
            f" {_number(row['best']):>9} {_number(row['mean']):>9}"
            f" {'' if left is None else format_duration(left):>10}"
        )

    def on_end(self, reason: str) -> None:
        """Clears the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def seconds_left(self) -> float | None:
        """Returns the estimate from this start's pace, or None where no budget bounds it."""
        total, done = self._info.max_evaluations, self._info.counts.evaluated
        new = done - self._done_before
        if total is None or new == 0:
            return None
        # Reused duplicates of the past will not be evaluated in the future either.
        share_new = done / max(1, done + self._info.counts.reused)
        left = max(0, total - done - self._info.counts.reused) * share_new
        return left * (time.monotonic() - self._began) / new

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(line, file=self._rows, flush=True)
        if self._bar is not None:
            self._bar.refresh()


def format_duration(seconds: float) -> str:
    """Returns a duration as a person says it.

    Example:
        >>> format_duration(93)
        '1 min 33 s'
        >>> format_duration(400_000)
        '4 d 15 h'
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

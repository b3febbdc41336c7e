"""How a search goes, on standard error: a bar where somebody looks, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm.auto import tqdm

from evonas.callbacks.base import Observer, RunInfo
from evonas.records import Evaluation
from evonas.report.formats import counted, format_duration, number

__all__ = ["FirstFailures", "ProgressBar", "is_watched", "standard_error"]

_MOST_SECONDS = 60.0  # between two lines of a log


class ProgressBar(Observer):
    """Shows evaluations, best fitness, duplicates reused, failures and the time left.

    On a terminal and in a notebook a tqdm bar; the first failure of each kind stands above it.

    Args:
        bar: Whether to draw the bar (on stderr). None: on a terminal and in a notebook.
        rows: Where to print a line per generation; None prints none.
        lines: Whether to print lines on stderr where there is no bar: how the search begins, a
            line after the first, second, fourth, eighth, … evaluation and at least one a minute,
            and how it ends.
    """

    def __init__(
        self, *, bar: bool | None = None, rows: TextIO | None = None, lines: bool = False
    ) -> None:
        self._wants_bar = is_watched() if bar is None else bar
        self._rows = rows
        self._lines = None if self._wants_bar or not lines else standard_error()
        self._bar: tqdm[Any] | None = None
        self._header_due = True
        self._failures = FirstFailures()
        self._best: Evaluation | None = None

    def on_prepare(self, what: str) -> None:
        """Says what takes its time before a trial."""
        self._write(f"evonas: preparing: {what}")

    def on_choice(self, what: str) -> None:
        """Says what was chosen that the user left open."""
        self._write(f"evonas: {what}")

    def on_start(self, info: RunInfo) -> None:
        """Draws the bar at what earlier starts have done; says what the search is."""
        self._info = info
        self._began = self._said_at = time.monotonic()
        self._done_before, self._best = info.counts.evaluated, info.best
        self._next_said = self._done_before + 1
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
        self._write(_opening(info))

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        """Moves the bar, or prints a line where one is due; says what failed."""
        failure = self._failures.first_of_its_kind(evaluation)
        if failure is not None:
            self._write(failure)
        self._best = best
        counts = self._info.counts
        if self._lines is not None:
            now, n = time.monotonic(), counts.evaluated
            if n >= self._next_said or now - self._said_at >= _MOST_SECONDS:
                while self._next_said <= n:
                    self._next_said += max(1, self._next_said - self._done_before)
                self._said_at = now
                self._write(f"evonas: {self._state()}{self._left()}")
        if self._bar is None:
            return
        self._bar.n = counts.evaluated
        shown = {"best": "none yet" if best is None else number(best.values[0])}
        if counts.unmet:
            shown["best"] = counts.unmet
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
            f" {number(row['best']):>9} {number(row['mean']):>9}"
            f" {'' if left is None else format_duration(left):>10}"
        )

    def on_end(self, reason: str) -> None:
        """Clears the bar; says how it ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._write(f"evonas: {reason}: {self._state()}")

    def _state(self) -> str:
        info, counts = self._info, self._info.counts
        total = "" if info.max_evaluations is None else f" of {info.max_evaluations}"
        best = "no fitness yet" if self._best is None else f"best {number(self._best.values[0])}"
        best = counts.unmet or best
        failed = f", {counts.failed} failed" if counts.failed else ""
        taken = format_duration(time.monotonic() - self._began)
        return f"{counts.evaluated}{total} evaluated, {best}{failed}, {taken}"

    def _left(self) -> str:
        left = self.seconds_left()
        return "" if left is None else f", {format_duration(left)} left"

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
        file = self._rows or self._lines
        if file is None:
            return
        if self._bar is not None:
            self._bar.clear()
        encoding = getattr(file, "encoding", None) or "utf-8"  # a file of few letters: spelled out
        line = line.encode(encoding, "backslashreplace").decode(encoding)
        print(line, file=file, flush=True)
        if self._bar is not None:
            self._bar.refresh()


class FirstFailures:
    """Tells the first failure of each kind from those that follow it."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def first_of_its_kind(self, evaluation: Evaluation) -> str | None:
        """Returns a line about a failure that is the first of its kind, None of anything else.

        Failures of one status and one class of exception are of one kind.
        """
        if not evaluation.status.is_failure:
            return None
        lines = (evaluation.error or evaluation.status.value).strip().splitlines()
        kind = f"{evaluation.status.value} {lines[-1].partition(':')[0]}"
        if kind in self._said:
            return None
        self._said.add(kind)
        whole = "; the whole text is in result.evaluations and `evonas report`"
        return (
            f"evaluation {evaluation.number} {evaluation.status.value.replace('_', ' ')}: "
            f"{lines[-1]}{whole if len(lines) > 1 else ''}"
        )


def is_watched() -> bool:
    """Whether somebody looks at standard error: a terminal, or a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    stream = standard_error()
    return type(shell).__name__ == "ZMQInteractiveShell" or (stream is not None and stream.isatty())


def standard_error() -> TextIO | None:
    """Returns standard error; None where there is none (pythonw, a closed one)."""
    stream: TextIO | None = sys.stderr
    return None if stream is None or getattr(stream, "closed", False) else stream


def _opening(info: RunInfo) -> str:
    """Returns how a search begins, in one line."""
    chosen = f", chosen for {info.chosen_for}" if info.chosen_for else ""
    most = info.max_evaluations
    limit = "" if most is None else f"; at most {counted(most, 'evaluation')}"
    default = ""
    if info.has_default_budget:
        default = (
            f" ({info.generations} generations, the default: generations=, max_evaluations= or "
            "max_seconds= set another budget)"
        )
    parallel = ""
    if info.measured:
        workers = f"{info.workers} worker{'s' if info.workers > 1 else ''}"
        threads = f"{info.threads} thread{'s' if info.threads > 1 else ''}"
        parallel = f"; {workers} of {threads} ({info.measured})"
    where = "" if info.run_dir else "; in memory only (run_dir= keeps it)"
    return f"evonas: {info.strategy}{chosen}{limit}{default}{parallel}{where}"

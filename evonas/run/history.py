"""What a search knows about points: which were evaluated, which are invalid."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from evonas.exceptions import TooManyFailures, UnsatisfiableSpaceError
from evonas.problem import Problem
from evonas.records import Evaluation, Genes, Status
from evonas.report.formats import counted
from evonas.run.store import KnownPoint

__all__ = ["FailureStreak", "History"]

_MAX_INVALID_IN_A_ROW = 1_000

_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)')
_EVONAS = str(Path(__file__).resolve().parents[1])
_INSTALLED = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}


class History:
    """Answers a strategy's questions about points (see `strategies.KnownPoints`).

    Args:
        problem: What is searched.
        known: Key to the evaluation on record.
        retryable: Numbers of evaluations that failed before the user fixed the cause: their points
            are as good as new.
        recorded: Returns the evaluations on record, by number.

    Attributes:
        known: Key to the evaluation on record, except the retryable ones.
        found_invalid: Points found to be invalid since the last checkpoint, by key.
    """

    def __init__(
        self,
        problem: Problem,
        known: dict[str, KnownPoint],
        retryable: Iterable[int] = (),
        recorded: Callable[[], Iterable[Evaluation]] = tuple,
    ) -> None:
        self._problem = problem
        self._recorded = recorded
        self.retryable = frozenset(retryable)
        self.known = {
            key: point for key, point in known.items() if point.number not in self.retryable
        }
        self.found_invalid: dict[str, tuple[Genes, str]] = {}
        self.key = problem.key

    def seen(self, key: str) -> bool:
        """Whether the record has an evaluation of this key."""
        return key in self.known

    def evaluations(self) -> Iterator[Evaluation]:
        """Yields the evaluations on record by number, except the retryable ones."""
        return (entry for entry in self._recorded() if entry.number not in self.retryable)

    def is_invalid(self, key: str, genes: Genes) -> bool:
        """Whether the genes are invalid; a new finding goes on record at the next checkpoint."""
        if key in self.found_invalid:
            return True
        point = self.known.get(key)
        if point is not None:
            return point.status is Status.INVALID
        reason = self._problem.invalid_reason(genes)
        if reason is None:
            return False
        self.found_invalid[key] = (genes, reason)
        return True


class FailureStreak:
    """Counts the trials in a row that came to nothing, and says when it is enough.

    Args:
        limit: Failures in a row that stop the search.
        n_failed: How many there are already.
    """

    def __init__(self, limit: int, n_failed: int = 0) -> None:
        self._limit = limit
        self._n_failed = n_failed
        self._n_invalid = 0
        self._last: Evaluation | None = None

    def error(self, what: str) -> TooManyFailures:
        """Returns the error that says `what` and shows the last failure."""
        last = self._last
        shown = ""
        if last is not None:
            whole, reason = (last.error or "").strip(), _in_a_line(last.error or "")
            shown = (
                f": {reason}; the last one ({last.status.value}, number {last.number}, genes "
                f"{last.genes})"
            )
            shown += "" if whole == reason or not whole else f":\n{last.error}"
        return TooManyFailures(
            f"{what}{shown}\nFix it and run the same command again: what failed is then tried "
            "again, nothing else is repeated"
        )

    def judge(self, evaluation: Evaluation) -> None:
        """Counts a trial.

        Raises:
            TooManyFailures: It is one too many.
            UnsatisfiableSpaceError: Trial after trial finds its point invalid; in a space without
                an end that would never stop.
        """
        status = evaluation.status
        self._n_failed = self._n_failed + 1 if status.is_failure else 0
        self._n_invalid = self._n_invalid + 1 if status is Status.INVALID else 0
        self._last = evaluation if status.is_failure else self._last
        if self._n_failed >= self._limit:
            raise self.error(f"{counted(self._n_failed, 'evaluation')} in a row failed")
        if self._n_invalid >= _MAX_INVALID_IN_A_ROW:
            raise UnsatisfiableSpaceError(
                f"{self._n_invalid:,} trials in a row found their point invalid, the last one "
                f"(number {evaluation.number}, genes {evaluation.genes}) because: "
                f"{evaluation.error}; give the space a constraint, or the problem an "
                "invalid_reason, that finds such points before they are tried"
            )


def _in_a_line(error: str) -> str:
    """Returns what a traceback ends with, and the line of the user's that it came from."""
    lines = error.strip().splitlines()
    frames = [(place, found) for place, line in enumerate(lines) if (found := _FRAME.match(line))]
    if not frames:
        return lines[0] if lines else "no reason given"
    # Behind the last frame: notes and further lines of a message may follow the error itself.
    said = next((line for line in lines[frames[-1][0] :] if line[:1].strip()), lines[-1])
    own = [found for _, found in frames if not _is_of_a_package(found["file"])]
    if not own:
        return said
    return f"{said} (line {own[-1]['line']} of {own[-1]['file']}, in {own[-1]['name']})"


def _is_of_a_package(file: str) -> bool:
    return file.startswith("<frozen") or any(
        file.startswith(f"{folder}{os.sep}") for folder in (_EVONAS, *_INSTALLED)
    )

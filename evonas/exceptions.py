"""What can go wrong in a way that a caller can handle.

Wrong arguments raise `ValueError` or `TypeError`; everything here is a situation of the outside
world (a space without a valid point, a run in use, data that is not there). Every message says
what was expected, what was found, and the way out.
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "DataError",
    "EvonasError",
    "FitnessError",
    "FusionError",
    "InvalidPoint",
    "MissingDependencyError",
    "RunCorruptError",
    "RunInUseError",
    "RunMismatchError",
    "RunStorageError",
    "SchemaVersionError",
    "SearchInterrupted",
    "TooManyFailures",
    "TrialPruned",
    "UnknownModuleError",
    "UnsatisfiableSpaceError",
    "WeightsError",
    "WorkerError",
]


class EvonasError(Exception):
    """Base of every error that evonas raises on purpose and that is not a wrong argument."""


class UnsatisfiableSpaceError(EvonasError):
    """No point of the search space satisfies its constraints (or none was found)."""


class InvalidPoint(EvonasError):
    """Raised by a fitness function or a problem: these genes are invalid (a shape, a constraint).

    The search records the point as `invalid` with this message and proposes another in its place.
    """


class TrialPruned(EvonasError):
    """`Trial.report` ends a trial that a pruner gives up; let it pass.

    Attributes:
        value: What the trial reported last.
    """

    def __init__(self, epoch: int, value: float, threshold: float) -> None:
        super().__init__(
            f"pruned at epoch {epoch}: reported {value:.6g}, the threshold is {threshold:.6g}"
        )
        self.value = value


class FitnessError(EvonasError):
    """The fitness function returned something that is not a fitness."""


class FusionError(EvonasError):
    """These candidates cannot be trained at once (their shapes differ): train each alone."""


class TooManyFailures(EvonasError):
    """The search stopped because too many evaluations failed in a row."""


class RunStorageError(EvonasError):
    """The run directory cannot be written or read."""


class RunMismatchError(RunStorageError):
    """The run directory holds a run of another space, problem, strategy or seed."""


class RunInUseError(RunStorageError):
    """Another process is driving this run."""


class RunCorruptError(RunStorageError):
    """`run.db` is not a readable run database."""


class SchemaVersionError(RunStorageError):
    """`run.db` was written by a newer evonas."""


class DataError(EvonasError):
    """Data that a problem needs is missing, damaged, or cannot be downloaded."""


class WeightsError(EvonasError):
    """Trained weights are not there, not readable, or do not fit the module."""


class UnknownModuleError(WeightsError):
    """Weights are there, but not what builds the module that they belong to.

    Attributes:
        reason: Why, without the way out.
    """

    def __init__(
        self, reason: str, way_out: str = "pass load_model(build), where build(genes) returns it"
    ) -> None:
        super().__init__(f"{reason}: {way_out}")
        self.reason = reason


class MissingDependencyError(EvonasError, ImportError):
    """A package that only this feature needs is not installed (or does not import)."""

    @classmethod
    def of(cls, feature: str, packages: str, error: BaseException, way_out: str) -> Self:
        """Returns the error for packages that do not import, which shows why they do not.

        Args:
            feature: What needs them.
            packages: Their names, in words.
            error: What importing them raised. Where that hides what it was raised from (a package
                that is installed, but imports a broken one), both are shown.
            way_out: What to install, or to do instead.

        Example:
            >>> error = ImportError("No module named 'p'")
            >>> print(MissingDependencyError.of("a chart", "p", error, "pip install p"))
            a chart needs p, which does not import (No module named 'p'): pip install p
        """
        reason, root = _first_line(error), error
        while (cause := root.__cause__ or root.__context__) is not None:
            root = cause
        if root is not error and (beneath := _first_line(root)) not in reason:
            reason += f"; because of {type(root).__name__}: {beneath}"
        do = "do" if " and " in packages else "does"
        return cls(f"{feature} needs {packages}, which {do} not import ({reason}): {way_out}")


class WorkerError(EvonasError):
    """Worker processes cannot be started, or cannot load the problem."""


SearchInterrupted = KeyboardInterrupt
"""The search was stopped by Ctrl-C or SIGTERM; everything finished is saved.

No `Exception`, so that an `except Exception` of the caller does not swallow it. And not a class of
its own: only for `KeyboardInterrupt` itself does Python end a script that lets it pass as Ctrl-C
ends one (exit status 130; a subclass gives 1).
"""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

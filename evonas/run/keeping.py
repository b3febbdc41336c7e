"""Whose files a run keeps: the best, the Pareto front, or all, within a size on disk."""

from __future__ import annotations

import bisect
import logging
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Literal, get_args

from evonas.arguments import check_choice, check_int
from evonas.execution.parallel import has_guarded_main
from evonas.execution.user_code import place_of
from evonas.execution.weights import TrialFiles, write_builder
from evonas.objectives import Limits, Objective
from evonas.problem import Problem
from evonas.records import Evaluation, Status
from evonas.space.naming import fingerprint_of

__all__ = ["Keeper", "Keeping", "built_by"]

Keeping = Literal["best", "all"]

_log = logging.getLogger(__name__)


class Keeper:
    """Removes the files of evaluations that are no longer worth their place.

    Kept are the files of the `n_best` best, of the Pareto front, or of all. Where they take more
    than `max_bytes`, those of the poorest go, never the champion's.

    Args:
        what: `"best"` or `"all"`.
        max_bytes: Of all files together. None: any.

    Raises:
        TypeError, ValueError: An argument is something else.
    """

    def __init__(self, what: Keeping = "best", max_bytes: int | None = None) -> None:
        check_choice("keep_files", what, get_args(Keeping))
        if max_bytes is not None:
            check_int("keep_bytes", max_bytes, minimum=0, maximum=None)
        self._what = what
        self._max_bytes = max_bytes
        self._folder: Path | None = None

    def begin(
        self,
        files: TrialFiles | None,
        objectives: Sequence[Objective],
        limits: Limits,
        n_best: int,
    ) -> None:
        """Begins a start of a run.

        Args:
            files: Of the run's trials; None: they keep none.
            objectives: What is optimised.
            limits: What the best keep to.
            n_best: Size of the hall of fame.
        """
        self._folder = None if files is None else files.folder
        self._objectives = objectives
        self._limits = limits
        self._n_best = max(1, n_best)
        self._ranked: list[tuple[tuple[float, ...], Evaluation]] = []
        self._front: list[Evaluation] = []
        self._rest: list[int] = []  # with "all": those without a fitness
        self._bytes: dict[int, int] = {}
        self._expected: set[int] = set()
        self._threshold: float | None = None
        self._by_value = self._what == "best" and len(objectives) == 1 and not limits
        self._warned = False

    def to_enter(self) -> float | None:
        """Returns the value that a trial must exceed to have its files kept; None: any may."""
        return self._threshold

    def expect(self, number: int) -> None:
        """Hears that a trial may have attached files; others are not looked for."""
        self._expected.add(number)

    def restore(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes what is on record; removes folders of others, of trials cut short among them."""
        if self._folder is None:
            return
        for evaluation in evaluations:
            self._place(evaluation)
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name.isdigit():
                self._bytes[int(folder.name)] = _size(folder)
        self._remove_others()

    def add(self, evaluation: Evaluation) -> None:
        """Takes a committed evaluation; removes the files that now have to go."""
        if self._folder is None:
            return
        changed = self._place(evaluation)
        if evaluation.number in self._expected:
            self._expected.remove(evaluation.number)
            folder = self._folder / str(evaluation.number)
            self._bytes[evaluation.number] = _size(folder)
            changed = True
        if changed:
            self._remove_others()

    def _place(self, evaluation: Evaluation) -> bool:
        """Takes an evaluation into account; returns whether others may have to go for it."""
        if evaluation.status is not Status.OK:
            if self._what == "all":
                self._rest.append(evaluation.number)
            return False
        if self._is_poor(evaluation):
            return False
        rank = self._limits.rank(evaluation, self._objectives)
        if self._what == "best" and len(self._objectives) > 1:
            self._place_on_front(evaluation)
        if self._what == "best" and len(self._ranked) >= self._n_best:
            if rank > self._ranked[-1][0]:
                return True
            self._ranked.pop()
        bisect.insort(self._ranked, (rank, evaluation), key=lambda entry: entry[0])
        if self._by_value and len(self._ranked) >= self._n_best:
            # One that equals the last of the hall may be the better one by the tie breaker.
            last, weight = self._ranked[-1][1].values[0], self._objectives[0].weight
            self._threshold = math.nextafter(last, -weight * math.inf)
        return True

    def _is_poor(self, evaluation: Evaluation) -> bool:
        """Whether its one value already says that it is none of the best, as that of most does."""
        if self._threshold is None:
            return False
        weight = self._objectives[0].weight
        return weight * evaluation.values[0] <= weight * self._threshold

    def _place_on_front(self, evaluation: Evaluation) -> None:
        excess = self._limits.excess(evaluation, self._objectives)
        least = min(
            (self._limits.excess(e, self._objectives) for e in self._front[:1]), default=excess
        )
        if excess > least:
            return
        front = self._front if excess == least else []
        if any(self._dominates(other, evaluation) for other in front):
            return
        self._front = [e for e in front if not self._dominates(evaluation, e)] + [evaluation]

    def _dominates(self, first: Evaluation, second: Evaluation) -> bool:
        pairs = [
            (objective.weight * a, objective.weight * b)
            for objective, a, b in zip(self._objectives, first.values, second.values, strict=True)
        ]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    def _remove_others(self) -> None:
        if not self._bytes:
            return
        order = [evaluation.number for _, evaluation in self._ranked]
        order += [evaluation.number for evaluation in self._front]
        kept = [number for number in dict.fromkeys(order + self._rest) if number in self._bytes]
        for number in self._bytes.keys() - set(kept):
            self._remove(number)
        while self._max_bytes is not None and len(kept) > 1 and self._total() > self._max_bytes:
            self._warn()
            self._remove(kept.pop())

    def _total(self) -> int:
        return sum(self._bytes.values())

    def _remove(self, number: int) -> None:
        del self._bytes[number]
        if self._folder is not None:
            shutil.rmtree(self._folder / str(number), ignore_errors=True)

    def _warn(self) -> None:
        if not self._warned:
            _log.warning(
                "the files of the trials take %d bytes, more than keep_bytes=%s: those of the "
                "poorest are removed", self._total(), self._max_bytes,
            )  # fmt: skip
        self._warned = True


def built_by(problem: Problem, files: TrialFiles | None, *, on_disk: bool) -> TrialFiles | None:
    """Returns the files of a run, to be loaded into what the problem builds, where it does.

    Where the run lies on a disk, the place of the user's function is put beside its files, signed;
    not that of a script without a `__main__` guard, which would search again when it is imported.
    """
    if files is None or type(problem).build is Problem.build:
        return files
    place = place_of(problem.builder) if on_disk else None
    if place is not None and (not _is_script(place[0]) or has_guarded_main()):
        # Not of a method: what it is bound to is not found again by its name.
        is_known = isinstance(problem.builder, (FunctionType, type))
        write_builder(
            files.folder, *place, takes_genes=problem.builder_takes_genes,
            code=fingerprint_of(problem.builder) if is_known else None,
        )  # fmt: skip
    return replace(files, build=problem.build)


def _is_script(file: str) -> bool:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return script is not None and Path(script).resolve() == Path(file)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())

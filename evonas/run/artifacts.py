"""The files of a run beside `run.db`: what a problem writes for people, what trials attached."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from evonas.exceptions import RunStorageError
from evonas.execution.weights import CONFIRMED, TrialFiles
from evonas.problem import Problem
from evonas.records import Evaluation, Status
from evonas.run.files import CHECKPOINTS
from evonas.run.keeping import Keeper

__all__ = ["Artifacts"]


class Artifacts:
    """Keeps the files of a run in step with its records.

    What trials attach (weights) is large: a `Keeper` says whose stays.

    Args:
        problem: Whose `run_files` are written.
        run_dir: The run's directory, or None: then there are no files for people.
        files: Of the trials; None: they have nowhere to attach any.
        keeper: Begun; None: nothing is removed.
    """

    def __init__(
        self,
        problem: Problem,
        run_dir: Path | None,
        files: TrialFiles | None,
        keeper: Keeper | None = None,
    ) -> None:
        self._run_dir = None if run_dir is None else run_dir.resolve()  # trials may change folder
        self._files = None if run_dir is None else problem.run_files(run_dir)
        self._trial_files = files
        self._folder = None if files is None else files.folder
        self._folder_text = str(self._folder)  # joined for each trial, where a Path is slow
        self._keeper = keeper
        place = self._folder if self._run_dir is None else self._run_dir
        self.checkpoints = None if place is None else str(place / CHECKPOINTS)
        """The folder for where trainings ended that may go on, or None."""

    def folder(self, number: int, kind: str = "") -> str | None:
        """Returns where the trial of evaluation `number` may attach files, or None."""
        return None if self._folder is None else f"{self._folder_text}/{kind}{number}"

    def output_file(self, number: int) -> str | None:
        """Returns the file for what the trial of evaluation `number` prints, or None."""
        return None if self._run_dir is None else str(self._run_dir / "output" / f"{number}.txt")

    def remove_empty_output(self) -> None:
        """Removes the folder of what trials print where nothing is in it, once no trial runs."""
        if self._run_dir is not None:
            with suppress(OSError):  # it is not there, or not empty
                (self._run_dir / "output").rmdir()

    def relative(self, file: str | None) -> str | None:
        """Returns the name of a file of the run as its records keep it: from the run's folder."""
        if file is None or self._run_dir is None:
            return None
        return Path(file).relative_to(self._run_dir).as_posix()

    def set_confirmed_champion(self, evaluation: Evaluation) -> None:
        """Makes a confirmed evaluation the champion, with what its first repeat attached.

        Raises:
            RunStorageError: A file cannot be written.
        """
        with _storage_errors(self._run_dir):
            self._write_champion(evaluation)
            self._remove_confirmed(but=f"{CONFIRMED}{evaluation.number}")

    def clear_confirmed_champion(self, best: Evaluation | None) -> None:
        """Makes the best evaluation the champion again, instead of a confirmed one.

        Raises:
            RunStorageError: A file cannot be written.
        """
        if best is None:
            return
        with _storage_errors(self._run_dir):
            self._remove_confirmed()  # first: what is left is what the champion's files are of
            self._write_champion(best)

    def restore(
        self,
        evaluations: Sequence[Evaluation],
        best: Evaluation | None,
        *,
        confirmed_champion: Evaluation | None = None,
    ) -> None:
        """Writes what a crash left missing, and removes what belongs to no record.

        Args:
            evaluations: Every record.
            best: The best one.
            confirmed_champion: The champion, where `confirm` chose another than the best.

        Raises:
            RunStorageError: A file cannot be written.
        """
        with _storage_errors(self._run_dir):
            for evaluation in evaluations:
                self._write_evaluation(evaluation)
            if self._keeper is not None:
                self._keeper.restore(evaluations)
            if confirmed_champion is not None:
                self.set_confirmed_champion(confirmed_champion)
            elif best is not None:
                self._write_champion(best)

    def add(self, evaluation: Evaluation, *, is_best: bool) -> None:
        """Writes the files of a committed evaluation, and removes those that have to go.

        Raises:
            RunStorageError: A file cannot be written.
        """
        if self._files is not None:
            with _storage_errors(self._run_dir):
                self._write_evaluation(evaluation)
                if is_best:
                    self._write_champion(evaluation)
        if self._keeper is not None:
            self._keeper.add(evaluation)

    def _write_evaluation(self, evaluation: Evaluation) -> None:
        if self._files is not None and evaluation.status is not Status.INVALID:
            self._files.on_evaluation(evaluation)

    def _write_champion(self, evaluation: Evaluation) -> None:
        if self._files is not None and self._trial_files is not None:
            folder = self._trial_files.folder_of(evaluation.number)
            self._files.on_champion(evaluation, folder)

    def drop_confirmed(self, numbers: Collection[int]) -> None:
        """Removes what the repeats of points attached that can no longer be the champion."""
        for number in numbers if self._folder is not None else ():
            shutil.rmtree(f"{self._folder_text}/{CONFIRMED}{number}", ignore_errors=True)

    def _remove_confirmed(self, but: str = "") -> None:
        if self._folder is not None:
            for folder in self._folder.glob(f"{CONFIRMED}*"):
                if folder.name != but:
                    shutil.rmtree(folder)


@contextmanager
def _storage_errors(run_dir: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunStorageError(
            f"a file of {run_dir or 'the run'} could not be written ({error}); every finished "
            "evaluation is safe in run.db: make room, then run the same command again"
        ) from error

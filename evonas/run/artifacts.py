"""The files of a run beside `run.db`: what a problem writes for people, what trials attached."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evonas.exceptions import RunStorageError
from evonas.problem import Problem
from evonas.records import Evaluation, Status
from evonas.run.files import ATTACHMENTS, CONFIRMED

__all__ = ["Artifacts"]


class Artifacts:
    """Keeps the files of a run in step with its records.

    Attachments (weights) are large, so only the champion's are kept.

    Args:
        problem: Whose `run_files` are written.
        run_dir: The run's directory, or None: then there are no files.
    """

    def __init__(self, problem: Problem, run_dir: Path | None) -> None:
        self._run_dir = None if run_dir is None else run_dir.resolve()  # trials may change folder
        self._files = None if run_dir is None else problem.run_files(run_dir)
        self._folder = None if self._run_dir is None else self._run_dir / ATTACHMENTS

    def folder(self, number: int, kind: str = "") -> str | None:
        """Returns where the trial of evaluation `number` may attach files, or None."""
        return None if self._folder is None else str(self._folder / f"{kind}{number}")

    def output_file(self, number: int) -> str | None:
        """Returns the file for what the trial of evaluation `number` prints, or None."""
        return None if self._run_dir is None else str(self._run_dir / "output" / f"{number}.txt")

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
        if self._folder is None:
            return
        with _storage_errors(self._folder.parent):
            kept = self._folder / f"{CONFIRMED}{evaluation.number}"
            if self._files is not None:
                self._files.on_champion(evaluation, kept if kept.is_dir() else None)
            for folder in self._folder.glob(f"{CONFIRMED}*"):
                if folder != kept:
                    shutil.rmtree(folder)

    def clear_confirmed_champion(self, best: Evaluation | None) -> None:
        """Makes the best evaluation the champion again, instead of a confirmed one.

        Raises:
            RunStorageError: A file cannot be written.
        """
        if self._folder is None or best is None:
            return
        with _storage_errors(self._folder.parent):
            self._write_champion(best)
            for folder in self._folder.glob(f"{CONFIRMED}*"):
                shutil.rmtree(folder)

    def restore(
        self,
        evaluations: Iterable[Evaluation],
        best: Evaluation | None,
        *,
        confirmed_champion: Evaluation | None = None,
    ) -> None:
        """Writes what a crash left missing, and removes what belongs to no record.

        Args:
            evaluations: Every record.
            best: The best one, whose attachments are kept.
            confirmed_champion: The champion, where `confirm` chose another than the best.

        Raises:
            RunStorageError: A file cannot be written.
        """
        if self._folder is None:
            return
        with _storage_errors(self._folder.parent):
            for evaluation in evaluations if self._files is not None else ():
                self._write_evaluation(evaluation)
            kept = "" if best is None else str(best.number)
            for folder in self._folder.iterdir() if self._folder.is_dir() else ():
                if folder.name.isdigit() and folder.name != kept:
                    shutil.rmtree(folder)
            if confirmed_champion is not None:
                self.set_confirmed_champion(confirmed_champion)
            elif best is not None:
                self._write_champion(best)

    def add(
        self, evaluation: Evaluation, *, best: Evaluation | None, previous: Evaluation | None
    ) -> None:
        """Writes the files of a committed evaluation.

        Args:
            evaluation: The record.
            best: The best evaluation now.
            previous: The best one before.

        Raises:
            RunStorageError: A file cannot be written.
        """
        if self._folder is None:
            return
        with _storage_errors(self._folder.parent):
            self._write_evaluation(evaluation)
            outdone: Evaluation | None = evaluation
            if best is evaluation:
                self._write_champion(evaluation)
                outdone = previous
            if outdone is not None:
                shutil.rmtree(self._folder / str(outdone.number), ignore_errors=True)

    def _write_evaluation(self, evaluation: Evaluation) -> None:
        if self._files is not None and evaluation.status is not Status.INVALID:
            self._files.on_evaluation(evaluation)

    def _write_champion(self, evaluation: Evaluation) -> None:
        if self._files is not None and self._folder is not None:
            folder = self._folder / str(evaluation.number)
            self._files.on_champion(evaluation, folder if folder.is_dir() else None)


@contextmanager
def _storage_errors(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunStorageError(
            f"a file of {run_dir} could not be written ({error}); every finished evaluation is "
            "safe in run.db: make room, then run the same command again"
        ) from error

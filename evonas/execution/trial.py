"""The handle that one evaluation gets."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evonas.exceptions import RunStorageError, TrialPruned
from evonas.execution.anatomy import anatomy
from evonas.execution.weights import NETWORK, WEIGHTS, save_weights
from evonas.records import EpochMetrics, as_metric

__all__ = ["Trial", "TrialSettings"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """What the driver decides for a trial and sends with it, as plain data.

    Attributes:
        number: The evaluation's number.
        key: The point's key.
        parents: Numbers of the evaluations that the point was made from.
        seed: In [0, 2**32), derived from the run's seed and the key.
        device: `"cpu"`, `"cuda:0"`, …
        threads: Threads that the trial may compute with.
        problem: What `Problem.configure` returned at the run's first start.
        best: The best value of the first objective on record when the trial was submitted.
        maximise: Whether the first objective is maximised.
        keep_above: The value of it that a trial must exceed for its files to be kept; None: any.
        attachments: Folder for what the trial attaches, or None where nothing is kept.
        checkpoints: Folder for where trainings ended that may go on, or None.
        deterministic: Whether torch must use deterministic algorithms only.
        metric: Name of the first objective, as the trial may report it.
        thresholds: `(epoch, value)` pairs: a trial that reports a worse value of the objective at
            such an epoch ends there, `pruned`.
        process: Settings of the process that hold in the trial (see `changed_state`).
        output: File for what the trial prints, or None where that is not kept. An executor in
            this process leaves it to the terminal.
    """

    number: int = 0
    key: str = ""
    parents: Sequence[int] = ()
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    problem: Mapping[str, Any] = field(default_factory=dict)
    best: float | None = None
    keep_above: float | None = None
    maximise: bool = True
    attachments: str | None = None
    checkpoints: str | None = None
    deterministic: bool = False
    output: str | None = None
    metric: str = "fitness"
    thresholds: Sequence[Sequence[float]] = ()
    process: Mapping[str, Any] = field(default_factory=dict)


class Trial:
    """The handle that one evaluation gets: its seed, its device, and where to report to.

    Args:
        settings: See `TrialSettings`; the default serves a fitness function called by hand.
        on_report: Called after each `report` with the new row.

    Example:
        >>> trial = Trial()
        >>> trial.report(accuracy=0.5)
        >>> trial.history[0].metrics
        {'accuracy': 0.5}
    """

    __slots__ = ("_began", "_history", "_metrics", "_on_report", "attached", "settings")

    def __init__(
        self,
        settings: TrialSettings | None = None,
        *,
        on_report: Callable[[EpochMetrics], None] | None = None,
    ) -> None:
        self.settings = settings or TrialSettings()
        self._on_report = on_report
        self._history: list[EpochMetrics] = []
        self._metrics: dict[str, Any] = {}
        self.attached = False
        """Whether anything was attached, whole or in part."""
        self._began = time.perf_counter()

    @property
    def number(self) -> int:
        """The evaluation's number, from 0, in the order in which the search asked."""
        return self.settings.number

    @property
    def key(self) -> str:
        """The point's key."""
        return self.settings.key

    @property
    def seed(self) -> int:
        """In [0, 2**32): derived from the run's seed and the key, so the same in every run."""
        return self.settings.seed

    @property
    def device(self) -> str:
        """Where to train: `"cpu"`, `"cuda:0"`, …"""
        return self.settings.device

    @property
    def threads(self) -> int:
        """How many threads this trial may compute with."""
        return self.settings.threads

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the trial began."""
        return time.perf_counter() - self._began

    @property
    def history(self) -> tuple[EpochMetrics, ...]:
        """The rows reported so far."""
        return tuple(self._history)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What `record` has put on record so far."""
        return self._metrics

    def report(self, **metrics: float) -> None:
        """Puts one epoch on record: one row, numbered from 0, with the seconds so far.

        Raises:
            TypeError: A metric is not a number.
            ValueError: It is an int that no float can hold.
            TrialPruned: The run has a pruner, and the objective is too poor to go on. Let it pass:
                the trial then ends as `pruned`.
        """
        row = {name: _number(name, value) for name, value in metrics.items()}
        entry = EpochMetrics(len(self._history), self.seconds, row)
        self._history.append(entry)
        if self._on_report is not None:
            self._on_report(entry)
        if self.settings.thresholds and self.settings.metric in row:
            self._prune(entry.epoch, row[self.settings.metric])

    def _prune(self, epoch: int, value: float) -> None:
        for at, threshold in self.settings.thresholds:
            poorer = value < threshold if self.settings.maximise else value > threshold
            if at == epoch and poorer:
                raise TrialPruned(epoch, value, threshold)

    def record(self, **metrics: Any) -> None:
        """Puts values beside the fitness on record (parameters, memory): JSON values, last wins.

        Raises:
            TypeError, ValueError: A value is none that can be read back (`as_metric`).
        """
        for name, value in metrics.items():
            self._metrics[name] = as_metric(name, value)

    def would_be_best(self, value: float) -> bool:
        """Whether `value` beats the best on record when this trial was submitted.

        The way to attach large things (weights) only where they can matter.
        """
        return self._exceeds(value, self.settings.best)

    def would_be_kept(self, value: float) -> bool:
        """Whether a trial of this value of the first objective has its files kept, as it looks now.

        What a trial attaches although it would not be kept is removed when it ends.
        """
        return self._exceeds(value, self.settings.keep_above)

    def _exceeds(self, value: float, threshold: float | None) -> bool:
        if threshold is None:
            return True
        return value > threshold if self.settings.maximise else value < threshold

    def save(self, model: Any, example: Any = None, *, known: Mapping[str, Any] = {}) -> bool:
        """Keeps the weights of a trained model: the last line of a fitness function.

        `result.champion.load_model(build)` returns it trained, in any process. They are kept for
        the champion, the hall of fame and the Pareto front (see `keep_files` of `evolve`).

        Args:
            model: A `torch.nn.Module`; its state_dict is written, as tensors on the CPU.
            example: A batch of inputs (a tensor, a mapping or a tuple), for a drawing of the
                network in the report and for `evonas export --format onnx`.
            known: What is kept beside the layers, as JSON.

        Returns:
            Whether they were written. False where the disk did not take them: the training
            counts all the same, and a warning says why.

        Raises:
            TypeError: It is no module.
        """
        try:
            kept = self.attach(WEIGHTS, lambda path: save_weights(model, path))
            if kept and (example is not None or known):
                text = json.dumps({**self._anatomy(model, example), **known})
                self.attach(NETWORK, lambda path: path.write_text(text, encoding="utf-8"))
            return kept
        except (RunStorageError, OSError) as error:
            _log.warning("the weights of evaluation %d are not kept: %s", self.number, error)
            return False

    def _anatomy(self, model: Any, example: Any) -> dict[str, Any]:
        if example is None:
            return {}
        try:
            return anatomy(model, example)
        except Exception as error:  # noqa: BLE001 (of the user's model; a drawing costs no training)
            _log.warning(
                "the layers of evaluation %d are not on record: the model could not take the "
                "example (%s: %s)", self.number, type(error).__name__, error,
            )  # fmt: skip
            return {}

    def attach(self, name: str, write: Callable[[Path], object]) -> bool:
        """Lets `write(path)` make a file that is kept with the evaluation, in `Evaluation.files`.

        For the champion, the hall of fame and the Pareto front (see `keep_files` of `evolve`).

        Args:
            name: The file's name, without folders.
            write: Called with the path to write to; not called where the run keeps no files.

        Returns:
            Whether the file was written.
        """
        if self.settings.attachments is None:
            return False
        if not name or Path(name).name != name:
            raise ValueError(f"attachment name must be a plain file name, got {name!r}")
        self.attached = True
        folder = Path(self.settings.attachments)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / name)
        return True


def _number(name: str, value: Any) -> float:
    if isinstance(value, float):  # covers numpy's float64
        return value
    try:
        number = float(value)
        return value if isinstance(value, int) else number
    except OverflowError:
        raise ValueError(f"trial.report({name}=...) is an int that no float can hold") from None
    except (TypeError, ValueError):
        raise TypeError(
            f"trial.report({name}=...) must be a number, got {type(value).__name__}"
        ) from None

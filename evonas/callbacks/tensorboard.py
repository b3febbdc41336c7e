"""A search in TensorBoard, written without torch and without TensorFlow."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evonas.callbacks.base import RunInfo
from evonas.callbacks.tracker import Logged, PlacedEvaluation, Tracker, curve, numbers, scalars
from evonas.exceptions import EvonasError, MissingDependencyError
from evonas.files import replace_file
from evonas.run.store import RunRecord

__all__ = ["TensorBoardLogger"]

_NUMBER = "search/number"


class TensorBoardLogger(Tracker):
    """Writes TensorBoard's event files while a search runs: `tensorboard --logdir runs/demo`.

    * By evaluation (the step counts them in the order in which they ended): `search/<objective>`
      of those that have a fitness, `search/best` so far, `search/number`, `search/seconds`, and
      `status/<status>`, how many have ended so.
    * By generation: `generation/<column>` for each number of the logbook.
    * In a folder for each evaluation, `evaluations/00017`: its learning curves (`epoch/<metric>`,
      the epoch as step), `result/<objective>`, `metric/<name>`, its status, and its genes as
      hyperparameters, so that the HPARAMS page compares all evaluations.

    A resumed search goes on in the same folder and writes nothing twice.

    Args:
        log_dir: The folder. None: `tensorboard` in the run's directory.

    Raises:
        MissingDependencyError: TensorBoard is not installed.

    Example:
        >>> from evonas.run.evolve import evolve
        >>> logger = TensorBoardLogger("runs/demo/tensorboard")  # doctest: +SKIP
        >>> evolve(problem, run_dir="runs/demo", callbacks=[logger])  # doctest: +SKIP
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        _require()
        self._log_dir = None if log_dir is None else Path(log_dir)

    def open(self, info: RunInfo, identity: str, record: RunRecord | None) -> Logged:
        """Opens a file of this start beside those of earlier ones."""
        if self._log_dir is None and info.run_dir is None:
            raise ValueError(
                "TensorBoardLogger needs a log_dir for a run that is kept in memory (run_dir=None)"
            )
        folder = self._log_dir or Path(info.run_dir or "") / "tensorboard"
        self._folder = folder.resolve()  # trials may change the directory
        self._mark = f"evonas-{identity}"
        earlier = sorted(self._folder.glob("events.out.tfevents.*.evonas-*"))
        others = [path for path in earlier if self._mark not in path.name]
        if others:
            raise EvonasError(
                f"log_dir {folder} holds the log of another run ({others[0].name}): pass another "
                "log_dir, or remove it"
            )
        self._counts: dict[str, int] = {}
        logged = self._read(earlier)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{self._mark}"
        self._file = self._folder / name
        self._append(_Events(header=True))
        return logged

    def log_evaluation(self, point: PlacedEvaluation) -> None:
        """Writes the evaluation's folder, then its point of the search."""
        entry = point.evaluation
        self._write_folder(point)
        status = entry.status.value
        self._counts[status] = self._counts.get(status, 0) + 1
        values = {
            **self._named("search", entry.values if status == "ok" else ()),
            "search/seconds": entry.seconds,
            f"status/{status}": float(self._counts[status]),
            _NUMBER: float(entry.number),
        }
        if point.best is not None:
            values["search/best"] = point.best
        # One event: it is in the file whole, or (after a kill) not at all.
        self._append(_Events().add(values, point.step, point.ended))

    def log_row(self, row: Mapping[str, Any]) -> None:
        """Writes a row of the logbook."""
        gen = int(row["gen"])
        values = {f"generation/{name}": value for name, value in numbers(row).items()}
        self._append(_Events().add(values, gen, time.time()))

    def close(self, outcome: str, reason: str) -> None:
        """Does nothing: the file is complete at any time."""

    def _append(self, events: _Events) -> None:
        # Opened for each: a logger that is switched off leaves no open file behind.
        with self._file.open("ab") as file:
            file.write(events.data)

    def _named(self, group: str, values: tuple[float, ...]) -> dict[str, float]:
        names = [objective.name for objective in self.objectives]
        return {f"{group}/{name}": value for name, value in zip(names, values, strict=False)}

    def _read(self, files: list[Path]) -> Logged:
        """Returns what earlier starts wrote; counts how their evaluations ended."""
        evaluations, rows = set(), set()
        for path in files:
            for step, values in _read_scalars(path):
                if _NUMBER in values:
                    evaluations.add(round(values[_NUMBER]))
                    for name, value in values.items():
                        if name.startswith("status/"):
                            self._counts[name.removeprefix("status/")] = round(value)
                elif any(name.startswith("generation/") for name in values):
                    rows.add(step)
        return Logged(frozenset(evaluations), frozenset(rows))

    def _write_folder(self, point: PlacedEvaluation) -> None:
        """Writes the evaluation's own file, whole or not at all."""
        entry = point.evaluation
        folder = self._folder / "evaluations" / f"{entry.number:05d}"
        path = folder / f"events.out.tfevents.{entry.number:020d}.{self._mark}"
        last = entry.epochs[-1].epoch if entry.epochs else 0
        events = _Events(header=True)
        events.add_hyperparameters(
            {"status": entry.status.value, **scalars(entry.genes)}, entry.key, point.began
        )
        for epoch, seconds, metrics in curve(entry.epochs):
            values = {f"epoch/{name}": value for name, value in metrics.items()}
            events.add(values, epoch, point.began + seconds)
        results = {
            **self._named("result", entry.values if entry.status.value == "ok" else ()),
            **{f"metric/{name}": value for name, value in numbers(entry.metrics).items()},
            "result/seconds": entry.seconds,
        }
        events.add(results, last, point.ended)
        events.add_end(entry.status.value == "ok", point.ended)
        replace_file(path, lambda part: part.write_bytes(events.data))


class _Events:
    """TensorBoard's events as the bytes of its files."""

    def __init__(self, *, header: bool = False) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        self._buffer = io.BytesIO()
        self._writer = RecordWriter(self._buffer)
        if header:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    @property
    def data(self) -> bytes:
        """The bytes so far."""
        return self._buffer.getvalue()

    def add(self, values: Mapping[str, float], step: int, wall_time: float) -> _Events:
        """Adds scalars of one step, as one event; returns itself."""
        entries = [
            self._summary.Value(tag=name, simple_value=value) for name, value in values.items()
        ]
        self._write(
            self._event(wall_time=wall_time, step=step, summary=self._summary(value=entries))
        )
        return self

    def add_hyperparameters(
        self, values: Mapping[str, bool | float | str], group: str, started_at: float
    ) -> None:
        """Adds what the HPARAMS page reads of one evaluation, when it begins."""
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        info = SessionStartInfo(group_name=group, start_time_secs=started_at)
        for name, value in values.items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, str):
                info.hparams[name].string_value = value
            else:
                info.hparams[name].number_value = value
        self._add_plugin(
            metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info), started_at
        )

    def add_end(self, succeeded: bool, ended_at: float) -> None:
        """Adds what the HPARAMS page reads of one evaluation, when it ends."""
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        info = SessionEndInfo(status=status, end_time_secs=ended_at)
        self._add_plugin(
            metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info), ended_at
        )

    def _add_plugin(self, tag: str, data: Any, wall_time: float) -> None:
        from tensorboard.plugins.hparams import metadata

        value = self._summary.Value(
            tag=tag,
            metadata=metadata.create_summary_metadata(data),
            tensor=metadata.NULL_TENSOR,
        )
        self._write(self._event(wall_time=wall_time, summary=self._summary(value=[value])))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def _require() -> None:
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.of(
            "TensorBoardLogger", "tensorboard", error, "pip install 'evonas[trackers]'"
        ) from error


def _read_scalars(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields step and scalars of each event; ends where a killed start left half of one."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for event in LegacyEventFileLoader(str(path)).Load():
        if event.HasField("summary"):
            yield event.step, {value.tag: value.simple_value for value in event.summary.value}

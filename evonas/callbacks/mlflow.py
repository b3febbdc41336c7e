"""A search in MLflow: a run of runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evonas.callbacks.base import RunInfo
from evonas.callbacks.tracker import Logged, PlacedEvaluation, Tracker, curve, numbers, scalars
from evonas.exceptions import MissingDependencyError
from evonas.records import Evaluation, Status
from evonas.run.store import RunRecord
from evonas.space.canonical import canonical_json

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

__all__ = ["MLflowLogger"]

_RUN = "evonas.run"
_NUMBER = "evonas.number"
_PARENT = "mlflow.parentRunId"
_MAX_METRICS = 1_000  # of one request, by MLflow's own limits
_MAX_PARAMS = 100
_MAX_TEXT = 500
_ENDS = {"finished": "FINISHED", "interrupted": "KILLED"}


class MLflowLogger(Tracker):
    """Logs a search to MLflow: one run for the search, and a nested one for each evaluation.

    The search's run has the metrics `<objective>`, `best`, `seconds` by evaluation (the step
    counts them in the order in which they ended) and `generation.<column>` by generation; it ends
    `FINISHED`, `KILLED` (Ctrl-C, SIGTERM) or `FAILED`. A nested run has the genes as parameters,
    the learning curves (`epoch.<metric>`, the epoch as step), objectives and other metrics, and
    the status as the tag `evonas.status`; it is `FINISHED` where there is a fitness, `KILLED` where
    it was pruned, else `FAILED`.

    A resumed search goes on in the same run and logs nothing twice.

    Args:
        experiment: MLflow's experiment; made where there is none.
        tracking_uri: Where MLflow's store is: a server, or `sqlite:///mlflow.db`. None: MLflow's
            own setting.

    Raises:
        MissingDependencyError: MLflow is not installed.

    Example:
        >>> from evonas.run.evolve import evolve
        >>> logger = MLflowLogger("alexnet", tracking_uri="sqlite:///ml.db")  # doctest: +SKIP
        >>> evolve(problem, run_dir="runs/demo", callbacks=[logger])  # doctest: +SKIP
    """

    def __init__(self, experiment: str = "evonas", tracking_uri: str | None = None) -> None:
        try:
            import mlflow.tracking  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError.of(
                "MLflowLogger", "mlflow-skinny", error, "pip install 'evonas[trackers]'"
            ) from error
        self._experiment = experiment
        self._tracking_uri = tracking_uri

    def open(self, info: RunInfo, identity: str, record: RunRecord | None) -> Logged:
        """Finds the search's run, or begins it."""
        from mlflow.tracking import MlflowClient

        # Here, not before: a store that fails costs the log and not the search.
        client = self._client = MlflowClient(tracking_uri=self._tracking_uri)
        found = client.get_experiment_by_name(self._experiment)
        self._experiment_id = (
            client.create_experiment(self._experiment) if found is None else found.experiment_id
        )
        runs = list(self._search(f"tags.`{_RUN}` = '{identity}'"))
        if not runs:
            name = "search" if info.run_dir is None else info.run_dir.resolve().name
            tags = {_RUN: identity, "evonas.run_dir": str(info.run_dir), **_objectives(info)}
            made = client.create_run(self._experiment_id, run_name=name, tags=tags)
            self._run_id = made.info.run_id
            self._params(self._run_id, {"strategy": info.strategy, **_about(record)})
            return Logged()
        self._run_id = runs[0].info.run_id
        client.update_run(self._run_id, status="RUNNING")
        return self._logged()

    def log_evaluation(self, point: PlacedEvaluation) -> None:
        """Logs a nested run, then the evaluation's point of the search."""
        from mlflow.entities import Metric

        entry = point.evaluation
        self._nested(point)
        at = _milliseconds(point.ended)
        values = {"seconds": entry.seconds, _NUMBER: float(entry.number)}
        if entry.status is Status.OK:
            values |= self._values(entry)
        if point.best is not None:
            values["best"] = point.best
        # One request, and so one transaction: it is there whole or not at all.
        self._client.log_batch(
            self._run_id,
            metrics=[Metric(name, value, at, point.step) for name, value in values.items()],
        )

    def log_row(self, row: Mapping[str, Any]) -> None:
        """Logs a row of the logbook."""
        from mlflow.entities import Metric

        gen, at = int(row["gen"]), _milliseconds(time.time())
        self._client.log_batch(
            self._run_id,
            metrics=[
                Metric(f"generation.{_name(name)}", value, at, gen)
                for name, value in numbers(row).items()
            ],
        )

    def close(self, outcome: str, reason: str) -> None:
        """Ends the search's run."""
        self._client.set_tag(self._run_id, "evonas.reason", reason[:_MAX_TEXT])
        self._client.set_terminated(self._run_id, status=_ENDS.get(outcome, "FAILED"))

    def _values(self, entry: Evaluation) -> dict[str, float]:
        names = [_name(objective.name) for objective in self.objectives]
        return dict(zip(names, entry.values, strict=False))

    def _nested(self, point: PlacedEvaluation) -> None:
        entry = point.evaluation
        tags = {
            _PARENT: self._run_id,
            _NUMBER: str(entry.number),
            "evonas.status": entry.status.value,
            "evonas.key": entry.key,
        }
        if entry.error:
            tags["evonas.error"] = entry.error.strip().splitlines()[-1][:_MAX_TEXT]
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(point.began),
            tags=tags,
            run_name=f"evaluation {entry.number}",
        )
        run_id = run.info.run_id
        self._params(run_id, scalars(entry.genes))
        metrics = self._metrics(point)
        for first in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(run_id, metrics=metrics[first : first + _MAX_METRICS])
        ends = {Status.OK: "FINISHED", Status.PRUNED: "KILLED"}
        self._client.set_terminated(
            run_id,
            status=ends.get(entry.status, "FAILED"),
            end_time=_milliseconds(point.ended),
        )

    def _metrics(self, point: PlacedEvaluation) -> list[Metric]:
        from mlflow.entities import Metric

        entry = point.evaluation

        metrics = [
            Metric(f"epoch.{_name(name)}", value, _milliseconds(point.began + seconds), epoch)
            for epoch, seconds, reported in curve(entry.epochs)
            for name, value in reported.items()
        ]
        results = {_name(name): value for name, value in numbers(entry.metrics).items()}
        results["seconds"] = entry.seconds
        if entry.status is Status.OK:
            results |= self._values(entry)
        end = _milliseconds(point.ended)
        last = entry.epochs[-1].epoch if entry.epochs else 0
        return metrics + [Metric(name, value, end, last) for name, value in results.items()]

    def _params(self, run_id: str, values: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        params = [Param(_name(name), str(value)[:_MAX_TEXT]) for name, value in values.items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + _MAX_PARAMS])

    def _logged(self) -> Logged:
        """Returns what earlier starts logged; what a kill left half is removed."""
        history = self._client.get_metric_history
        evaluations = {round(metric.value) for metric in history(self._run_id, _NUMBER)}
        for run in self._search(f"tags.`{_PARENT}` = '{self._run_id}'"):
            if int(run.data.tags[_NUMBER]) not in evaluations:
                self._client.delete_run(run.info.run_id)
        columns = [
            name
            for name in self._client.get_run(self._run_id).data.metrics
            if name.startswith("generation.")
        ]
        # Each row has its own `gen`, and a row is logged whole.
        rows = history(self._run_id, "generation.gen") if columns else ()
        return Logged(frozenset(evaluations), frozenset(metric.step for metric in rows))

    def _search(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], filter_string=condition, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def _about(record: RunRecord | None) -> dict[str, object]:
    """Returns what the run is, as parameters of the search's run; nothing for one in memory."""
    if record is None:
        return {}
    found: dict[str, object] = {"seed": record.seed}
    for group, entries in (("strategy", record.strategy), ("fingerprint", record.fingerprint)):
        for name, value in entries.items():
            if name != "name":
                found[f"{group}.{name}"] = (
                    canonical_json(value) if isinstance(value, (dict, list)) else value
                )
    return found


def _objectives(info: RunInfo) -> dict[str, str]:
    objectives: Sequence[Any] = info.objectives
    return {
        "evonas.objectives": ", ".join(f"{entry.name} {entry.direction}" for entry in objectives)
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _name(name: str) -> str:
    """Returns a name in the letters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)

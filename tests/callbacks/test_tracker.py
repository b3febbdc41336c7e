"""What is logged, read back by TensorBoard's own reader and by MLflow's own client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.callbacks import MLflowLogger, TensorBoardLogger
from evonas.callbacks.base import RunInfo
from evonas.callbacks.tracker import Logged, PlacedEvaluation, Tracker
from evonas.exceptions import MissingDependencyError
from evonas.records import Status
from evonas.testing import ProcessKilled, RoughProblem, dies_at_commit

ROOT = Path(__file__).resolve().parents[2]


class Curves(RoughProblem):
    """The rough problem, with metrics."""

    def evaluate(self, genes: dict[str, Any], trial: en.Trial) -> tuple[float, ...]:
        trial.record(params=100 + trial.number, note="text")
        return super().evaluate(genes, trial)


def search(run_dir: Path | None, *callbacks: en.Observer, **changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"population": 6, "generations": 3, "elite": 1, "seed": 1}
    arguments |= {"max_consecutive_failures": 1000, "run_dir": run_dir}
    return en.evolve(Curves(), callbacks=list(callbacks), **(arguments | changes))


def best_so_far(result: en.Result, numbers: list[int]) -> list[float]:
    """The best after each of the evaluations of these numbers, from the first fitness on."""
    by_number = {entry.number: entry for entry in result.evaluations}
    found, best = [], None
    for number in numbers:
        entry = by_number[number]
        if entry.fitness is not None and (best is None or entry.fitness > best):
            best = entry.fitness
        found += [] if best is None else [best]
    return found


class Memory(Tracker):
    """Keeps what it is told, over all starts; `dies_at` is the evaluation that it fails at."""

    def __init__(self) -> None:
        self.points: list[PlacedEvaluation] = []
        self.rows: list[int] = []
        self.ends: list[tuple[str, str]] = []
        self.identities: set[str] = set()

    def open(self, info: RunInfo, identity: str, settings: Any) -> Logged:
        self.identities.add(identity)
        numbers = frozenset(point.evaluation.number for point in self.points)
        return Logged(numbers, frozenset(self.rows))

    def log_evaluation(self, point: PlacedEvaluation) -> None:
        self.points.append(point)

    def log_row(self, row: Any) -> None:
        self.rows.append(row["gen"])

    def close(self, outcome: str, reason: str) -> None:
        self.ends.append((outcome, reason))


def check_complete(memory: Memory, result: en.Result) -> None:
    numbers = [point.evaluation.number for point in memory.points]
    assert sorted(numbers) == [entry.number for entry in result.evaluations]
    assert [point.step for point in memory.points] == list(range(len(numbers)))
    assert memory.rows == [row["gen"] for row in result.logbook]
    known = [point.best for point in memory.points if point.best is not None]
    assert known == best_so_far(result, numbers)
    assert len(memory.identities) == 1


def test_a_tracker_hears_everything_once_over_all_starts(tmp_path: Path) -> None:
    memory = Memory()
    search(tmp_path, memory, generations=1)
    search(tmp_path, memory, generations=2)
    result = search(tmp_path, memory)
    check_complete(memory, result)
    assert memory.ends[-1] == ("finished", "3 generations are done")
    assert len(memory.ends) == 3


@pytest.mark.parametrize("commit", [4, 9, 15])
def test_what_was_committed_and_not_logged_is_caught_up(commit: int, tmp_path: Path) -> None:
    memory = Memory()
    with pytest.raises(ProcessKilled), dies_at_commit(commit):
        search(tmp_path, memory)
    if memory.points:
        memory.points.pop()  # killed between the commit and the log
    if memory.rows:
        memory.rows.pop()
    check_complete(memory, search(tmp_path, memory))


def test_a_tracker_that_comes_later_hears_of_all_before(tmp_path: Path) -> None:
    search(tmp_path, generations=2)
    memory = Memory()
    check_complete(memory, search(tmp_path, memory))


def test_copies_of_earlier_runs_are_no_evaluations_of_this_one(tmp_path: Path) -> None:
    search(tmp_path / "first", generations=1)
    memory = Memory()
    result = search(tmp_path / "second", memory, warm_start=[tmp_path / "first"])
    n_copied = result.record.n_copied
    assert n_copied > 0
    assert min(point.evaluation.number for point in memory.points) == n_copied
    copied = max(e.fitness for e in result.evaluations[:n_copied] if e.fitness is not None)
    assert memory.points[0].best >= copied


def test_in_memory_the_end_is_known_too() -> None:
    memory = Memory()
    search(None, memory)
    assert memory.ends == [("finished", "3 generations are done")]

    class Stops(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(None, memory, Stops())
    assert memory.ends[-1][0] == "interrupted"
    with pytest.raises(en.TooManyFailures):
        search(None, memory, max_consecutive_failures=1)
    assert memory.ends[-1][0] in ("failures", "error")


# TensorBoard.


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return accumulator.Reload()


def hyperparameters(folder: Path) -> dict[str, Any]:
    """What the HPARAMS page reads of an evaluation."""
    from tensorboard.plugins.hparams import metadata

    found = read(folder).summary_metadata[metadata.SESSION_START_INFO_TAG]
    info = metadata.parse_session_start_info_plugin_data(found.plugin_data.content)
    return {name: getattr(v, v.WhichOneof("kind")) for name, v in info.hparams.items()}


def check_tensorboard(folder: Path, result: en.Result) -> None:
    log = read(folder)
    numbers = [round(event.value) for event in log.Scalars("search/number")]
    assert sorted(numbers) == [entry.number for entry in result.evaluations]
    assert [event.step for event in log.Scalars("search/number")] == list(range(len(numbers)))
    best = [event.value for event in log.Scalars("search/best")]
    assert best == pytest.approx(best_so_far(result, numbers))
    for name in ("best", "mean", "nevals", "failed"):
        events = log.Scalars(f"generation/{name}")
        rows = [row for row in result.logbook if row[name] is not None]
        assert [event.step for event in events] == [row["gen"] for row in rows]
        assert [event.value for event in events] == pytest.approx([row[name] for row in rows])
    for status in ("ok", "failed", "invalid"):
        assert log.Scalars(f"status/{status}")[-1].value == result.counts.by_status[status]
    folders = sorted((folder / "evaluations").iterdir())
    assert [int(each.name) for each in folders] == sorted(numbers)
    assert all(len(list(each.iterdir())) == 1 for each in folders)


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    result = search(tmp_path, TensorBoardLogger())
    folder = tmp_path / "tensorboard"
    check_tensorboard(folder, result)
    champion = result.champion
    own = folder / "evaluations" / f"{champion.number:05d}"
    log = read(own)
    curve = log.Scalars("epoch/loss")
    assert [event.step for event in curve] == [0, 1]
    losses = [epoch.metrics["loss"] for epoch in champion.epochs]
    assert [event.value for event in curve] == pytest.approx(losses)
    assert log.Scalars("result/fitness")[0].value == pytest.approx(champion.fitness)
    assert log.Scalars("metric/params")[0].value == 100 + champion.number
    assert hyperparameters(own) == {**champion.genes, "status": "ok"}
    failed = next(e for e in result.evaluations if e.status is Status.FAILED)
    assert hyperparameters(folder / "evaluations" / f"{failed.number:05d}")["status"] == "failed"


def test_a_resumed_search_goes_on_in_the_same_log(tmp_path: Path) -> None:
    logs, run = tmp_path / "logs", tmp_path / "run"
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        search(run, TensorBoardLogger(logs))
    main = next(iter(logs.glob("events.*")))
    with main.open("ab") as file:
        file.write(b"\x99" * 7)  # half an event, as a kill leaves it
    result = search(run, TensorBoardLogger(logs))
    check_tensorboard(logs, result)
    assert len(list(logs.glob("events.*"))) == 2


def test_the_log_of_another_run_is_refused(tmp_path: Path) -> None:
    search(tmp_path / "a", TensorBoardLogger(tmp_path / "logs"), generations=1)
    with pytest.warns(RuntimeWarning, match="holds the log of another run .*pass another log_dir"):
        result = search(tmp_path / "b", TensorBoardLogger(tmp_path / "logs"), generations=1)
    assert result.outcome == "finished"
    with pytest.warns(RuntimeWarning, match="TensorBoardLogger needs a log_dir"):
        search(None, TensorBoardLogger(), generations=1)


def test_a_logger_that_fails_is_switched_off_and_the_search_goes_on(tmp_path: Path) -> None:
    class Breaks(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: Any) -> None:
            if evaluation.number == 4:  # the disk is full, say
                (tmp_path / "logs" / "evaluations").rename(tmp_path / "elsewhere")
                (tmp_path / "logs" / "evaluations").touch()

    whole = search(None)
    with pytest.warns(RuntimeWarning, match="observer TensorBoardLogger is switched off"):
        result = search(tmp_path / "run", Breaks(), TensorBoardLogger(tmp_path / "logs"))
    assert result.champion.genes == whole.champion.genes
    assert len(result.evaluations) == len(whole.evaluations)


def test_two_objectives_and_genes_of_every_kind(tmp_path: Path) -> None:
    def fitness(genes: Any, trial: en.Trial) -> tuple[float, float]:
        return genes["n"] * 1.0, len(genes["shape"]) * 1.0

    en.evolve(
        {"n": [1, 2], "shape": en.Categorical([[1], [1, 2]]), "on": en.Boolean(), "a": ["x", "y"]},
        fitness, objectives=[en.Objective("gain"), en.Objective("cost", "min")],
        strategy=en.NSGA2(4), generations=1, seed=0, run_dir=tmp_path,
        callbacks=[TensorBoardLogger()],
    )  # fmt: skip
    log = read(tmp_path / "tensorboard")
    assert {"search/gain", "search/cost", "search/best"} <= set(log.Tags()["scalars"])
    found = hyperparameters(tmp_path / "tensorboard" / "evaluations" / "00000")
    assert found["shape"] in ("[1]", "[1, 2]")
    assert found["on"] in (True, False)


@pytest.mark.parametrize(
    ("module", "logger"), [("tensorboard", TensorBoardLogger), ("mlflow", MLflowLogger)]
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, logger: type[Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[trackers\]'"):
        logger()


def test_tensorboard_is_written_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, evonas as en; from evonas.callbacks import TensorBoardLogger\n"
        "en.evolve({'x': [1, 2, 3]}, lambda genes, trial: genes['x'], population=3, "
        f"generations=1, run_dir={str(tmp_path)!r}, callbacks=[TensorBoardLogger()])\n"
        "print(sorted({'torch', 'tensorflow', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "[]\n"
    assert read(tmp_path / "tensorboard").Scalars("search/best")[-1].value == 3


# MLflow: seconds to import and to make its tables.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow store in an SQLite file."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    patch.chdir(tmp_path_factory.mktemp("mlflow"))
    yield "sqlite:///ml.db"
    patch.undo()


# MLflow's own: it forgets files when it is shut down, and warns of what it will change.
ignores = pytest.mark.filterwarnings("ignore::Warning")


def mlflow_client(store: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=store)


def mlflow_runs(store: str, experiment: str) -> tuple[Any, dict[int, Any]]:
    """The run of the one search, and those of its evaluations by number."""
    client = mlflow_client(store)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    parents = [run for run in runs if "evonas.run" in run.data.tags]
    assert len(parents) == 1
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(nested) == len(runs) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} <= {parents[0].info.run_id}
    numbers = [int(run.data.tags["evonas.number"]) for run in nested]
    assert len(set(numbers)) == len(numbers)
    return parents[0], dict(zip(numbers, nested, strict=True))


def check_mlflow(store: str, experiment: str, result: en.Result) -> None:
    client = mlflow_client(store)
    parent, nested = mlflow_runs(store, experiment)
    history = client.get_metric_history(parent.info.run_id, "evonas.number")
    numbers = [round(metric.value) for metric in sorted(history, key=lambda metric: metric.step)]
    assert sorted(numbers) == [entry.number for entry in result.evaluations]
    assert sorted(nested) == sorted(numbers)
    best = sorted(
        client.get_metric_history(parent.info.run_id, "best"), key=lambda metric: metric.step
    )
    assert [metric.value for metric in best] == best_so_far(result, numbers)
    rows = client.get_metric_history(parent.info.run_id, "generation.mean")
    assert {m.step: m.value for m in rows} == {r["gen"]: r["mean"] for r in result.logbook}
    assert len(rows) == len(result.logbook)


@ignores
@pytest.mark.slow
def test_mlflow_reads_what_was_logged(store: str, tmp_path: Path) -> None:
    result = search(tmp_path, MLflowLogger("plain", store))
    check_mlflow(store, "plain", result)
    parent, nested = mlflow_runs(store, "plain")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["strategy"] == "Generational"
    assert parent.data.params["seed"] == "1"
    for entry in result.evaluations:
        run = nested[entry.number]
        assert run.data.params == {name: str(value) for name, value in entry.genes.items()}
        assert run.info.status == ("FINISHED" if entry.status is Status.OK else "FAILED")
        assert run.data.tags["evonas.status"] == entry.status.value
        assert run.data.metrics.get("fitness") == entry.fitness
        if entry.status is Status.OK:
            curve = mlflow_client(store).get_metric_history(run.info.run_id, "epoch.loss")
            assert [metric.step for metric in curve] == [0, 1]
            assert run.data.metrics["params"] == 100 + entry.number
            assert run.info.end_time - run.info.start_time == pytest.approx(
                entry.seconds * 1000, abs=2
            )


@ignores
@pytest.mark.slow
def test_mlflow_goes_on_in_the_same_run(store: str, tmp_path: Path) -> None:
    class Halves(MLflowLogger):
        """Is killed between a nested run and the search's own metrics of it."""

        def _params(self, run_id: str, values: Any) -> None:
            super()._params(run_id, values)
            self.n_calls = getattr(self, "n_calls", 0) + 1
            if self.n_calls == 6:
                raise ProcessKilled

    with pytest.raises(ProcessKilled):
        search(tmp_path, Halves("resumed", store))
    parent, nested = mlflow_runs(store, "resumed")
    assert parent.info.status in ("RUNNING", "FAILED")
    assert len(nested) == 5
    result = search(tmp_path, MLflowLogger("resumed", store))
    check_mlflow(store, "resumed", result)
    again, _ = mlflow_runs(store, "resumed")
    assert (again.info.run_id, again.info.status) == (parent.info.run_id, "FINISHED")


@ignores
@pytest.mark.slow
def test_mlflow_says_how_a_search_ended(store: str, tmp_path: Path) -> None:
    class Stops(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", Stops(), MLflowLogger("killed", store))
    parent, _ = mlflow_runs(store, "killed")
    assert parent.info.status == "KILLED"
    assert parent.data.tags["evonas.reason"] == "stopped by Ctrl-C"
    with pytest.raises(en.TooManyFailures):
        search(tmp_path / "failed", MLflowLogger("failed", store), max_consecutive_failures=1)
    assert mlflow_runs(store, "failed")[0].info.status == "FAILED"


@ignores
@pytest.mark.slow
def test_mlflow_that_cannot_write_is_switched_off(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"no database")
    logger = MLflowLogger("x", f"sqlite:///{tmp_path / 'full'}")
    with pytest.warns(RuntimeWarning, match="observer MLflowLogger is switched off"):
        result = search(tmp_path / "run", logger, generations=1)
    assert result.outcome == "finished"


def test_the_best_is_within_the_limits() -> None:
    def fitness(genes: en.Genes, trial: en.Trial) -> float:
        trial.record(cost=genes["x"])
        return float(genes["x"])

    memory = Memory()
    en.evolve(
        {"x": en.Integer(0, 9)}, fitness, strategy=en.NSGA2(population=4, at_most={"cost": 5}),
        initial=[{"x": 9}, {"x": 4}, {"x": 2}, {"x": 5}], seed=0, generations=1,
        callbacks=[memory], progress=False,
    )  # fmt: skip
    assert [point.best for point in memory.points] == [None, 4.0, 4.0, 5.0]

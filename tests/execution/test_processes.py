from __future__ import annotations

import base64
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import evonas as en
from evonas.exceptions import WorkerError
from evonas.execution import Outcome, ProcessExecutor, Task, Trial, TrialSettings
from evonas.execution.output import MAX_BYTES
from evonas.testing import ExecutorConformance, RoughProblem, trace

# A worker could not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Fitness = Callable[[dict[str, Any], Trial], Any]
Submit = Callable[..., "Future[Outcome]"]

SPACE = en.SearchSpace({"x": en.Integer(0, 99)})


class TestProcessExecutor(ExecutorConformance):
    def make_executor(self) -> ProcessExecutor:
        return ProcessExecutor(1)


@pytest.mark.slow
class TestTwoProcesses(ExecutorConformance):
    def make_executor(self) -> ProcessExecutor:
        return ProcessExecutor(2)


@contextmanager
def running(workers: int = 1, **options: Any) -> Iterator[Submit]:
    """Yields `submit(fitness, x, **settings)`; nothing is left of the workers afterwards."""

    def fitness(genes: dict[str, Any], trial: Trial) -> Any:
        return cloudpickle.loads(base64.b64decode(genes["fitness"]))(genes, trial)

    def submit(fitness: Fitness, x: int = 0, **settings: Any) -> Future[Outcome]:
        function = base64.b64encode(cloudpickle.dumps(fitness)).decode()
        return executor.submit(Task({"x": x, "fitness": function}, TrialSettings(**settings)))

    executor = ProcessExecutor(workers, **options)
    executor.start(en.FunctionProblem(SPACE, fitness))
    with none_left_over():
        try:
            yield submit
        finally:
            executor.shutdown()


def channel() -> Connection:
    """A worker's connection to the driver, which is none of a trial's business."""
    (found,) = (thing for thing in gc.get_objects() if isinstance(thing, Connection))
    return found


@contextmanager
def none_left_over() -> Iterator[None]:
    before = {process.pid for process in multiprocessing.active_children()}
    yield
    assert {process.pid for process in multiprocessing.active_children()} <= before


@pytest.fixture(scope="module")
def submit() -> Iterator[Submit]:
    """To one worker that serves many tests: starting one takes half a second of a core."""
    with running(lost_retries=0) as submit:
        yield submit


def test_a_trial_whose_worker_is_killed_is_run_again(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    with running() as submit:
        outcome = submit(fitness).result(30)
        assert (outcome.status, outcome.error) == (en.Status.OK, None)
        # The new worker stays.
        assert submit(fitness).result(30).values == outcome.values


def test_a_trial_that_kills_each_worker_is_lost_and_the_others_go_on(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        trial.report(loss=1.0)
        if genes["x"] == 1:
            with (tmp_path / "tries").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    with running(workers=2, lost_retries=1) as submit:
        lost, *others = [submit(fitness, x) for x in (1, 2, 3, 4)]
        assert [future.result(30).status for future in others] == [en.Status.OK] * 3
        outcome = lost.result(30)
    assert outcome.status is en.Status.LOST
    assert "was killed by SIGKILL; run again 1 times" in outcome.error
    assert (tmp_path / "tries").read_text() == "xx"
    assert [row.metrics for row in outcome.epochs] == [{"loss": 1.0}]
    assert outcome.started_at > 1e9


def test_a_segmentation_fault_leaves_its_traceback(submit: Submit, tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        print("before the fall")
        return ctypes.string_at(0)

    outcome = submit(fitness, output=str(tmp_path / "output" / "7.txt")).result(30)
    assert outcome.status is en.Status.LOST
    assert "was killed by SIGSEGV" in outcome.error
    assert "Fatal Python error: Segmentation fault" in outcome.error
    assert outcome.output == str(tmp_path / "output" / "7.txt")
    assert Path(outcome.output).read_text().startswith("before the fall\n")


@pytest.mark.parametrize("way", ["exit", "close"])
def test_a_worker_that_leaves_is_lost(submit: Submit, way: str) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if genes["x"] and way == "exit":
            os._exit(0)
        if genes["x"]:
            channel().close()
            time.sleep(60)
        return 1.0

    outcome = submit(fitness, 1).result(30)
    assert submit(fitness, 0).result(30).status is en.Status.OK
    assert outcome.status is en.Status.LOST
    reasons = {"exit": "ended itself with exit status 0", "close": "closed its connection"}
    assert reasons[way] in outcome.error


def test_a_trial_that_takes_too_long_is_stopped() -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        trial.report(loss=2.0)
        if genes["x"]:
            trial.report(loss=1.5)
            time.sleep(60)
        return 1.0

    with running(workers=2, trial_timeout=0.5) as submit:
        first, second = submit(fitness, 1), submit(fitness, 0)
        assert second.result(30).status is en.Status.OK
        outcome = first.result(30)
        assert submit(fitness, 0).result(30).status is en.Status.OK
    assert outcome.status is en.Status.TIMEOUT
    assert outcome.error == "stopped after trial_timeout=0.5 seconds"
    assert [row.metrics["loss"] for row in outcome.epochs] == [2.0, 1.5]
    assert 0.5 <= outcome.seconds < 5


def test_loading_the_problem_does_not_count_as_time_of_a_trial() -> None:
    class Slow:
        def __call__(self, genes: dict[str, Any], trial: Trial) -> float:
            return 1.0

        def __setstate__(self, state: Any) -> None:
            time.sleep(1.0)

        def __getstate__(self) -> dict[str, int]:
            return {"a": 1}

    executor = ProcessExecutor(1, trial_timeout=0.8)
    executor.start(en.FunctionProblem(SPACE, Slow()))
    outcome = executor.submit(Task({"x": 1}, TrialSettings())).result(30)
    executor.shutdown()
    assert outcome.status is en.Status.OK
    assert outcome.seconds < 0.8


def test_no_exception_of_a_trial_ends_its_worker(submit: Submit) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if genes["x"] == 1:
            raise KeyboardInterrupt("raised by the trial")
        if genes["x"] == 2:
            raise GeneratorExit
        return os.getpid()

    before = submit(fitness, 0).result(30).values
    for x, name in ((1, "KeyboardInterrupt"), (2, "GeneratorExit")):
        outcome = submit(fitness, x).result(30)
        assert outcome.status is en.Status.FAILED
        assert name in outcome.error
    assert submit(fitness, 0).result(30).values == before


def test_what_a_trial_prints_is_in_its_file(submit: Submit, tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if genes["x"] == 1:
            print("from Python")
            os.write(2, b"from C\n")
            os.system("echo from a child")
        if genes["x"] == 2:
            print("a" * 70_000 + "b" * MAX_BYTES + "the end")
        return 1.0

    files = [tmp_path / "output" / f"{x}.txt" for x in range(3)]
    files[1].parent.mkdir()
    files[1].write_text("of a start that was killed")
    outcomes = [submit(fitness, x, output=str(files[x])).result(30) for x in range(3)]
    assert outcomes[0].output is None
    assert not files[0].exists()
    assert outcomes[1].output == str(files[1])
    assert sorted(files[1].read_text().split("\n")) == ["", "from C", "from Python", "from a child"]
    text = files[2].read_text()
    assert len(text.encode()) < MAX_BYTES
    assert text.startswith("a" * 60_000)
    assert "bytes left out" in text
    assert text.endswith("bthe end\n")


def test_a_chatty_trial_is_bounded_while_it_runs(submit: Submit, tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        for _ in range(24):
            os.write(1, b"x" * MAX_BYTES)
            time.sleep(0.1)
        return Path(trial.settings.output).stat().st_size

    outcome = submit(fitness, output=str(tmp_path / "0.txt")).result(30)
    assert outcome.values[0] < 16 * MAX_BYTES  # of 24


def test_a_problem_that_cannot_be_pickled_is_refused() -> None:
    lock = threading.Lock()

    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        with lock:
            return 1.0

    executor = ProcessExecutor(2)
    with pytest.raises(TypeError, match="lock.*inside the fitness function, or pass workers=1"):
        executor.start(en.FunctionProblem(SPACE, fitness))
    executor.start(en.FunctionProblem(SPACE, lambda genes, trial: 1.0))
    executor.shutdown()


def test_a_problem_that_does_not_load_in_a_worker_stops_the_search() -> None:
    class Unloadable:
        def __call__(self, genes: dict[str, Any], trial: Trial) -> float:
            return 1.0

        def __reduce__(self) -> Any:
            return __import__, ("a_module_that_only_the_driver_has",)

    message = "(?s)does not load.*a_module_that_only_the_driver_has"
    with none_left_over(), pytest.raises(WorkerError, match=message):
        en.evolve(SPACE, Unloadable(), population=2, generations=1, workers=2, progress=False)


def test_an_answer_that_is_no_outcome_is_a_failure(submit: Submit) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if genes["x"]:
            channel().send_bytes(b"onot what was agreed")
        return 1.0

    outcome = submit(fitness, 1).result(30)
    assert submit(fitness, 0).result(30).status is en.Status.OK
    assert outcome.status is en.Status.FAILED
    assert "the worker's answer is broken: b'not what was agreed' is no outcome" in outcome.error


def test_shutdown_ends_workers_in_mid_trial(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / str(genes["x"])).touch()
        time.sleep(60)
        return 1.0

    with none_left_over():
        executor = ProcessExecutor(2)
        executor.start(en.FunctionProblem(SPACE, fitness))
        futures = [executor.submit(Task({"x": x}, TrialSettings())) for x in range(3)]
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        began = time.monotonic()
        executor.shutdown()
        assert time.monotonic() - began < 3
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(1)


def test_children_of_a_killed_worker_end_with_it(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        child = os.fork()
        if child == 0:
            time.sleep(60)
        if genes["x"]:
            (tmp_path / "child").write_text(str(child))
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    with running(trial_timeout=0.3, lost_retries=0) as submit:
        # Noticed at once, although the child holds everything that it inherited.
        assert submit(fitness, 0).result(10).status is en.Status.LOST
        assert submit(fitness, 1).result(10).status is en.Status.TIMEOUT
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_devices_are_shared_out_over_the_workers(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        (tmp_path / f"{genes['x']}").write_text(trial.device)
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.01)
        return 1.0

    with running(workers=3, devices=["gpu0", "gpu1"]) as submit:
        for future in [submit(fitness, x) for x in range(3)]:
            assert future.result(30).status is en.Status.OK
    found = sorted((tmp_path / f"{x}").read_text() for x in range(3))
    assert found == ["gpu0", "gpu0", "gpu1"]


@pytest.mark.parametrize(("device", "expected"), [("gpu0", "ok"), ("cpu", "out_of_memory")])
def test_out_of_device_memory_is_tried_again_alone(
    tmp_path: Path, device: str, expected: str
) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        (tmp_path / f"{genes['x']}").touch()
        while len(list(tmp_path.iterdir())) < 2:  # both run at once
            time.sleep(0.01)
        if genes["x"] == 0:
            if not (tmp_path / "neighbour ended").exists():
                raise MemoryError("the neighbour has it all")
            return float((tmp_path / "neighbour ended").read_text())
        time.sleep(0.3)
        (tmp_path / "neighbour ended").write_text(str(os.getpid()))
        return 1.0

    with running(workers=2, devices=[device]) as submit:
        first, second = submit(fitness, 0), submit(fitness, 1)
        outcome = first.result(30)
        assert second.result(30).status is en.Status.OK
        assert outcome.status.value == expected
        if expected == "ok":  # the neighbour's process, which holds memory, was ended for it
            with pytest.raises(ProcessLookupError):
                os.kill(int(outcome.values[0]), 0)
        assert submit(fitness, 1).result(30).status is en.Status.OK


def test_a_broken_cuda_context_takes_its_worker_along() -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if genes["x"]:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return os.getpid()

    with running(devices=["gpu0"]) as submit:
        before = submit(fitness, 0).result(30).values
        assert submit(fitness, 1).result(30).status is en.Status.FAILED
        assert submit(fitness, 0).result(30).values != before


def test_relative_paths_mean_the_same_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        Path("made by the trial").touch()
        return 1.0

    with running() as submit:
        assert submit(fitness).result(30).status is en.Status.OK
    assert Path("made by the trial").exists()


def test_a_run_is_the_same_with_one_two_and_three_workers(tmp_path: Path) -> None:
    def search(workers: int) -> dict[str, Any]:
        folder = tmp_path / str(workers)
        return trace(
            en.evolve(
                RoughProblem(),
                population=8,
                generations=4,
                seed=3,
                run_dir=folder,
                executor=None if workers == 1 else ProcessExecutor(workers),
                max_consecutive_failures=1000,
                progress=False,
            )
        )

    alone = search(1)
    assert search(2) == alone
    assert search(3) == alone


def test_the_record_names_the_file_of_what_was_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if trial.number:
            print("trial", trial.number)
        return 1.0

    monkeypatch.chdir(tmp_path)
    result = en.evolve(
        SPACE, fitness, population=3, generations=1, run_dir="run", trial_timeout=60.0
    )
    assert [entry.output for entry in result.evaluations] == [None, "output/1.txt", "output/2.txt"]
    assert Path("run/output/2.txt").read_text() == "trial 2\n"
    assert sorted(path.name for path in Path("run/output").iterdir()) == ["1.txt", "2.txt"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"workers": -1}, ValueError, "workers must be at least 1, got -1"),
        ({"workers": 2.0}, TypeError, "workers must be an int, got 2.0"),
        ({"lost_retries": -1}, ValueError, "lost_retries must be at least 0"),
        ({"trial_timeout": 0}, ValueError, "trial_timeout must be above 0, got 0"),
        ({"devices": "cpu"}, TypeError, "devices must be a list of device names"),
        ({"devices": []}, ValueError, "devices must be a list of at least one name"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ProcessExecutor(**arguments)


def test_it_cannot_be_started_twice() -> None:
    executor = ProcessExecutor(2)
    problem = en.FunctionProblem(SPACE, lambda genes, trial: 1.0)
    executor.start(problem)
    with pytest.raises(RuntimeError, match="started already: shut it down first"):
        executor.start(problem)
    executor.shutdown()

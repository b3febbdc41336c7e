"""How many workers of how many threads, from the times of a training step."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch

import evonas as en
from evonas.execution.choice import available_cores
from evonas.execution.parallel import Parallel, has_guarded_main, measured_parallel

# A worker could not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Parallel]:
    """Measures a step that takes the given seconds by number of threads, by a clock of its own."""
    now, threads = [0.0], [0]
    monkeypatch.setattr("evonas.execution.parallel.time.monotonic", lambda: now[0])

    def measured(seconds: dict[int, float], n_steps: int, **options: Any) -> Parallel:
        def step() -> None:
            now[0] += seconds[threads[0]]

        def set_threads(n: int) -> None:
            threads[0] = n

        return measured_parallel(step, n_steps, max(seconds), set_threads=set_threads, **options)

    return measured


SMALL = {1: 0.010, 2: 0.011, 4: 0.012}  # threads only wait for each other
LARGE = {1: 4.0, 2: 2.1, 4: 1.1}  # twice the threads, half the time
MIDDLE = {1: 0.10, 2: 0.06, 4: 0.05}


@pytest.mark.parametrize(
    ("seconds", "n_steps", "workers", "expected"),
    [
        (SMALL, 10_000, None, (4, 1)),  # small networks, long trials: a worker for each core
        (SMALL, 100, None, (1, 1)),  # trials of a second are not worth a process
        (SMALL, 10_000, 2, (2, 1)),  # the user's workers are the user's
        (LARGE, 1000, None, (1, 4)),  # what scales is left in one process
        (LARGE, 1000, 2, (2, 2)),
        (MIDDLE, 10_000, None, (4, 1)),
        (MIDDLE, 100, None, (1, 2)),  # 4 threads are no 1.3 times as fast as 2
        ({1: 1.0}, 1000, None, (1, 1)),  # one core: nothing to measure
    ],
)
def test_what_is_chosen(
    measure: Any, seconds: dict[int, float], n_steps: int, workers: int | None, expected: Any
) -> None:
    found = measure(seconds, n_steps, workers=workers)
    assert (found.workers, found.threads) == expected
    assert (found.why is None) == (len(seconds) == 1)


def test_it_takes_no_longer_than_a_tenth_of_a_trial(measure: Any) -> None:
    found = measure({1: 10.0, 2: 1.0, 4: 0.1}, 3)
    assert (found.workers, found.threads) == (1, 4), "one step is a third of a trial"
    assert "longer than a tenth of a trial" in (found.why or "")


def test_a_short_trial_gets_no_threads_that_were_not_tried(measure: Any) -> None:
    found = measure({1: 0.1, 2: 5.0, 4: 20.0}, 3)  # others use the cores, too
    assert (found.workers, found.threads) == (1, 1)
    assert "threads_per_trial= chooses others" in (found.why or "")


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("import evonas\nif __name__ == '__main__':\n    pass\n", True),
        ("import evonas\nevonas.evolve({}, None)\n", False),
        ("this is no python", False),
    ],
)
def test_whether_workers_may_import_the_script(
    source: str, guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert has_guarded_main(), "a notebook"
    main.__file__ = str(tmp_path / "script.py")
    assert not has_guarded_main(), "a file that is not there"
    (tmp_path / "script.py").write_text(source)
    assert has_guarded_main() is guarded


class Sampled(en.FunctionProblem):
    """Says of itself that its trials take long, of which threads save nothing."""

    @property
    def uses_torch(self) -> bool:
        return True

    def sample_step(self) -> tuple[Callable[[], object], int]:
        return (lambda: torch.ones(10).sum()), 10**9


def where(genes: en.Genes, trial: en.Trial) -> float:
    import os

    trial.record(process=os.getpid(), threads=torch.get_num_threads())
    return 1.0


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_long_trials_get_workers_which_the_run_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Sampled(en.SearchSpace({"x": list(range(9))}), where, problem_id="sampled")
    before = torch.get_num_threads()
    result = en.evolve(problem, max_evaluations=4, seed=0, run_dir=tmp_path)
    cores = min(8, available_cores())
    assert (result.record.workers, result.record.threads) == (cores, 1)
    assert f"; {cores} workers of 1 thread (a step takes" in capsys.readouterr().err
    processes = {entry.metrics["process"] for entry in result.evaluations}
    assert len(processes) > 1
    again = en.evolve(problem, max_evaluations=8, run_dir=tmp_path)
    later = {entry.metrics["process"] for entry in again.evaluations[4:]}
    assert len(later) > 1
    assert not later & processes
    assert "a step takes" not in capsys.readouterr().err
    alone = en.evolve(problem, max_evaluations=2, seed=0, workers=1)
    assert alone.record.workers is None
    assert torch.get_num_threads() == before

"""What a user sets for a whole process holds in every trial, wherever it runs."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

import evonas as en
from evonas.exceptions import RunMismatchError
from evonas.execution import TrialSettings
from evonas.execution.process_state import changed_state, process_state
from evonas.execution.torch_env import torch_environment
from evonas.execution.torch_state import process_settings

# A worker could not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

OTHER: dict[str, Any] = {
    "default_dtype": "float64",
    "default_device": "meta",
    "float32_matmul_precision": "high",
    "autocast.cpu": "bfloat16",
    "autocast.cuda": "bfloat16",
    "numpy_errors": {"divide": "raise", "over": "ignore", "under": "warn", "invalid": "raise"},
}
NAMES = [*process_settings(), "numpy_errors"]


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[None]:
    with process_state({}):
        yield


def other(name: str) -> Any:
    return OTHER[name] if name in OTHER else not process_settings()[name][0]


def test_here_everything_is_as_in_a_new_process() -> None:
    assert changed_state() == {}


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_is_read_set_and_put_back(name: str) -> None:
    state = {name: other(name)}
    with process_state(state):
        assert changed_state() == state
        with process_state({}):
            assert changed_state() == {}
        assert changed_state() == state
    assert changed_state() == {}


def test_what_a_block_itself_changes_is_put_back() -> None:
    with process_state({}):
        torch.set_default_dtype(torch.float64)
    assert changed_state() == {}
    with torch_environment(TrialSettings(process={"default_dtype": "float64"})):
        assert torch.ones(1).dtype == torch.float64
        torch.set_default_dtype(torch.float32)
    assert changed_state() == {}


def test_an_unknown_setting_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="unknown settings of the process: x"),
        process_state({"x": 1}),
    ):
        pass


def precise(genes: dict[str, Any], trial: en.Trial) -> float:
    value = float((torch.ones(1000) * genes["a"]).cumsum(0)[-1])
    with np.errstate():
        trial.record(errors=np.geterr()["over"], dtype=str(torch.get_default_dtype()))
    torch.set_default_dtype(torch.float16)  # and what one trial sets, the next does not see
    return value


def search(**options: Any) -> en.Result:
    options = {"population": 4, "generations": 1, "seed": 0, "threads_per_trial": 1, **options}
    return en.evolve({"a": en.Float(0, 1)}, precise, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_workers_compute_as_this_process_does(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    np.seterr(over="raise")
    one, two = search(), search(workers=2)
    for result in (one, two):
        assert {entry.metrics["dtype"] for entry in result.evaluations} == {str(dtype)}
        assert {entry.metrics["errors"] for entry in result.evaluations} == {"raise"}
    assert {e.key: e.values for e in one.evaluations} == {e.key: e.values for e in two.evaluations}


def test_it_belongs_to_what_a_run_is(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    assert search(run_dir=tmp_path).record.process == {"default_dtype": "float64"}
    search(run_dir=tmp_path)
    torch.set_default_dtype(torch.float32)
    with pytest.raises(
        RunMismatchError, match=r"setting of the process \(default_dtype: float64 in"
    ):
        search(run_dir=tmp_path)


class Watched(en.Problem):
    def __init__(self) -> None:
        super().__init__(en.SearchSpace({"a": [1, 2]}))
        self.threads: list[int] = []

    def configure(self, stored: Any) -> dict[str, Any]:
        self.threads.append(torch.get_num_threads())
        return {}

    def invalid_reason(self, genes: Any) -> str | None:
        self.threads.append(torch.get_num_threads())
        return None

    def evaluate(self, genes: Any, trial: en.Trial) -> float:
        return float(genes["a"])


def test_the_driver_computes_with_the_threads_of_the_run(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        problem = Watched()
        options: dict[str, Any] = {"population": 2, "generations": 1, "run_dir": tmp_path}
        en.evolve(problem, threads_per_trial=1, **options)
        assert set(problem.threads) == {1}
        problem.threads.clear()
        en.confirm(problem, tmp_path, top=1, repeats=1)
        assert set(problem.threads) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_two_searches_in_threads_are_warned_of() -> None:
    inside, done = threading.Event(), threading.Event()

    def waits(genes: Any, trial: en.Trial) -> float:
        inside.set()
        done.wait(30)
        return 1.0

    first = threading.Thread(
        target=en.evolve, args=({"a": [1]}, waits), kwargs={"max_evaluations": 1}
    )
    first.start()
    inside.wait(30)
    try:
        with pytest.warns(
            RuntimeWarning, match="two searches run trials in threads of one process"
        ):
            en.evolve({"a": [1]}, lambda genes, trial: 1.0, max_evaluations=1)
    finally:
        done.set()
        first.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        en.evolve({"a": [1]}, lambda genes, trial: 1.0, max_evaluations=1)

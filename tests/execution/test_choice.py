from __future__ import annotations

import re
from typing import Any

import pytest

import evonas as en
from evonas.execution import ProcessExecutor, SerialExecutor, choice
from evonas.execution.choice import available_cores, choose_executor, default_threads

CORES = available_cores()


def test_one_worker_is_this_process() -> None:
    assert isinstance(choose_executor(), SerialExecutor)
    assert isinstance(choose_executor(workers=1), SerialExecutor)


def test_a_time_limit_takes_a_process() -> None:
    executor = choose_executor(trial_timeout=5.0)
    assert isinstance(executor, ProcessExecutor)
    assert executor.slots == 1


@pytest.mark.parametrize(
    ("gpus", "arguments", "devices"),
    [
        (2, {}, ["cuda:0"]),
        (2, {"workers": 2}, ["cuda:0", "cuda:1"]),
        (2, {"workers": 3, "devices": "auto"}, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, {"workers_per_device": 2}, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        (2, {"workers_per_device": 2, "workers": 3}, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, {"devices": "cuda:1", "workers_per_device": 2}, ["cuda:1", "cuda:1"]),
        (2, {"devices": ["cuda:1", "cpu"], "workers": 2}, ["cuda:1", "cpu"]),
        (2, {"devices": "cpu"}, ["cpu"]),
        (0, {"workers": 2}, ["cpu", "cpu"]),
        (0, {"workers_per_device": 2}, ["cpu", "cpu"]),
    ],
)
def test_workers_share_out_the_devices(
    monkeypatch: pytest.MonkeyPatch, gpus: int, arguments: dict[str, Any], devices: list[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(choice, "available_cores", lambda: 8)
    executor = choose_executor(**arguments, uses_torch=True)
    assert executor.slots == len(devices)
    assert executor.device == devices[0]
    if isinstance(executor, ProcessExecutor):
        found = [executor._devices[slot % len(executor._devices)] for slot in range(len(devices))]
        assert found == devices


def test_a_problem_without_torch_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_executor().device == "cpu"
    assert choose_executor(devices="auto").device == "cuda:0"  # asked for


def test_more_workers_than_cores_is_said_once() -> None:
    message = rf"workers={CORES + 1} share {CORES} cores"
    with pytest.warns(RuntimeWarning, match=message) as found:
        en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, population=2, generations=2,
                  workers=CORES + 1)  # fmt: skip
    assert [warning.filename for warning in found] == [__file__]


def test_threads_are_the_cores_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "available_cores", lambda: 8)
    assert default_threads(SerialExecutor()) == 8
    assert default_threads(ProcessExecutor(3)) == 2
    assert default_threads(ProcessExecutor(99)) == 1

    class Remote(SerialExecutor):
        threads_per_trial = 5

    assert default_threads(Remote()) == 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"workers": -2}, ValueError, "workers must be at least 1, got -2"),
        ({"workers": "2"}, TypeError, "workers must be an int, got '2' (str)"),
        ({"workers_per_device": 0}, ValueError, "workers_per_device must be at least 1, got 0"),
        ({"workers": 3, "workers_per_device": 2, "devices": "cpu"}, ValueError,
         "workers must be at most 2 (workers_per_device=2 on 1 devices), got 3"),
        ({"trial_timeout": -1.0}, ValueError, "trial_timeout must be above 0, got -1.0"),
        ({"workers": 2, "lost_retries": -1}, ValueError, "lost_retries must be at least 0, got -1"),
        ({"devices": []}, ValueError, "devices must be a list of at least one name, got none"),
        ({"devices": [0]}, TypeError, "an entry of devices must be a device's name, like 'cpu'"),
        ({"devices": "gpu"}, ValueError, "device must be like 'cpu' or 'cuda:0', got 'gpu'"),
        ({"devices": "cuda:99"}, ValueError, "device 'cuda:99' is not on this machine"),
        ({"executor": SerialExecutor(), "workers": 2}, ValueError,
         "give either executor or workers"),
        ({"executor": SerialExecutor(), "trial_timeout": 2.0}, ValueError,
         "give either executor or workers"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, **arguments)

"""An Apple GPU against a stand-in: what is asked of torch, and that nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import evonas as en
from evonas.execution import accelerator, torch_env
from evonas.execution.choice import choose_executor
from evonas.execution.trial import TrialSettings
from evonas.freezing._calls import rng_kept
from evonas.run.identity import device_kind
from evonas.training import PeakMemory, choose_precision, seeded
from evonas.training.checkpoint import random_state, restore_random_state

MPS = torch.device("mps")
STATE = torch.arange(16, dtype=torch.uint8)
Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Has torch.mps note what it is asked for, on a Mac with a GPU that torch can use."""
    noted: Calls = []

    def note(name: str, returned: Any = None) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            noted.append((name, *arguments))
            return returned

        return call

    for name, returned in {
        "manual_seed": None, "empty_cache": None, "synchronize": None, "get_rng_state": STATE,
        "set_rng_state": None, "driver_allocated_memory": 5,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.mps, name, note(name, returned))
    # As a cached function: torch's compiler, which it may import here, looks for what it wraps.
    monkeypatch.setattr(torch.backends.mps, "is_available", cache(lambda: True))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return noted


def test_auto_is_the_gpu(calls: Calls) -> None:
    assert torch_env.visible_devices() == ["mps"]
    assert torch_env.resolve_device("auto") == torch_env.resolve_device("mps") == "mps"
    assert choose_executor(devices="auto", uses_torch=True).device == "mps"
    assert choose_executor(uses_torch=True).device == "mps"
    assert choose_executor(devices="cpu", uses_torch=True).device == "cpu"


def test_without_one_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", cache(lambda: False))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert torch_env.visible_devices() == ["cpu"]
    with pytest.raises(ValueError, match="device 'mps' is not on this machine.* or 'cpu'"):
        torch_env.resolve_device("mps")


def test_a_trial_has_the_generator_of_the_gpu(calls: Calls) -> None:
    settings = TrialSettings(seed=7, device="mps", threads=torch.get_num_threads())
    with torch_env.torch_environment(settings):
        calls.append(("block",))
        assert torch.initial_seed() == 7, "and the one of the CPU"
    around = [("get_rng_state",), ("manual_seed", 7), ("block",), ("set_rng_state", STATE)]
    assert calls == around


@pytest.mark.parametrize("lent", [lambda: seeded(7, MPS), lambda: rng_kept(MODEL, seed=7)])
def test_a_generator_is_lent(calls: Calls, lent: Callable[[], Any]) -> None:
    torch.default_generator.manual_seed(3)
    before = torch.get_rng_state()
    with lent():
        calls.append(("block",))
        assert torch.initial_seed() == 7
    assert calls == [
        ("get_rng_state",), ("manual_seed", 7), ("block",), ("set_rng_state", STATE),
    ]  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)


MODEL: Any = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=MPS)] * 2))


def test_a_checkpoint_holds_it(calls: Calls) -> None:
    state = random_state(MPS)
    assert state["random_gpu"] is STATE
    restore_random_state(state, MPS)
    assert calls == [("get_rng_state",), ("set_rng_state", STATE)]


def test_clocks_and_memory(calls: Calls) -> None:
    accelerator.synchronize(MPS)
    torch_env.free_memory("mps")
    with PeakMemory(MPS) as peak:
        calls.append(("block",))
    assert peak.memory_bytes == 5
    assert calls == [
        ("synchronize",), ("empty_cache",), ("block",), ("driver_allocated_memory",),
    ]  # fmt: skip


def test_it_computes_in_float32(calls: Calls) -> None:
    assert choose_precision(MPS) == "float32"
    assert not calls


def test_a_run_knows_on_which_kind_it_began() -> None:
    problem: Any = SimpleNamespace(uses_torch=True)
    assert device_kind(problem, None, "mps", False, "the run") == "mps"
    stored: Any = SimpleNamespace(device="mps")
    with pytest.warns(RuntimeWarning, match="was started on mps and goes on on cpu"):
        assert device_kind(problem, stored, "cpu", False, "the run") == "mps"
    with pytest.raises(en.EvonasError, match="started on mps with deterministic=True"):
        device_kind(problem, stored, "cpu", True, "the run")

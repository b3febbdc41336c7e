"""CUDA branches against a stand-in: what is asked of torch, of which device, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evonas.execution import accelerator, torch_env
from evonas.execution.trial import TrialSettings
from evonas.freezing._calls import rng_kept
from evonas.training import Examples, PeakMemory, seeded
from evonas.training.checkpoint import random_state, restore_random_state
from evonas.training.data import examples
from evonas.training.fused.noise import RandomStates

DEVICE = torch.device("cuda:1")
STATE = torch.arange(16, dtype=torch.uint8)
SEEDED = [("enter", DEVICE), ("manual_seed", 7), ("leave", DEVICE)]
GOT, PUT = ("get_rng_state", DEVICE), ("set_rng_state", STATE, DEVICE)
Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Has torch.cuda note what it is asked for, on a machine of two devices."""
    noted: Calls = []

    def note(name: str, returned: Any = None) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            noted.append((name, *arguments))
            return returned

        return call

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        noted.append(("enter", device))
        yield
        noted.append(("leave", device))

    for name, returned in {
        "manual_seed": None, "set_device": None, "empty_cache": None, "synchronize": None,
        "get_rng_state": STATE, "set_rng_state": None, "reset_peak_memory_stats": None,
        "max_memory_allocated": 5, "device_count": 2, "is_available": True,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, note(name, returned))
    monkeypatch.setattr(torch.cuda, "device", current)
    return noted


def test_seeded_lends_the_generator_of_the_device(calls: Calls) -> None:
    with seeded(7, DEVICE):
        calls.append(("block",))
    assert calls == [GOT, *SEEDED, ("block",), PUT]


def test_the_environment_of_a_trial(calls: Calls) -> None:
    settings = TrialSettings(seed=7, device="cuda:1", threads=torch.get_num_threads())
    with torch_env.torch_environment(settings):
        calls.append(("block",))
    asked = [call for call in calls if call[0] != "device_count"]
    assert asked == [("enter", DEVICE), GOT, *SEEDED, ("block",), PUT, ("leave", DEVICE)]


def test_a_worker_is_set_up_for_its_device(calls: Calls) -> None:
    with torch_env.torch_environment(TrialSettings(threads=torch.get_num_threads())):
        calls.clear()
        torch_env.prepare(7, torch.get_num_threads(), "cuda:1")
    asked = [call for call in calls if call[0] != "device_count"]
    assert asked == [("set_device", DEVICE), *SEEDED]


def test_devices_by_name_and_number(calls: Calls) -> None:
    assert torch_env.resolve_device("auto") == "cuda:0"
    assert torch_env.resolve_device("cuda:1") == "cuda:1"
    assert torch_env.visible_devices() == ["cuda:0", "cuda:1"]
    with pytest.raises(ValueError, match="'cuda:2' is not on this machine, which has 2 CUDA"):
        torch_env.resolve_device("cuda:2")


def test_memory_is_given_back_on_its_device(calls: Calls) -> None:
    torch_env.free_memory("cuda:1")
    assert calls == [("enter", DEVICE), ("empty_cache",), ("leave", DEVICE)]


def test_peak_memory_is_the_allocators(calls: Calls) -> None:
    with PeakMemory("cuda:1") as peak:
        calls.append(("block",))
    assert peak.memory_bytes == 5
    assert calls == [
        ("reset_peak_memory_stats", DEVICE), ("block",), ("max_memory_allocated", DEVICE),
    ]  # fmt: skip


def test_a_clock_waits_for_the_device(calls: Calls) -> None:
    accelerator.synchronize(DEVICE)
    accelerator.synchronize(torch.device("cpu"))
    assert calls == [("synchronize", DEVICE)]


def test_a_checkpoint_holds_the_devices_generator(calls: Calls) -> None:
    state = random_state(DEVICE)
    assert state["random_gpu"] is STATE
    restore_random_state(state, DEVICE)
    assert calls == [GOT, PUT]


def test_looking_at_a_model_lends_the_generators_of_its_devices(calls: Calls) -> None:
    model: Any = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=DEVICE)] * 2))
    with rng_kept(model, seed=7):
        calls.append(("block",))
    assert calls == [GOT, *SEEDED, ("block",), PUT]
    calls.clear()
    with rng_kept(model):
        calls.append(("block",))
    assert calls == [GOT, ("block",), PUT]


def test_each_candidate_has_a_state_of_the_devices_generator(calls: Calls) -> None:
    states = RandomStates(DEVICE)
    states.append_current()
    with states.lent(0):
        calls.append(("block",))
    asked = [call[0] for call in calls]
    assert asked == [
        "get_rng_state", "get_rng_state", "set_rng_state", "block", "get_rng_state",
        "set_rng_state",
    ]  # fmt: skip
    assert all(DEVICE in call for call in calls if call[0] != "block")


def test_the_order_of_an_epoch_reaches_the_device_in_one_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[int] = []
    monkeypatch.setattr(
        examples, "moved", lambda ids, device: copied.append(len(ids)) or ids.to(device)
    )
    data = Examples(torch.zeros(20, 3), torch.zeros(20, dtype=torch.long))
    shapes = [tuple(x.shape) for x, _ in data.to("meta").batches(8, seed=0, shuffle=True)]
    assert shapes == [(8, 3), (8, 3), (4, 3)]
    assert copied == [20, 8, 8, 8, 8, 4, 4], "of the batches there is nothing left to copy"


def test_a_copy_to_a_device_comes_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    class Held(torch.Tensor):
        def pin_memory(self, *_: Any) -> Any:
            pinned.append(self)
            return self

        def to(self, device: Any, **options: Any) -> Any:
            assert options == {"non_blocking": True}
            return self

    ids = torch.arange(3).as_subclass(Held)
    assert accelerator.moved(ids, torch.device("cuda:0")) is ids
    assert accelerator.moved(ids, torch.device("cpu")) is ids
    assert len(pinned) == 1

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from evonas.execution import torch_env
from evonas.execution.torch_env import (
    free_memory,
    is_out_of_memory,
    kept_memory,
    torch_environment,
)
from evonas.execution.trial import TrialSettings


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # setenv and then delenv: so that what a test leaves in the variable goes away with it.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def draws() -> tuple[Any, ...]:
    drawn = random.random(), float(np.random.random()), float(torch.rand(1))  # noqa: NPY002
    return (*drawn, float(torch.nn.Linear(1, 1).weight.detach()))


def state() -> tuple[Any, ...]:
    _, numbers, *rest = np.random.get_state()  # noqa: NPY002
    return (
        random.getstate(),
        numbers.tobytes(),
        rest,
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


def test_a_trial_draws_by_its_seed_and_disturbs_nobody() -> None:
    settings = TrialSettings(seed=2**32 - 1, threads=1)
    before = state()
    with torch_environment(settings):
        first = draws()
    assert state() == before
    draws()
    with torch_environment(settings):
        assert draws() == first
    with torch_environment(TrialSettings(seed=1)):
        assert draws() != first


def test_threads_and_determinism_are_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    before = state()
    with torch_environment(TrialSettings(threads=1, deterministic=True)):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert state() == before
    with torch_environment(TrialSettings(threads=1)):
        assert not torch.are_deterministic_algorithms_enabled()
    assert state() == before


def test_state_is_put_back_when_the_trial_raises() -> None:
    torch.set_num_threads(2)
    before = state()

    def trial() -> None:
        with torch_environment(TrialSettings(seed=3, threads=1)):
            raise KeyError(draws())

    with pytest.raises(KeyError):
        trial()
    assert state() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrialSettings(device="gpu0"), "device must be like 'cpu' or 'cuda:0', got 'gpu0'"),
        (TrialSettings(device="cuda:99"), "'cuda:99' is not on this machine, which has"),
        (TrialSettings(threads=0), "threads must be at least 1, got 0"),
        (TrialSettings(seed=-1), r"seed must be in \[0, 2\*\*32\), got -1"),
        (TrialSettings(seed=2**32), r"seed must be in \[0, 2\*\*32\)"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_leave_no_trace(
    settings: TrialSettings, message: str
) -> None:
    before = state()
    with pytest.raises(ValueError, match=message), torch_environment(settings):
        pass
    assert state() == before


def test_prepare_sets_up_a_worker_for_good() -> None:
    # In a process of its own: it is not undone, and threads between operations are set once.
    program = """
import random, numpy, torch
from evonas.execution.torch_env import prepare
prepare(5, threads=1)
first = random.random(), numpy.random.random(), float(torch.rand(1))
prepare(5, threads=1, deterministic=True)
torch.rand(4).sum()
prepare(5, threads=2)  # too late for threads between operations: no error
assert first == (random.random(), numpy.random.random(), float(torch.rand(1)))
print(torch.get_num_threads(), torch.get_num_interop_threads())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["2", "1"]


def test_out_of_memory_is_recognised_wherever_it_comes_from() -> None:
    wrapped = ValueError("in a step")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    host = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA"),
        RuntimeError(host),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        wrapped,
    ):
        assert is_out_of_memory(error)
    for other in (RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyError("x")):
        assert not is_out_of_memory(other)


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    free_memory("cpu")


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="needs glibc 2.33 or newer, whose memory this is about",
)
def test_freed_memory_is_kept_in_a_trial_and_given_back_after_it() -> None:
    # In a process of its own: glibc moves a thread away from its heap once an allocation failed,
    # and another test may have made one fail.
    program = """
import ctypes, os, resource, torch
from evonas.execution.torch_env import kept_memory

class Info(ctypes.Structure):  # mallinfo2
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                     "uordblks", "fordblks", "keepcost")
    ]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info

def mapped():  # bytes that an allocation takes by a mapping of its own
    before = mallinfo2().hblkhd
    tensor = torch.ones(24 << 20)
    return mallinfo2().hblkhd - before

def faults():
    for _ in range(4):  # until the heap has found its size
        torch.ones(24 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(24 << 20)  # 96 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

outside = faults()
with kept_memory():
    inside, held = faults(), resident()
    mapped_inside = mapped()
given_back = held - resident()
print(outside, inside, given_back, faults(), mapped_inside, mapped())
"""
    tries = []
    for _ in range(4):  # where the system puts the heap is drawn: now and then it cannot shrink
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        outside, inside, given_back, after, *mapped = map(int, ended.stdout.split())
        tries.append([
            inside < outside / 10, given_back > 80 << 20, mapped[0] == 0,
            after > outside / 2, mapped[1] >= 96 << 20,
        ])  # fmt: skip
        assert all(tries[-1][:3])
        if all(tries[-1]):
            return
    raise AssertionError(tries)


def test_without_glibc_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_env.sys, "platform", "darwin")
    with kept_memory():
        assert torch.ones(2).sum() == 2


def test_importing_evonas_does_not_import_this() -> None:
    program = "import sys, evonas; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

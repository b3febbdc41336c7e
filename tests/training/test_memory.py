from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from evonas.training import PeakMemory
from evonas.training import memory as module

MB = 1 << 20
NO_CUDA = "no CUDA device here"


def peak_of(n_megabytes: int) -> int:
    with PeakMemory("cpu") as peak:
        held = torch.ones(n_megabytes * MB + 1, dtype=torch.uint8)  # written to, so resident
        assert held[-1] == 1
        del held
    return peak.memory_bytes


@pytest.mark.skipif(not module._CLEAR.exists(), reason="the peak cannot be reset here")
def test_each_block_has_a_peak_of_its_own() -> None:
    before = peak_of(0)
    much = peak_of(200)
    little = peak_of(20)
    assert before + 180 * MB < much < before + 300 * MB
    assert little < much - 150 * MB


def test_the_peak_counts_though_it_was_freed() -> None:
    with PeakMemory("cpu") as peak:
        torch.ones(100 * MB, dtype=torch.uint8).sum()
        assert peak.memory_bytes == 0  # known at the end
    assert peak.memory_bytes > 100 * MB


def test_the_peak_is_known_when_the_block_fails() -> None:
    peak = PeakMemory("cpu")
    with pytest.raises(RuntimeError, match="in the block"), peak:
        raise RuntimeError("in the block")
    assert peak.memory_bytes > MB


def test_where_the_system_cannot_reset_its_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is the whole process's, in kilobytes or (on macOS) in bytes."""
    monkeypatch.setattr(module, "_CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(module, "_STATUS", tmp_path / "status")
    usage = type("Usage", (), {"ru_maxrss": 5000})
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert peak_of(0) == 5000 * 1024
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert peak_of(0) == 5000
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    7000 kB\nVmRSS:\t 10 kB\n")
    assert peak_of(0) == 7000 * 1024


def test_a_sandbox_that_forbids_the_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert peak_of(0) > MB


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
def test_on_a_cuda_device_it_is_what_the_allocator_held() -> None:
    with PeakMemory("cuda") as much:
        torch.ones(64 * MB, dtype=torch.uint8, device="cuda")
    with PeakMemory("cuda") as little:
        torch.ones(2 * MB, dtype=torch.uint8, device="cuda")
    assert much.memory_bytes >= 64 * MB > little.memory_bytes >= 2 * MB

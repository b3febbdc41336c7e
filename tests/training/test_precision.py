from __future__ import annotations

import time
from typing import get_args

import pytest
import torch

from evonas.training import Precision, as_precision, autocast, choose_precision
from evonas.training import precision as module


def test_the_choice_is_a_precision_made_quickly_and_leaves_no_trace() -> None:
    rng, threads = torch.get_rng_state(), torch.get_num_threads()
    began = time.process_time()
    assert choose_precision("cpu", 2) in get_args(Precision)
    assert time.process_time() - began < 5  # 0.3 s here; room for a slow or loaded machine
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [(2.0, 1.0, "bfloat16"), (1.0, 2.0, "float32"), (1.05, 1.0, "float32")],
)
def test_the_choice_is_what_was_measured(
    float32: float, bfloat16: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    class Step:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __call__(self, precision: str) -> None:
            nonlocal now
            now += {"float32": float32, "bfloat16": bfloat16}[precision]

    monkeypatch.setattr(module, "_Step", Step)
    monkeypatch.setattr(module.time, "thread_time", lambda: now)
    assert choose_precision("cpu") == chosen
    # A GPU is measured likewise, by the clock, once its kernels have ended.
    waited = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    assert choose_precision("cuda:0") == chosen
    assert waited == [torch.device("cuda:0")] * 12


def test_autocast_computes_in_the_precision_it_names() -> None:
    x = torch.ones(2, 2)
    with autocast("bfloat16", "cpu"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast("float32", "cpu"):
        assert (x @ x).dtype == torch.float32


def test_devices_without_bfloat16_get_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with caplog.at_level("INFO"):
        assert choose_precision("cuda:0") == "float32"
    assert "cuda:0 has no bfloat16 (compute capability (7, 5)): float32" in caplog.messages
    assert choose_precision("mps") == "float32"
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        choose_precision("cpu", 0)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="'float32' or 'bfloat16', got 'float16'"):
        as_precision("float16")
    with pytest.raises(ValueError, match="got 'half'"):
        autocast("half", "cpu")

"""What a network costs."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

from evonas.training.cost import count_macs, count_params, macs_of_pass, measure_latency


def test_counts_by_hand() -> None:
    with torch.device("meta"):
        shared = nn.Linear(4, 4)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 8 kernels at 4x4 places
            nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 4), shared, shared,
        )  # fmt: skip
    assert count_macs(model, (3, 8, 8)) == 8 * 27 * 16 + 32 + 2 * 16
    assert count_params(model) == 8 * 27 + 16 + 36 + 20
    assert model.training
    assert next(model.parameters()).device.type == "meta"


class Sleeps(nn.Module):
    """Takes so many milliseconds, one by one; tells what it was given."""

    def __init__(self, milliseconds: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.milliseconds = milliseconds
        self.seen: list[Any] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((tuple(images.shape), self.training, torch.is_inference_mode_enabled()))
        time.sleep(self.milliseconds[min(len(self.seen), len(self.milliseconds)) - 1] / 1000)
        return images


def test_latency_is_the_median_after_warming_up() -> None:
    # Three passes to warm up; then one outlier among those that count.
    model = Sleeps([100, 100, 100, 200, 60])
    latency = measure_latency(model, (3, 4, 5), batch_size=2)
    assert 60 <= latency < 150
    assert set(model.seen) == {((2, 3, 4, 5), False, True)}
    assert 8 <= len(model.seen) <= 12  # until half a second has passed, but five at least
    assert model.training


def test_latency_of_a_fast_network_is_of_many_passes() -> None:
    model = Sleeps([0])
    assert measure_latency(model, (1, 2, 2)) < 5
    assert len(model.seen) == 53


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_latency_on_a_gpu_waits_for_it() -> None:
    model = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1) for _ in range(20)]).cuda()
    slow = measure_latency(model, (64, 128, 128), batch_size=16)
    assert slow > 5 * measure_latency(model, (64, 8, 8), batch_size=1) > 0


def test_attention_counts_on_a_cpu() -> None:
    """Two products of all pairs of tokens: torch leaves its fused attention of a CPU out."""

    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert macs_of_pass(Attention(), torch.randn(1, 2, 10, 8)) == 2 * (2 * 10 * 10 * 8)

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from evonas.training import seeded


def test_a_block_draws_what_its_seed_says() -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        with seeded(seed):
            torch.rand(3)
            return [nn.Linear(3, 3).weight, functional.dropout(torch.ones(50)), torch.randperm(20)]

    assert all(map(torch.equal, drawn(1), drawn(1)))
    assert not any(map(torch.equal, drawn(1), drawn(2)))


def test_the_seed_is_torchs_own() -> None:
    with seeded(11):
        ours = torch.rand(4)
    assert torch.equal(ours, torch.rand(4, generator=torch.Generator().manual_seed(11)))


def test_the_callers_generators_are_given_back() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    others = random.getstate()
    with seeded(1):
        torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert random.getstate() == others


def test_also_when_the_block_fails_and_when_blocks_are_nested() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), seeded(1):
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(1):
        first, second = torch.rand(1), torch.rand(1)
    with seeded(1):
        again = torch.rand(1)
        with seeded(2):
            torch.rand(1)
        assert torch.equal(torch.rand(1), second)
    assert torch.equal(again, first)


def test_no_device_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` would seed every CUDA device, at once or as soon as it starts."""

    def woken(*arguments: object) -> None:
        raise AssertionError("a CUDA device was touched")

    for name in ("manual_seed", "manual_seed_all", "get_rng_state"):
        monkeypatch.setattr(torch.cuda, name, woken)
    with seeded(1):
        torch.rand(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_cuda_device() -> None:
    torch.cuda.manual_seed(3)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(3)
    drawn = []
    for _ in range(2):
        with seeded(1, "cuda:0"):
            drawn.append((torch.rand(3), torch.rand(3, device="cuda")))
    assert all(map(torch.equal, *drawn))
    assert torch.equal(torch.rand(3, device="cuda"), expected)

"""Torch's global random generator, lent to one training and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evonas.execution.accelerator import generator_state, seed_generator, set_generator_state

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seeds torch's generators of the CPU and of `device` for a block; restores them after it.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(2)
        >>> with seeded(0):
        ...     print(torch.equal(first, torch.rand(2)))
        True
    """
    device = torch.device(device)
    devices = {torch.device("cpu"), device}
    before = {each: generator_state(each) for each in devices}
    try:
        for each in devices:
            seed_generator(seed, each)
        yield
    finally:
        for each, state in before.items():
            set_generator_state(state, each)

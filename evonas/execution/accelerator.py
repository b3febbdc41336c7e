"""What differs between the kinds of GPU: NVIDIA's and AMD's (`cuda`), and Apple's (`mps`)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "accelerators",
    "generator_state",
    "is_accelerator",
    "release_memory",
    "seed_generator",
    "set_generator_state",
    "synchronize",
]


def accelerators() -> list[str]:
    """Returns the names of every GPU that torch sees."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return found or (["mps"] if torch.backends.mps.is_available() else [])


def is_accelerator(device: torch.device) -> bool:
    """Whether a device is one of the kinds that this module knows."""
    return device.type in ("cuda", "mps")


def generator_state(device: torch.device) -> Tensor:
    """Returns the state of the device's global generator; of the CPU's for any other kind."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def set_generator_state(state: Tensor, device: torch.device) -> None:
    """Puts the global generator of a device into a state that `generator_state` returned."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def seed_generator(seed: int, device: torch.device) -> None:
    """Seeds the global generator of one device, and no other's as `torch.manual_seed` does."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory(device: torch.device) -> None:
    """Gives memory that no tensor uses back to other processes; does nothing on a CPU."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()

"""What differs between the kinds of GPU: NVIDIA's and AMD's (`cuda`), and Apple's (`mps`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evonas.arguments import check_one_of

__all__ = [
    "accelerators",
    "as_device",
    "generator_state",
    "is_accelerator",
    "moved",
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


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the CPU on a device, without waiting for what the device does meanwhile.

    A copy from memory that is not pinned waits for all that the device was given before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_device(device: Any) -> torch.device:
    """Returns a device by its name.

    Raises:
        TypeError, ValueError: It is no device's name.
    """
    check_one_of("device", device, (str, torch.device), "a device's name, like 'cpu' or 'cuda:0'")
    try:
        return torch.device(device)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"device must be a device's name, got {device!r} ({first})") from None

"""Torch's settings for a whole process, each with how to read and how to set it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

__all__ = ["process_settings"]

_DENORMAL = torch.tensor(1e-310, dtype=torch.float64, device="cpu")


def process_settings() -> dict[str, tuple[Any, Callable[[], Any], Callable[[Any], None]]]:
    """Returns torch's settings for a whole process: default, reader and writer, by name.

    Values are JSON. Not among them is what each trial gets anyhow: seeds, threads, determinism.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    attributes = {
        "cudnn.enabled": (True, cudnn, "enabled"),
        "cudnn.benchmark": (False, cudnn, "benchmark"),
        "cudnn.deterministic": (False, cudnn, "deterministic"),
        "cudnn.allow_tf32": (True, cudnn, "allow_tf32"),
        "mkldnn.enabled": (True, mkldnn, "enabled"),
        "matmul.allow_fp16_reduced_precision_reduction": (
            True, cuda.matmul, "allow_fp16_reduced_precision_reduction",
        ),
        "matmul.allow_bf16_reduced_precision_reduction": (
            True, cuda.matmul, "allow_bf16_reduced_precision_reduction",
        ),
    }  # fmt: skip
    functions: dict[str, tuple[Any, Callable[[], Any], Callable[[Any], Any]]] = {
        "default_dtype": (
            "float32",
            lambda: str(torch.get_default_dtype()).removeprefix("torch."),
            lambda name: torch.set_default_dtype(getattr(torch, name)),
        ),
        "default_device": (
            "cpu",
            lambda: str(torch.get_default_device()),
            # None, not "cpu": a default device slows every call down.
            lambda name: torch.set_default_device(None if name == "cpu" else name),
        ),
        "float32_matmul_precision": (
            "highest", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision,
        ),
        "grad_enabled": (True, torch.is_grad_enabled, torch.set_grad_enabled),
        "autocast.cpu": (None, partial(_autocast, "cpu"), partial(_set_autocast, "cpu")),
        "autocast.cuda": (None, partial(_autocast, "cuda"), partial(_set_autocast, "cuda")),
        "flush_denormal": (False, _flushes_denormals, torch.set_flush_denormal),
        "sdp.flash": (True, cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
        "sdp.mem_efficient": (True, cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
        "sdp.math": (True, cuda.math_sdp_enabled, cuda.enable_math_sdp),
        "sdp.cudnn": (True, cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    }  # fmt: skip
    return functions | {
        name: (default, partial(getattr, owner, word), partial(setattr, owner, word))
        for name, (default, owner, word) in attributes.items()
        if hasattr(owner, word)  # a torch of another version may not have it
    }


def _autocast(device: str) -> str | None:
    if not torch.is_autocast_enabled(device):
        return None
    return str(torch.get_autocast_dtype(device)).removeprefix("torch.")


def _set_autocast(device: str, dtype: str | None) -> None:
    torch.set_autocast_enabled(device, dtype is not None)
    if dtype is not None:
        torch.set_autocast_dtype(device, getattr(torch, dtype))


def _flushes_denormals() -> bool:
    return float(_DENORMAL * 1.0) == 0.0

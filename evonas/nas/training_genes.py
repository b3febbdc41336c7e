"""The genes that say how a network is trained, shared by our spaces, and values to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from evonas.space.gene import Gene
from evonas.space.genes import Float

__all__ = ["GOOD_TRAINING", "training_genes"]

GOOD_TRAINING: Mapping[str, Any] = MappingProxyType(
    {
        "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "dropout": 0.0, "label_smoothing": 0.1,
    }
)  # fmt: skip
"""With which a hand-made network is trained, in batches of 128 and one cycle of the rate."""


def training_genes() -> dict[str, Gene]:
    """Returns the genes by name: rate, momentum, weight decay, dropout, label smoothing."""
    return {
        "lr": Float(3e-3, 0.5, log=True),
        "momentum": Float(0.8, 0.98),
        "weight_decay": Float(1e-5, 1e-2, log=True),
        "dropout": Float(0.0, 0.5),
        "label_smoothing": Float(0.0, 0.2),
    }

"""Our space of residual networks for small images: stages of blocks, each of half the side.

Its first point is a network that one writes down by hand: a search begins with it, and has to find
something better.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from evonas.nas.branches import Residual, SqueezeExcite
from evonas.nas.layers import (
    Activation,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
)
from evonas.nas.network import Network
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Integer
from evonas.space.repeat import Repeat

__all__ = ["hand_made_resnet", "resnet_network", "resnet_space"]

_IN_SHAPE = (3, 32, 32)  # what the limit of the cost is made for; other sides are valid too
_MAX_MACS = 80_000_000


def resnet_space(max_macs: int = _MAX_MACS) -> SearchSpace:
    """Returns the space: one to four stages of up to three residual blocks.

    Args:
        max_macs: Most multiply-adds of an image of 3x32x32.

    Example:
        >>> space = resnet_space()
        >>> space.violated(hand_made_resnet())
        []
    """
    return SearchSpace(
        {
            "stem": Categorical([16, 24, 32, 48, 64]),
            "stage": Repeat(
                1, 4,
                {"width": Categorical([16, 24, 32, 48, 64, 96, 128, 192, 256, 384]),
                 "depth": Integer(0, 3)},
            ),
            "kernel": Categorical([3, 5]),
            "activation": Categorical(["relu", "leaky_relu", "silu", "gelu"]),
            "squeeze_excite": Boolean(),
            "pool": Categorical(["max", "avg"]),
            "lr": Float(3e-3, 0.5, log=True),
            "momentum": Float(0.8, 0.98),
            "weight_decay": Float(1e-5, 1e-2, log=True),
            "dropout": Float(0.0, 0.5),
            "label_smoothing": Float(0.0, 0.2),
        },
        constraints={
            f"at most {max_macs:,} multiply-adds": partial(_is_affordable, max_macs),
        },
    )  # fmt: skip


def hand_made_resnet() -> Genes:
    """Returns the point that one would write down: three stages of 64, 128 and 256 channels."""
    widths: Sequence[int] = (64, 128, 256)
    stages = {
        f"stage{place}_{name}": value
        for place, width in enumerate(widths, 1)
        for name, value in (("width", width), ("depth", 1))
    }
    return {
        "stem": 32, "n_stage": len(widths), **stages, "kernel": 3, "activation": "gelu",
        "squeeze_excite": False, "pool": "max", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4,
        "dropout": 0.0, "label_smoothing": 0.1,
    }  # fmt: skip


def resnet_network(genes: Genes, n_classes: int) -> Network:
    """Returns the network of a point: a stem, the stages, a global pooling and one linear layer."""
    activation = Activation(genes["activation"])
    features = [*_conv(genes["stem"], 3), activation]
    for stage in Repeat.each(genes, "stage"):
        features += [*_conv(stage["width"], genes["kernel"], stride=2), activation]
        for _ in range(stage["depth"]):
            body = [
                *_conv(stage["width"], genes["kernel"]), activation,
                *_conv(stage["width"], genes["kernel"]),
            ]  # fmt: skip
            if genes["squeeze_excite"]:
                body.append(SqueezeExcite())
            features += [Residual(tuple(body)), activation]
    pool = AdaptiveMaxPool2d if genes["pool"] == "max" else AdaptiveAvgPool2d
    classifier = (Flatten(), Dropout(), Linear(n_classes))
    return Network((*features, pool(1)), classifier)


def _conv(filters: int, kernel: int, stride: int = 1) -> list[Layer]:
    return [Conv2d(filters, kernel, stride, kernel // 2, bias=False), BatchNorm2d()]


def _is_affordable(max_macs: int, genes: Genes) -> bool:
    return resnet_network(genes, 10).macs(_IN_SHAPE) <= max_macs

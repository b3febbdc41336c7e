"""Our space of residual networks: stages of blocks, each stage of its own width, depth and stride.

Its first point is a network that one writes down by hand, made narrower where a limit asks for it:
a search begins with it, and has to find something better.
"""

from __future__ import annotations

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
    GroupNorm,
    Layer,
    Linear,
    MaxPool2d,
    Shape,
)
from evonas.nas.limits import IN_SHAPE, MAX_MACS, limits, widest_within
from evonas.nas.network import Network
from evonas.nas.training_genes import GOOD_TRAINING, training_genes
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Integer
from evonas.space.repeat import Repeat

__all__ = ["hand_made_resnet", "resnet_network", "resnet_space"]

_STEP = 4  # widths are multiples of it, and so are the groups of a group norm
_WIDTHS = (32, 64, 128, 256)  # of the hand-made network: its stem and its stages


def resnet_space(
    max_macs: int | None = MAX_MACS, max_params: int | None = None, in_shape: Shape = IN_SHAPE
) -> SearchSpace:
    """Returns the space: one to four stages of up to three residual blocks.

    Args:
        max_macs: Most multiply-adds of an image.
        max_params: Most weights.
        in_shape: Of the image `(C, H, W)` that they are counted for.

    Raises:
        ValueError: A limit is below 1.

    Example:
        >>> space = resnet_space(max_params=50_000)
        >>> space.violated(hand_made_resnet(max_params=50_000))
        []
    """
    return SearchSpace(
        {
            "stem": Integer(_STEP, 64, step=_STEP, log=True),
            "stage": Repeat(
                1, 4,
                {"width": Integer(_STEP, 384, step=_STEP, log=True),
                 "depth": Integer(0, 3),
                 "stride": Categorical([1, 2])},
            ),
            "downsample": Categorical(["stride", "max_pool"]),
            "kernel": Categorical([3, 5]),
            "activation": Categorical(["relu", "leaky_relu", "silu", "gelu"]),
            "norm": Categorical(["batch", "group"]),
            "squeeze_excite": Boolean(),
            "pool": Categorical(["max", "avg"]),
            **training_genes(),
        },
        constraints=limits(resnet_network, max_macs, max_params, in_shape),
    )  # fmt: skip


def hand_made_resnet(
    max_macs: int | None = None, max_params: int | None = None, in_shape: Shape = IN_SHAPE
) -> Genes:
    """Returns the point that one would write down: three stages of 64, 128 and 256 channels.

    Without limits, maxima of windows take the place of strides, and the second stage has no
    residual block, as in the ResNet-9 of Page (2018). With limits, each stage has one, and all
    widths are a share of these, the greatest that is within them; where weights alone are limited,
    maxima take the place of strides too, which costs none.

    Raises:
        ValueError: A limit is below 1, or too small for the narrowest network.
    """
    few_weights = max_params is not None and max_macs is None
    is_free = max_params is None and max_macs is None
    scaled = partial(_scaled, few_weights=few_weights, is_free=is_free)
    return widest_within(scaled, limits(resnet_network, max_macs, max_params, in_shape))


def resnet_network(genes: Genes, n_classes: int) -> Network:
    """Returns the network of a point: a stem, the stages, a global pooling and one linear layer."""
    activation = Activation(genes["activation"])
    norm = BatchNorm2d() if genes["norm"] == "batch" else GroupNorm(_STEP)
    kernel = genes["kernel"]

    def conv(width: int, size: int = kernel, stride: int = 1) -> list[Layer]:
        pools = stride > 1 and genes["downsample"] == "max_pool"
        layer = Conv2d(width, size, 1 if pools else stride, size // 2, bias=False)
        return [layer, *([MaxPool2d(stride)] if pools else []), norm]

    features = [*conv(genes["stem"], 3), activation]
    for stage in Repeat.each(genes, "stage"):
        width = stage["width"]
        features += [*conv(width, stride=stage["stride"]), activation]
        for _ in range(stage["depth"]):
            body = [*conv(width), activation, *conv(width)]
            if genes["squeeze_excite"]:
                body.append(SqueezeExcite())
            features += [Residual(tuple(body)), activation]
    pool = AdaptiveMaxPool2d if genes["pool"] == "max" else AdaptiveAvgPool2d
    classifier = (Flatten(), Dropout(), Linear(n_classes))
    return Network((*features, pool(1)), classifier)


def _scaled(factor: float, *, few_weights: bool, is_free: bool) -> Genes:
    stem, *widths = (max(_STEP, int(width * factor) // _STEP * _STEP) for width in _WIDTHS)
    stages = {
        f"stage{place}_{name}": value
        for place, width in enumerate(widths, 1)
        for name, value in (("width", width), ("depth", 1), ("stride", 2))
    }
    if is_free:
        stages["stage2_depth"] = 0
    return {
        "stem": stem, "n_stage": len(widths), **stages,
        "downsample": "max_pool" if few_weights or is_free else "stride",
        "kernel": 3, "activation": "gelu", "norm": "batch", "squeeze_excite": False,
        "pool": "avg" if few_weights else "max",
        **GOOD_TRAINING,
    }  # fmt: skip

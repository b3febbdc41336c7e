"""Our space of residual networks: stages of blocks, each stage of its own width, depth and stride.

Its first point is a network that one writes down by hand, made narrower where a limit asks for it:
a search begins with it, and has to find something better.
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
_FLAT_WIDTHS = (44, 44, 66, 99)
"""Of the one for a limit of weights: layers at the beginning have few of them, and take as long
with 4 channels as with 16. With 50,000 weights 0.8178 of held-out CIFAR-10 after 450 s on one core,
where the widths above, made narrower, have 0.8044 (n = 1)."""


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
    widths are a share of these, the greatest that is within them. Where weights are limited (to
    fewer than 390,000) widths grow by half from stage to stage; where nothing else is, maxima take
    the place of strides too, which costs none.

    Raises:
        ValueError: A limit is below 1, or too small for the narrowest network.
    """
    within = limits(resnet_network, max_macs, max_params, in_shape)
    if max_params is not None:
        flat = partial(_scaled, _FLAT_WIDTHS, pools=max_macs is None, pool="avg")
        if not all(is_within(flat(1.0)) for is_within in within.values()):
            return widest_within(flat, within)
    is_free = not within
    return widest_within(partial(_scaled, _WIDTHS, pools=is_free, is_free=is_free), within)


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


def _scaled(
    full: Sequence[int], factor: float, *, pools: bool, pool: str = "max", is_free: bool = False
) -> Genes:
    stem, *widths = (max(_STEP, round(width * factor / _STEP) * _STEP) for width in full)
    stages = {
        f"stage{place}_{name}": value
        for place, width in enumerate(widths, 1)
        for name, value in (("width", width), ("depth", 1), ("stride", 2))
    }
    if is_free:
        stages["stage2_depth"] = 0
    return {
        "stem": stem, "n_stage": len(widths), **stages,
        "downsample": "max_pool" if pools else "stride",
        "kernel": 3, "activation": "gelu", "norm": "batch", "squeeze_excite": False, "pool": pool,
        **GOOD_TRAINING,
    }  # fmt: skip

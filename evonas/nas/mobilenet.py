"""Our space of inverted residuals (Sandler et al. 2018): wide within a block, narrow between them.

Depthwise convolutions have few weights and multiply-adds: a space for tight limits.
"""

from __future__ import annotations

from evonas.nas.branches import Residual, SqueezeExcite
from evonas.nas.layers import (
    Activation,
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Shape,
)
from evonas.nas.limits import IN_SHAPE, MAX_MACS, limits, widest_within
from evonas.nas.network import Network
from evonas.nas.training_genes import GOOD_TRAINING, training_genes
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Integer
from evonas.space.repeat import Repeat

__all__ = ["hand_made_mobilenet", "mobilenet_network", "mobilenet_space"]

_STEP = 4  # widths are multiples of it
_STEM, _STAGES = 32, ((32, 1, 1), (48, 2, 2), (96, 2, 2), (192, 2, 2))  # width, depth, stride


def mobilenet_space(
    max_macs: int | None = MAX_MACS, max_params: int | None = None, in_shape: Shape = IN_SHAPE
) -> SearchSpace:
    """Returns the space: two to five stages of up to four inverted residuals.

    Args:
        max_macs: Most multiply-adds of an image.
        max_params: Most weights.
        in_shape: Of the image `(C, H, W)` that they are counted for.

    Raises:
        ValueError: A limit is below 1.

    Example:
        >>> space = mobilenet_space(max_params=50_000)
        >>> space.violated(hand_made_mobilenet(max_params=50_000))
        []
    """
    return SearchSpace(
        {
            "stem": Integer(_STEP, 64, step=_STEP, log=True),
            "stage": Repeat(
                2, 5,
                {"width": Integer(_STEP, 320, step=_STEP, log=True),
                 "depth": Integer(1, 4),
                 "stride": Categorical([1, 2])},
            ),
            "expand": Categorical([1, 2, 3, 4, 6]),
            "kernel": Categorical([3, 5]),
            "activation": Categorical(["relu", "leaky_relu", "silu", "gelu"]),
            "squeeze_excite": Boolean(),
            **training_genes(),
        },
        constraints=limits(mobilenet_network, max_macs, max_params, in_shape),
    )  # fmt: skip


def hand_made_mobilenet(
    max_macs: int | None = None, max_params: int | None = None, in_shape: Shape = IN_SHAPE
) -> Genes:
    """Returns the point that one would write down: four stages of up to 192 channels.

    Raises:
        ValueError: A limit is below 1, or too small for the narrowest network.
    """
    return widest_within(_scaled, limits(mobilenet_network, max_macs, max_params, in_shape))


def mobilenet_network(genes: Genes, n_classes: int) -> Network:
    """Returns the network of a point: a stem, the stages, a mean over all pixels, one layer."""
    activation = Activation(genes["activation"])
    width = genes["stem"]
    features: list[Layer] = [*_conv(width, 3), activation]
    for stage in Repeat.each(genes, "stage"):
        for place in range(stage["depth"]):
            stride = stage["stride"] if place == 0 else 1
            inner = width * genes["expand"]
            body: list[Layer] = []
            if genes["expand"] > 1:
                body += [*_conv(inner, 1), activation]
            body += [*_conv(inner, genes["kernel"], stride, inner), activation]
            if genes["squeeze_excite"]:
                body.append(SqueezeExcite())
            body += _conv(stage["width"], 1)
            same = stride == 1 and stage["width"] == width
            features += [Residual(tuple(body))] if same else body
            width = stage["width"]
    return Network((*features, AdaptiveAvgPool2d(1)), (Flatten(), Dropout(), Linear(n_classes)))


def _conv(filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Layer]:
    conv = Conv2d(filters, kernel, stride, kernel // 2, bias=False, groups=groups)
    return [conv, BatchNorm2d()]


def _scaled(factor: float) -> Genes:
    def narrow(width: int) -> int:
        return max(_STEP, int(width * factor) // _STEP * _STEP)

    stages = {
        f"stage{place}_{name}": value
        for place, (width, depth, stride) in enumerate(_STAGES, 1)
        for name, value in (("width", narrow(width)), ("depth", depth), ("stride", stride))
    }
    return {
        "stem": narrow(_STEM), "n_stage": len(_STAGES), **stages, "expand": 3, "kernel": 3,
        "activation": "silu", "squeeze_excite": False, **GOOD_TRAINING,
    }  # fmt: skip

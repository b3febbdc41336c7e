"""The cells of NAS-Bench-201 (Dong and Yang 2020): one cell of four nodes, stacked in three stages.

Each of the six edges of a cell holds one of five operations: 15,625 cells, of which some are the
same network (`Graph` finds that out).
"""

from __future__ import annotations

from evonas.exceptions import InvalidPoint
from evonas.nas.branches import Residual
from evonas.nas.graph import Edge, Graph
from evonas.nas.layers import (
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
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
from evonas.space.genes import Categorical, Integer

__all__ = ["cell_network", "cell_space", "hand_made_cell"]

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avg_pool")
_STEP = 4


def cell_space(
    max_macs: int | None = MAX_MACS, max_params: int | None = None, in_shape: Shape = IN_SHAPE
) -> SearchSpace:
    """Returns the space: the cell, the width of the first stage, and cells a stage.

    Args:
        max_macs: Most multiply-adds of an image.
        max_params: Most weights.
        in_shape: Of the image `(C, H, W)` that they are counted for.

    Raises:
        ValueError: A limit is below 1.

    Example:
        >>> cell_space().violated(hand_made_cell())
        []
    """
    return SearchSpace(
        {
            **{f"edge{a}{b}": Categorical(OPERATIONS) for a, b in EDGES},
            "width": Integer(_STEP, 64, step=_STEP, log=True),
            "cells": Integer(1, 5),
            **training_genes(),
        },
        constraints=limits(cell_network, max_macs, max_params, in_shape),
    )


def hand_made_cell(
    max_macs: int | None = None, max_params: int | None = None, in_shape: Shape = IN_SHAPE
) -> Genes:
    """Returns the cell that is a residual block, 32 channels wide or as wide as the limits allow.

    Raises:
        ValueError: A limit is below 1, or too small for the narrowest network.
    """

    def scaled(factor: float) -> Genes:
        operations = {"edge01": "conv3x3", "edge13": "conv3x3", "edge03": "skip"}
        return {
            **{f"edge{a}{b}": operations.get(f"edge{a}{b}", "none") for a, b in EDGES},
            "width": max(_STEP, int(32 * factor) // _STEP * _STEP), "cells": 1, **GOOD_TRAINING,
        }  # fmt: skip

    return widest_within(scaled, limits(cell_network, max_macs, max_params, in_shape))


def cell_network(genes: Genes, n_classes: int) -> Network:
    """Returns the network of a point: a stem, three stages of cells, a residual block between.

    Raises:
        InvalidPoint: From its shapes: no path leads through the cell.
    """
    width = genes["width"]
    features: list[Layer] = [Conv2d(width, 3, padding=1, bias=False), BatchNorm2d()]
    for stage in range(3):
        if stage:
            width *= 2
            features.append(Residual((*_conv(width, 3, 2), *_conv(width, 3))))
        features += [_cell(genes, width)] * genes["cells"]
    features += [BatchNorm2d(), Activation("relu"), AdaptiveAvgPool2d(1)]
    return Network(tuple(features), (Flatten(), Dropout(), Linear(n_classes)))


def _cell(genes: Genes, width: int) -> Graph:
    layers: dict[str, tuple[Layer, ...]] = {
        "skip": (),
        "conv1x1": _conv(width, 1),
        "conv3x3": _conv(width, 3),
        "avg_pool": (AvgPool2d(3, 1, 1),),
    }
    edges: list[Edge] = [
        (a, b, layers[genes[f"edge{a}{b}"]]) for a, b in EDGES if genes[f"edge{a}{b}"] != "none"
    ]
    if not any(b == EDGES[-1][1] for _, b, _ in edges):
        raise InvalidPoint("no edge leads to the output of the cell")
    return Graph(tuple(edges))


def _conv(width: int, kernel: int, stride: int = 1) -> tuple[Layer, ...]:
    conv = Conv2d(width, kernel, stride, kernel // 2, bias=False)
    return Activation("relu"), conv, BatchNorm2d()

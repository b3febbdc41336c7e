"""Layers: what they infer is what torch does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evonas.exceptions import InvalidPoint
from evonas.nas.layers import (
    Activation,
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Call,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Ref,
)

CASES: list[tuple[Layer, tuple[int, ...]]] = [
    (Conv2d(8, 3), (3, 9, 7)),
    (Conv2d(8, 11, 4, 2), (3, 32, 32)),
    (Conv2d(8, 5, 3, 1, bias=False), (4, 17, 16)),
    (BatchNorm2d(), (6, 5, 5)),
    (Activation("relu"), (6, 5, 5)),
    (Activation("leaky_relu"), (6, 5, 5)),
    (Activation("silu"), (7,)),
    (Activation("gelu"), (7,)),
    (MaxPool2d(2), (3, 7, 6)),
    (MaxPool2d(3), (3, 7, 6)),
    (AdaptiveAvgPool2d(6), (3, 2, 5)),
    (Flatten(), (3, 4, 5)),
    (Flatten(), (9,)),
    (Dropout(0.25), (9,)),
    (Linear(5), (9,)),
]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda value: str(value))
def test_shapes_are_those_of_torch(layer: Layer, shape: tuple[int, ...]) -> None:
    module = layer.call(shape).make({})
    module.eval()
    images = torch.zeros(2, *shape)
    assert tuple(module(images).shape[1:]) == layer.out_shape(shape)


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda value: str(value))
def test_code_makes_the_module_that_make_makes(layer: Layer, shape: tuple[int, ...]) -> None:
    call = layer.call(shape)
    assert repr(eval(call.code, {"nn": nn})) == repr(call.make({}))


def test_multiply_adds_by_hand() -> None:
    # 8 filters of 3x3x3 at 32x32 places; 9 weights into each of 5 neurons.
    assert Conv2d(8, 3, padding=1).macs((3, 32, 32)) == 8 * 27 * 1024
    assert Conv2d(8, 3, 2, padding=1).macs((3, 32, 32)) == 8 * 27 * 256
    assert Linear(5).macs((9,)) == 45
    assert MaxPool2d(2).macs((3, 8, 8)) == 0


def test_references_are_printed_and_looked_up() -> None:
    call = Call("Linear", (Ref("in_shape", 1), Ref("out_shape", 0)))
    assert call.code == "nn.Linear(in_shape[1], out_shape[0])"
    made = call.make({"in_shape": (1, 6), "out_shape": (4,)})
    assert (made.in_features, made.out_features) == (6, 4)
    assert Dropout().call((3,)).code == 'nn.Dropout(prm["dropout"])'
    assert Dropout().call((3,)).make({"prm": {"dropout": 0.3}}).p == 0.3


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv2d(8, 7), (3, 5, 9), "a 7x7 kernel with padding 0 does not fit into 5x9"),
        (Conv2d(8, 3), (12,), r"needs an image \(channels, height, width\), got shape \(12,\)"),
        (MaxPool2d(2), (3, 1, 4), "a 2x2 window does not fit into 1x4"),
        (BatchNorm2d(), (3,), "needs an image"),
        (Linear(4), (3, 2, 2), r"needs a vector \(put Flatten\(\) before it\)"),
    ],
)
def test_what_cannot_be_taken_is_said(layer: Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidPoint, match=message):
        layer.out_shape(shape)


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match="must be one of relu, leaky_relu, silu, gelu, got 'tan'"):
        Activation("tan")

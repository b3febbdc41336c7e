"""Networks: shape inference and building."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch

from evonas.exceptions import InvalidPoint
from evonas.nas import FAMILIES, Network, build, infer_shapes
from evonas.nas.layers import Activation, Conv2d, Dropout, Flatten, Linear, MaxPool2d
from evonas.training.cost import count_macs

IMAGE = (3, 32, 32)


def test_the_failing_layer_is_named_with_shapes() -> None:
    layers = [Conv2d(8, 9, 4, 2), MaxPool2d(2), MaxPool2d(2), MaxPool2d(2)]
    with pytest.raises(InvalidPoint) as caught:
        infer_shapes(layers, IMAGE)
    message = str(caught.value)
    assert "layer 3, MaxPool2d(kernel_size=2), cannot take its input (8, 1, 1)" in message
    assert "a 2x2 window does not fit into 1x1 (the image is (3, 32, 32))" in message


def test_networks_begin_with_a_convolution_and_end_in_a_linear() -> None:
    with pytest.raises(ValueError, match="a Conv2d or a TextEncoder, got Activation"):
        Network((Activation(),), (Flatten(), Linear(2)))
    with pytest.raises(ValueError, match="a Conv2d or a TextEncoder, got no layer"):
        Network((), (Flatten(), Linear(2)))
    with pytest.raises(ValueError, match=r"must end in Linear\(n_classes\), got Flatten"):
        Network((Conv2d(2, 3),), (Flatten(),))


@pytest.mark.parametrize("name", FAMILIES)
def test_inferred_shapes_and_multiply_adds_are_those_of_the_module(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(1)
    for _ in range(2 if name == "alexnet" else 12):
        network = family.network(_valid_point(name, rng), 7)
        with torch.device("meta"):  # shapes without memory or arithmetic
            module = build(network, IMAGE, prm={"dropout": 0.5})
            found = _shapes_of(module, torch.zeros(2, *IMAGE))
        assert found == network.shapes(IMAGE)
        assert network.macs(IMAGE) == count_macs(module, IMAGE)
        assert found[-1] == (7,)


def test_a_hyperparameter_that_is_missing_is_named() -> None:
    network = Network((Conv2d(2, 3),), (Flatten(), Dropout(), Linear(2)))
    assert network.uses("dropout")
    assert not Network((Conv2d(2, 3),), (Flatten(), Dropout(0.1), Linear(2))).uses("dropout")
    with pytest.raises(KeyError, match="dropout"):
        build(network, (1, 8, 8))


def test_shapes_need_no_torch() -> None:
    code = (
        "import sys; from evonas.nas import FAMILIES, generate_source; import random\n"
        "family = FAMILIES['alexnet-small']; genes = family.space().sample(random.Random(0))\n"
        "network = family.network(genes, 10); network.shapes((3, 32, 32))\n"
        "generate_source(network, (3, 32, 32), genes=genes)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _valid_point(name: str, rng: random.Random) -> dict[str, object]:
    family = FAMILIES[name]
    space = family.space()
    while True:
        genes = space.sample(rng)
        try:
            family.network(genes, 10).shapes(IMAGE)
        except InvalidPoint:
            continue
        return genes


def _shapes_of(module: torch.nn.Module, images: torch.Tensor) -> list[tuple[int, ...]]:
    shapes = []
    for part in module.children():
        for layer in part.children():
            images = layer(images)
            shapes.append(tuple(images.shape[1:]))
    return shapes

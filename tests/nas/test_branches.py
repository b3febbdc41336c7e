"""Networks with branches: what is inferred is what torch does, in module and source alike."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from evonas.exceptions import InvalidPoint
from evonas.nas import FAMILIES, generate_source
from evonas.nas.branches import Parallel, Residual, SqueezeExcite
from evonas.nas.described import description, from_description
from evonas.nas.graph import Graph
from evonas.nas.layers import (
    Activation,
    AdaptiveMaxPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
)
from evonas.nas.network import Network, build
from evonas.nas.resnet import hand_made_resnet, resnet_network, resnet_space
from evonas.training import seeded
from evonas.training.cost import count_macs, count_params

IMAGE = (8, 12, 10)


def conv(filters: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(filters, kernel, stride, kernel // 2, groups=groups)


BODIES: list[tuple[Layer, ...]] = [
    (conv(8), BatchNorm2d()),
    (conv(16), Activation("relu"), conv(16)),
    (conv(8, stride=2), conv(8)),
    (conv(24, 5, 2), SqueezeExcite(4), Activation("silu"), conv(24, groups=24)),
    (MaxPool2d(2),),
    (conv(8), Residual((conv(8), Activation("gelu"), conv(8)))),
    (conv(12, stride=2), Residual((conv(20, stride=2), BatchNorm2d()))),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: f"{len(body)} layers")
def test_a_sum_has_the_shape_and_cost_that_torch_gives_it(body: tuple[Layer, ...]) -> None:
    layer = Residual(body)
    module = layer.call(IMAGE).make({})
    shape = layer.out_shape(IMAGE)
    assert tuple(module(torch.randn(2, *IMAGE)).shape) == (2, *shape)
    assert layer.macs(IMAGE) == count_macs(module, IMAGE)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ((Conv2d(8, 3, padding=2),), r"do not add up: \(8, 12, 10\) becomes \(8, 14, 12\)"),
        ((Conv2d(8, 3),), r"do not add up: the body makes \(8, 10, 8\)"),
        ((conv(8), AdaptiveMaxPool2d(5)), "do not add up: the body makes"),
        ((Flatten(),), "needs an image"),
        ((conv(9, groups=2),), "2 groups divide neither 8 nor 9 channels evenly"),
        ((Conv2d(8, 15),), "15x15 kernel"),
    ],
)
def test_branches_that_do_not_add_up_are_invalid(body: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(InvalidPoint, match=message):
        Residual(body).out_shape(IMAGE)


BRANCHES: list[tuple[tuple[Layer, ...], ...]] = [
    ((conv(4, 1),), (conv(6), BatchNorm2d())),
    ((conv(4, 1),), (), (conv(6, 5), Activation("gelu"), conv(3))),
    ((conv(4, stride=2),), (MaxPool2d(2),), (Residual((conv(5, stride=2),)),)),
]


@pytest.mark.parametrize("branches", BRANCHES, ids=lambda branches: f"{len(branches)} branches")
def test_parallel_branches_are_put_together(branches: tuple[tuple[Layer, ...], ...]) -> None:
    layer = Parallel(branches)
    module = layer.call(IMAGE).make({})
    assert tuple(module(torch.randn(2, *IMAGE)).shape) == (2, *layer.out_shape(IMAGE))
    assert layer.macs(IMAGE) == count_macs(module, IMAGE)

    def source(layer: Layer) -> str:
        head = (AdaptiveMaxPool2d(1), Flatten(), Linear(3))
        return generate_source(Network((conv(8), layer), head), (3, 12, 10))

    swapped = Parallel(branches[::-1])
    assert source(swapped) == source(layer), "in another order they are the same network"
    scope: dict[str, Any] = {}
    exec(source(layer), scope)
    net = scope["Net"]((1, 3, 12, 10), (3,), {"lr": 0.1, "momentum": 0.9}, "cpu")
    assert tuple(net(torch.randn(2, 3, 12, 10)).shape) == (2, 3)


def test_branches_of_other_sides_do_not_fit_together() -> None:
    with pytest.raises(InvalidPoint, match=r"do not fit together: their shapes are \[\(4, 12, 10"):
        Parallel(((conv(4),), (conv(4, stride=2),))).out_shape(IMAGE)
    with pytest.raises(ValueError, match="two branches or more"):
        Parallel(((conv(4),),))


def test_an_empty_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="must have layers"):
        Residual(())


def valid_points(name: str, n: int) -> Iterator[tuple[dict[str, Any], Network]]:
    """Random points that have a shape, with their networks."""
    family, rng = FAMILIES[name], random.Random(0)
    space = family.space()
    while n:
        genes = space.sample(rng)
        with suppress(InvalidPoint):
            network = family.network(genes, 10)
            network.shapes((3, 32, 32))
            n -= 1
            yield genes, network


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "alexnet"])
@pytest.mark.parametrize("n", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_module_source_and_description_are_one_network(name: str, n: int) -> None:
    """The same names, the same weights under one seed, the same outputs, the same costs."""
    images = torch.randn(2, 3, 32, 32)
    for genes, network in valid_points(name, n):
        prm = {"lr": 0.1, "momentum": 0.9, "dropout": 0.25}
        scope: dict[str, Any] = {}
        exec(generate_source(network, (3, 32, 32), genes=genes), scope)
        with seeded(3):
            built = build(network, (3, 32, 32), prm=prm).eval()
        with seeded(3):
            written = scope["Net"]((2, 3, 32, 32), (10,), prm, "cpu").eval()
        with seeded(3):
            text = json.dumps(description(network, (3, 32, 32), prm))
            described = from_description(json.loads(text)).eval()
        with torch.inference_mode():
            wanted = built(images)
            assert torch.equal(written(images), wanted)
            assert torch.equal(described(images), wanted)
        assert list(written.state_dict()) == list(built.state_dict())
        assert network.macs((3, 32, 32)) == count_macs(built, (3, 32, 32))
        assert network.params((3, 32, 32)) == count_params(built)


@pytest.mark.parametrize("first", [Activation("relu"), Activation("silu")])
def test_a_branch_leaves_what_the_others_get_as_it_is(first: Activation) -> None:
    images = torch.randn(2, *IMAGE)
    wanted = images + getattr(nn.functional, first.name)(images)
    for layer in (Residual((first,)), Graph(((0, 1, ()), (0, 1, (first,))))):
        assert torch.equal(layer.call(IMAGE).make({})(images.clone()), wanted)
    both = Parallel(((first,), ())).call(IMAGE).make({})(images.clone())
    assert any(torch.equal(part, images) for part in both.split(8, 1))


def test_the_source_is_plain_and_imports_torch_alone() -> None:
    network = resnet_network({**hand_made_resnet(), "squeeze_excite": True}, 10)
    source = generate_source(network, (3, 32, 32))
    imports = [line for line in source.splitlines() if "import" in line]
    assert imports == ["import torch", "from torch import nn"]
    assert source.count("class Residual(nn.Module):") == 1
    assert source.count("class SqueezeExcite(nn.Module):") == 1
    assert "type: ignore" not in source
    assert "->" not in source
    plain = generate_source(FAMILIES["alexnet-small"].network(
        FAMILIES["alexnet-small"].space().sample(random.Random(0)), 10), (3, 32, 32))  # fmt: skip
    assert "Residual" not in plain


def test_a_dropout_within_a_sum_is_a_hyperparameter() -> None:
    network = Network(
        (conv(8), Residual((Dropout(), conv(8)))), (AdaptiveMaxPool2d(1), Flatten(), Linear(4))
    )
    assert network.uses("dropout")
    assert '"dropout"' in generate_source(network, (3, 8, 8)).partition("class")[0]


def test_the_hand_made_point_is_in_the_space() -> None:
    space = resnet_space()
    genes = hand_made_resnet()
    assert space.validate(genes) == genes
    assert space.violated(genes) == []
    assert space.violated({**genes, "stage1_width": 384}) == ["at most 120,000,000 multiply-adds"]
    module = build(resnet_network(genes, 10), (3, 32, 32), prm={"dropout": 0.0})
    assert sum(isinstance(part, nn.Conv2d) for part in module.modules()) == 8

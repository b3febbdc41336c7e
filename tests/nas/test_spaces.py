"""The three spaces: how many points, which of them build, what they cost."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evonas.exceptions import InvalidPoint
from evonas.nas import FAMILIES, alexnet_network, alexnet_space, plain_network
from evonas.space.genes import Categorical

IMAGE = (3, 32, 32)
PUBLISHED = {
    "conv1_filters": [32, 64, 96],
    "conv1_kernel": [7, 9, 11],
    "conv1_stride": [3, 4],
    "conv2_filters": [128, 192, 256],
    "conv2_kernel": [3, 5],
    "conv3_filters": [256, 384, 440],
    "conv4_filters": [256, 384],
    "conv5_filters": [192, 256],
    "fc1_neurons": [2048, 3072, 4096],
    "fc2_neurons": [2048, 3072, 4096],
    "lr": [0.001, 0.005, 0.01],
    "momentum": [0.85, 0.9, 0.95],
    "dropout": [0.4, 0.5, 0.6],
}


def _is_valid(genes: dict[str, object]) -> bool:
    try:
        alexnet_network(genes, 10).shapes(IMAGE)
    except InvalidPoint:
        return False
    return True


def test_the_published_space() -> None:
    space = alexnet_space()
    assert {name: list(gene.all_values()) for name, gene in space.items()} == PUBLISHED
    assert space.cardinality == 314_928


def test_one_sixth_of_the_published_space_has_no_valid_shape() -> None:
    # Only kernels and stride change the size of a map; the other genes stay at their first value.
    first = {name: values[0] for name, values in PUBLISHED.items()}
    sizes = ("conv1_kernel", "conv1_stride", "conv2_kernel")
    points = [
        dict(zip(sizes, values, strict=True))
        for values in itertools.product(*(PUBLISHED[name] for name in sizes))
    ]
    invalid = [point for point in points if not _is_valid({**first, **point})]
    assert len(invalid) * 6 == len(points)
    assert all(
        (point["conv1_kernel"], point["conv1_stride"], point["conv2_kernel"])
        in {(9, 4, 5), (11, 4, 5)}
        for point in invalid
    )


@pytest.mark.slow
def test_every_point_of_the_published_space() -> None:
    invalid = sum(not _is_valid(genes) for genes in alexnet_space().enumerate())
    assert invalid == 314_928 // 6


def test_the_published_network() -> None:
    genes = {name: values[0] for name, values in PUBLISHED.items()}
    assert [str(layer) for layer in alexnet_network(genes, 10).layers] == [
        "Conv2d(filters=32, kernel_size=7, stride=3, padding=2, bias=True, groups=1)",
        "Activation(name='relu')",
        "MaxPool2d(kernel_size=2)",
        "Conv2d(filters=128, kernel_size=3, stride=1, padding=2, bias=True, groups=1)",
        "Activation(name='relu')",
        "MaxPool2d(kernel_size=2)",
        "Conv2d(filters=256, kernel_size=3, stride=1, padding=1, bias=True, groups=1)",
        "Activation(name='relu')",
        "Conv2d(filters=256, kernel_size=3, stride=1, padding=1, bias=True, groups=1)",
        "Activation(name='relu')",
        "Conv2d(filters=192, kernel_size=3, stride=1, padding=1, bias=True, groups=1)",
        "Activation(name='relu')",
        "MaxPool2d(kernel_size=2)",
        "AdaptiveAvgPool2d(size=6)",
        "Flatten()",
        "Dropout(p=Ref(name='prm', index='dropout'))",
        "Linear(neurons=2048)",
        "Activation(name='relu')",
        "Dropout(p=Ref(name='prm', index='dropout'))",
        "Linear(neurons=2048)",
        "Activation(name='relu')",
        "Linear(neurons=10)",
    ]


@pytest.mark.parametrize(("name", "most"), [("alexnet-cifar", 80e6), ("alexnet-small", 6.5e6)])
@given(seed=st.integers(0, 2**32))
def test_every_sampled_point_of_ours_builds_at_a_bounded_cost(
    name: str, most: float, seed: int
) -> None:
    genes = FAMILIES[name].space().sample(random.Random(seed))
    network = plain_network(genes, 10)
    shapes = network.shapes(IMAGE)
    assert network.macs(IMAGE) <= most
    # Up to the head, which may average up: the last convolution's map has two rows or more.
    assert shapes[len(network.features) - 2][1] >= 2
    assert [name for name in genes if name.endswith("_filters")] == [
        f"conv{place}_filters" for place in range(1, genes["n_conv"] + 1)
    ]
    assert sum(name.startswith("fc") for name in genes) == genes["n_fc"]


@pytest.mark.parametrize("name", ["alexnet-cifar", "alexnet-small"])
def test_our_spaces_are_continuous_and_of_every_depth(name: str) -> None:
    space, rng = FAMILIES[name].space(), random.Random(0)
    assert math.isinf(space.cardinality)
    assert {space.sample(rng)["n_conv"] for _ in range(200)} == {2, 3, 4, 5, 6}
    assert isinstance(space["conv1_kernel"], Categorical)

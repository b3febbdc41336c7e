"""The published search space: AlexNet's widths, kernels and training settings on CIFAR-10."""

from __future__ import annotations

from evonas.nas.layers import (
    Activation,
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
)
from evonas.nas.network import Network
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Categorical

__all__ = ["alexnet_network", "alexnet_space"]


def alexnet_space() -> SearchSpace:
    """Returns the published space: 314,928 points.

    One sixth of them has no valid shape at 32x32 (`conv1_kernel` 9 or 11 with `conv1_stride` 4
    and `conv2_kernel` 5): the search finds those by shape inference and proposes others.

    Source: the `ga-alexnet` job of the LEMUR nn-dataset project.

    Example:
        >>> alexnet_space().cardinality
        314928
    """
    return SearchSpace(
        {
            "conv1_filters": Categorical([32, 64, 96]),
            "conv1_kernel": Categorical([7, 9, 11]),
            "conv1_stride": Categorical([3, 4]),
            "conv2_filters": Categorical([128, 192, 256]),
            "conv2_kernel": Categorical([3, 5]),
            "conv3_filters": Categorical([256, 384, 440]),
            "conv4_filters": Categorical([256, 384]),
            "conv5_filters": Categorical([192, 256]),
            "fc1_neurons": Categorical([2048, 3072, 4096]),
            "fc2_neurons": Categorical([2048, 3072, 4096]),
            "lr": Categorical([0.001, 0.005, 0.01]),
            "momentum": Categorical([0.85, 0.9, 0.95]),
            "dropout": Categorical([0.4, 0.5, 0.6]),
        }
    )


def alexnet_network(genes: Genes, n_classes: int) -> Network:
    """Returns the network of one point of `alexnet_space`."""
    relu, pool = Activation("relu"), MaxPool2d(2)
    return Network(
        features=(
            Conv2d(genes["conv1_filters"], genes["conv1_kernel"], genes["conv1_stride"], padding=2),
            relu,
            pool,
            Conv2d(genes["conv2_filters"], genes["conv2_kernel"], padding=2),
            relu,
            pool,
            Conv2d(genes["conv3_filters"], 3, padding=1),
            relu,
            Conv2d(genes["conv4_filters"], 3, padding=1),
            relu,
            Conv2d(genes["conv5_filters"], 3, padding=1),
            relu,
            pool,
            AdaptiveAvgPool2d(6),
        ),
        classifier=(
            Flatten(),
            Dropout(),
            Linear(genes["fc1_neurons"]),
            relu,
            Dropout(),
            Linear(genes["fc2_neurons"]),
            relu,
            Linear(n_classes),
        ),
    )

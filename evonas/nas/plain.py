"""Our search spaces for 32x32 images: plain convolutional networks of varying depth.

Both spaces have the same genes and build the same kind of network; they differ in width and in
the cost that they allow. What they add to AlexNet is what makes a short training on small images
work: small kernels that keep the map's size, pooling where the search puts it, batch norm, a
small head instead of two fully connected layers of thousands, and continuous learning rate,
momentum, weight decay, dropout and label smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from evonas.nas.layers import (
    Activation,
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
)
from evonas.nas.network import Network
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Gene, Integer

__all__ = ["alexnet_cifar_space", "alexnet_small_space", "plain_network"]

_IN_SHAPE = (3, 32, 32)  # what both spaces are made for; smaller images may be invalid
_MAX_CONV = 6
_MIN_SIDE = 2  # of the map before the head: below it, convolutions see mostly padding


@dataclass(frozen=True, slots=True)
class _Widths:
    filters: Sequence[Sequence[int]]
    kernels: Sequence[Sequence[int]]
    neurons: Sequence[int]
    max_macs: int


_CIFAR = _Widths(
    filters=(
        (16, 24, 32, 48, 64, 96),
        (32, 48, 64, 96, 128, 192),
        (64, 96, 128, 192, 256),
        (64, 96, 128, 192, 256, 384),
        (64, 96, 128, 192, 256, 384),
        (64, 96, 128, 192, 256, 384),
    ),
    kernels=((3, 5, 7), (3, 5), (3, 5), (3, 5), (3,), (3,)),
    neurons=(64, 128, 256, 512, 1024),
    # The published AlexNets cost 29 to 90 million, so these are no dearer to train.
    max_macs=80_000_000,
)
_SMALL = _Widths(
    filters=((8, 12, 16, 24, 32), (12, 16, 24, 32, 48), (16, 24, 32, 48, 64))
    + ((16, 24, 32, 48, 64, 96),) * 3,
    kernels=((3, 5, 7), (3, 5), (3, 5), (3,), (3,), (3,)),
    neurons=(32, 64, 128, 256),
    max_macs=6_500_000,
)


def alexnet_cifar_space() -> SearchSpace:
    """Returns the space made to find better networks for 32x32 images.

    Two to six convolutions of 16 to 384 filters, up to 80 million multiply-adds an image.
    """
    return _space(_CIFAR)


def alexnet_small_space() -> SearchSpace:
    """Returns the same idea for a CPU.

    Two to six convolutions of 8 to 96 filters, up to 6.5 million multiply-adds an image.
    """
    return _space(_SMALL)


def plain_network(genes: Genes, n_classes: int) -> Network:
    """Returns the network of one point of either space."""
    features: list[Layer] = []
    for place in range(1, genes["n_conv"] + 1):
        kernel = genes.get(f"conv{place}_kernel", 3)
        stride = genes["conv1_stride"] if place == 1 else 1
        features.append(
            Conv2d(
                genes[f"conv{place}_filters"],
                kernel,
                stride,
                padding=kernel // 2,
                bias=not genes["batch_norm"],
            )
        )
        if genes["batch_norm"]:
            features.append(BatchNorm2d())
        features.append(Activation(genes["activation"]))
        if genes[f"conv{place}_pool"]:
            features.append(MaxPool2d(2))
    features.append(AdaptiveAvgPool2d(genes["head_side"]))

    classifier: list[Layer] = [Flatten()]
    for place in range(1, genes["n_fc"] + 1):
        classifier += [
            Dropout(),
            Linear(genes[f"fc{place}_neurons"]),
            Activation(genes["activation"]),
        ]
    classifier += [Dropout(), Linear(n_classes)]
    return Network(tuple(features), tuple(classifier))


def _space(widths: _Widths) -> SearchSpace:
    genes: dict[str, Gene] = {"n_conv": Integer(2, _MAX_CONV)}
    conditions: dict[str, Mapping[str, Sequence[int]]] = {}
    for place in range(1, _MAX_CONV + 1):
        added: dict[str, Gene] = {
            f"conv{place}_filters": Categorical(list(widths.filters[place - 1]))
        }
        if len(widths.kernels[place - 1]) > 1:
            added[f"conv{place}_kernel"] = Categorical(list(widths.kernels[place - 1]))
        if place == 1:
            added["conv1_stride"] = Categorical([1, 2])
        added[f"conv{place}_pool"] = Boolean()
        genes |= added
        if place > 2:
            for name in added:
                conditions[name] = {"n_conv": list(range(place, _MAX_CONV + 1))}
    genes |= {
        "batch_norm": Boolean(),
        "activation": Categorical(["relu", "leaky_relu", "silu", "gelu"]),
        "head_side": Categorical([1, 2, 4]),
        "n_fc": Integer(0, 2),
        "fc1_neurons": Categorical(list(widths.neurons)),
        "fc2_neurons": Categorical(list(widths.neurons)),
        "lr": Float(3e-3, 0.3, log=True),
        "momentum": Float(0.8, 0.98),
        "weight_decay": Float(1e-5, 1e-2, log=True),
        "dropout": Float(0.0, 0.5),
        "label_smoothing": Float(0.0, 0.2),
    }
    conditions["fc1_neurons"] = {"n_fc": [1, 2]}
    conditions["fc2_neurons"] = {"n_fc": [2]}
    return SearchSpace(
        genes,
        conditions=conditions,
        constraints={
            f"map of at least {_MIN_SIDE}x{_MIN_SIDE} before the head": _keeps_a_map,
            f"at most {widths.max_macs:,} multiply-adds": partial(_is_affordable, widths.max_macs),
        },
    )


def _keeps_a_map(genes: Genes) -> bool:
    pools = sum(bool(genes[f"conv{place}_pool"]) for place in range(1, genes["n_conv"] + 1))
    side: int = -(-_IN_SHAPE[1] // genes["conv1_stride"])
    return side >> pools >= _MIN_SIDE


def _is_affordable(max_macs: int, genes: Genes) -> bool:
    # Asked after the map's size (constraints are checked in order), so the shapes exist.
    return _keeps_a_map(genes) and plain_network(genes, 10).macs(_IN_SHAPE) <= max_macs

"""The search spaces by name, each with the function that builds its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from evonas.nas.alexnet import alexnet_network, alexnet_space
from evonas.nas.cell import cell_network, cell_space, hand_made_cell
from evonas.nas.mobilenet import hand_made_mobilenet, mobilenet_network, mobilenet_space
from evonas.nas.network import Network
from evonas.nas.plain import alexnet_cifar_space, alexnet_small_space, plain_network
from evonas.nas.resnet import hand_made_resnet, resnet_network, resnet_space
from evonas.records import Genes
from evonas.space import SearchSpace

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """A search space and what its points build.

    Attributes:
        space: Makes the space; one that has a `start` takes `max_macs`, `max_params` and
            `in_shape`, of the images that they are counted for.
        network: `(genes, n_classes)` to a network.
        start: Makes a point that a person would write down, for the first population, with the
            same arguments; None: there is none.
    """

    space: Callable[..., SearchSpace]
    network: Callable[[Genes, int], Network]
    start: Callable[..., Genes] | None = None


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "alexnet": Family(alexnet_space, alexnet_network),
        "alexnet-cifar": Family(alexnet_cifar_space, plain_network),
        "alexnet-small": Family(alexnet_small_space, plain_network),
        "resnet": Family(resnet_space, resnet_network, hand_made_resnet),
        "mobilenet": Family(mobilenet_space, mobilenet_network, hand_made_mobilenet),
        "cell": Family(cell_space, cell_network, hand_made_cell),
    }
)

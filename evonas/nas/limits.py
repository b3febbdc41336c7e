"""What a network of a space may cost: constraints, and the widest hand-made network within them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from evonas.arguments import check_int
from evonas.exceptions import InvalidPoint
from evonas.nas.layers import Shape
from evonas.nas.network import Network
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Integer

__all__ = ["IN_SHAPE", "MAX_MACS", "N_CLASSES", "limits", "widest_within", "widths_within"]

_FINER, _N_MULTIPLES = 0.96, 120  # multiples from the greatest to a hundredth of it

IN_SHAPE: Shape = (3, 32, 32)
"""Of the images that limits are counted for, where nothing else is said."""

MAX_MACS = 120_000_000
"""What our spaces allow where nothing else is said: an epoch of CIFAR-10 in minutes on a CPU."""

N_CLASSES = 10
"""Of the network that is counted: one linear layer more or less."""


def limits(
    network: Callable[[Genes, int], Network],
    max_macs: int | None,
    max_params: int | None,
    in_shape: Shape = IN_SHAPE,
) -> dict[str, Callable[[Genes], bool]]:
    """Returns the constraints of a space whose networks are limited, by name.

    Args:
        network: `(genes, n_classes)` to a network.
        max_macs: Most multiply-adds of an image; None: any.
        max_params: Most weights; None: any.
        in_shape: Of the image `(C, H, W)`.

    Raises:
        ValueError: A limit is below 1.
    """
    found: dict[str, Callable[[Genes], bool]] = {}
    for argument, what, most, cost in (
        ("max_macs", "multiply-adds", max_macs, Network.macs),
        ("max_params", "weights", max_params, Network.params),
    ):
        if most is not None:
            check_int(argument, most, minimum=1)
            found[f"at most {most:,} {what}"] = partial(_is_within, most, cost, network, in_shape)
    return found


def widest_within(
    scaled: Callable[[float], Genes], constraints: Mapping[str, Callable[[Genes], bool]]
) -> Genes:
    """Returns the point of the greatest share in (0, 1] of its widths that the limits allow.

    Args:
        scaled: The share to the genes.
        constraints: From `limits`.

    Raises:
        ValueError: They allow not even the narrowest.
    """
    for percent in range(100, 0, -1):
        genes = scaled(percent / 100)
        if all(is_within(genes) for is_within in constraints.values()):
            return genes
    raise ValueError(
        f"the limits ({', '.join(constraints)}) are too small for the narrowest hand-made network"
    )


def widths_within(space: SearchSpace, genes: Genes, *, most: float = 1.0) -> Genes | None:
    """Returns the point whose widths are the greatest multiple of those of `genes` in the limits.

    The proportions stay, as far as steps and ends of the genes allow.

    Args:
        space: Its constraints are the limits; widths are its `Integer` genes `stem` and `…width`.
        genes: A point, within the limits or not.
        most: The greatest multiple.

    Returns:
        None where the narrowest network is not within the limits.
    """
    widths = {
        name: gene
        for name, gene in space.items()
        if isinstance(gene, Integer) and name.endswith(("stem", "width")) and name in genes
    }
    for power in range(_N_MULTIPLES):
        share = most * _FINER**power
        found = {**genes, **{name: _nearest(gene, share * genes[name])
                             for name, gene in widths.items()}}  # fmt: skip
        if not space.violated(found):
            return found
    return None


def _nearest(gene: Integer, value: float) -> int:
    steps = round((min(max(value, gene.low), gene.high) - gene.low) / gene.step)
    return min(gene.low + steps * gene.step, gene.high)


def _is_within(
    most: int,
    cost: Callable[[Network, Shape], int],
    network: Callable[[Genes, int], Network],
    in_shape: Shape,
    genes: Genes,
) -> bool:
    try:
        return cost(network(genes, N_CLASSES), in_shape) <= most
    except InvalidPoint:
        return True  # found and said by the problem, for the images that it has

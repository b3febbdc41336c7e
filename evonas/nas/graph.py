"""A graph of layers: nodes that are sums of what their edges bring, as cells are described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from evonas.exceptions import InvalidPoint
from evonas.nas.branches import branch_calls
from evonas.nas.layers import Call, Layer, Shape

__all__ = ["Edge", "Graph"]

Edge = tuple[int, int, tuple[Layer, ...]]
"""From a node, to a later one, through these layers; `()` passes on what the node is."""

_MOST_RELABELLED = 5  # nodes between input and output: their orders are tried one by one


@dataclass(frozen=True, slots=True)
class Graph(Layer):
    """Nodes from 0, the input, to the output; each is the sum of what its edges bring.

    Edges that no path from input to output takes are left out, and the nodes between may have any
    numbers: graphs that differ in nothing else are one (up to five nodes between).

    Args:
        edges: `(source, target, layers)`, each source less than its target.

    Raises:
        ValueError: There are no edges, or one goes backwards.

    Example:
        >>> from evonas.nas.layers import Conv2d
        >>> conv = (Conv2d(8, 3, padding=1),)
        >>> graph = Graph(((0, 1, conv), (0, 2, ()), (1, 3, ()), (2, 3, conv)))
        >>> graph == Graph(((0, 2, conv), (0, 1, ()), (2, 3, ()), (1, 3, conv)))
        False
        >>> graph.call((8, 6, 6)) == Graph(
        ...     ((0, 2, conv), (0, 1, ()), (2, 3, ()), (1, 3, conv))
        ... ).call((8, 6, 6))
        True
        >>> graph.out_shape((8, 6, 6))
        (8, 6, 6)
    """

    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        if not self.edges:
            raise ValueError("a Graph must have edges, got none")
        for source, target, _ in self.edges:
            if not 0 <= source < target:
                raise ValueError(f"an edge must lead to a later node, got {source} to {target}")

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers of all edges."""
        return tuple(layer for _, _, layers in self.edges for layer in layers)

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the last node.

        Raises:
            InvalidPoint: No path leads to it, a layer cannot take its input, or what the edges of
                a node bring does not add up.
        """
        return self._shapes(self._used(), shape)[self._last]

    def call(self, shape: Shape) -> Call:
        """Returns `Graph([sources], [targets], nn.Sequential(…), …)`, in canonical order."""
        edges = self._used()
        shapes = self._shapes(edges, shape)
        made = [(source, target, _call(layers, shapes[source])) for source, target, layers in edges]
        between = sorted({target for _, target, _ in made} - {self._last})
        orders = permutations(between) if len(between) <= _MOST_RELABELLED else [tuple(between)]
        relabelled = (_relabelled(made, order, self._last) for order in orders)
        best = min((found for found in relabelled if found), key=_code)
        sources, targets, calls = zip(*best, strict=True)
        return Call("Graph", (list(sources), list(targets), *calls))

    def macs(self, shape: Shape) -> int:
        """Returns those of all edges that are used."""
        return self._total("macs", shape)

    def params(self, shape: Shape) -> int:
        """Returns those of all edges that are used."""
        return self._total("params", shape)

    @property
    def _last(self) -> int:
        return max(target for _, target, _ in self.edges)

    def _used(self) -> list[Edge]:
        """Returns the edges on paths from the first to the last node, by target."""
        reached, wanted = {0}, {self._last}
        edges = sorted(self.edges, key=lambda edge: edge[:2])
        for source, target, _ in sorted(edges, key=lambda edge: edge[0]):
            if source in reached:
                reached.add(target)
        for source, target, _ in sorted(edges, key=lambda edge: -edge[1]):
            if target in wanted:
                wanted.add(source)
        used = [edge for edge in edges if edge[0] in reached and edge[1] in wanted]
        if self._last not in reached:
            raise InvalidPoint("no path leads from the input to the output of the graph")
        return sorted(used, key=lambda edge: (edge[1], edge[0]))

    def _shapes(self, edges: Sequence[Edge], shape: Shape) -> dict[int, Shape]:
        shapes = {0: shape}
        for source, target, layers in edges:
            found = shapes[source]
            for layer in layers:
                found = layer.out_shape(found)
            if shapes.setdefault(target, found) != found:
                raise InvalidPoint(
                    f"the branches do not add up: node {target} gets {shapes[target]} and {found}"
                )
        return shapes

    def _total(self, what: str, shape: Shape) -> int:
        edges = self._used()
        shapes, total = self._shapes(edges, shape), 0
        for source, _, layers in edges:
            before = shapes[source]
            for layer in layers:
                total += getattr(layer, what)(before)
                before = layer.out_shape(before)
        return total


MadeEdge = tuple[int, int, Call]


def _call(layers: tuple[Layer, ...], shape: Shape) -> Call:
    calls = branch_calls(layers, shape)
    return Call("Sequential", calls) if calls else Call("Identity")


def _relabelled(
    edges: Sequence[MadeEdge], order: Sequence[int], last: int
) -> list[MadeEdge] | None:
    """Returns the edges, the nodes between numbered from 1 in this order; None if one goes back."""
    number = {0: 0, **{node: place for place, node in enumerate(order, 1)}, last: len(order) + 1}
    found = [(number[source], number[target], call) for source, target, call in edges]
    if any(source >= target for source, target, _ in found):
        return None
    return sorted(found, key=lambda edge: (edge[1], edge[0], edge[2].code))


def _code(edges: Sequence[MadeEdge]) -> list[tuple[int, int, str]]:
    return [(target, source, call.code) for source, target, call in edges]

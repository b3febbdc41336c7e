"""Graphs of layers: the sums of their nodes, and one key for what is one network."""

from __future__ import annotations

import random

import pytest
import torch

from evonas.exceptions import InvalidPoint
from evonas.nas import generate_source
from evonas.nas.branches import SqueezeExcite
from evonas.nas.cell import EDGES, OPERATIONS, cell_network, hand_made_cell
from evonas.nas.graph import Edge, Graph
from evonas.nas.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Flatten,
    GroupNorm,
    Layer,
    Linear,
    MaxPool2d,
)
from evonas.nas.network import Network
from evonas.training.cost import count_macs, count_params

IMAGE = (8, 6, 6)
PARTS: list[tuple[Layer, ...]] = [
    (),
    (Conv2d(8, 3, padding=1),),
    (Conv2d(8, 1, bias=False), GroupNorm(4)),
    (AvgPool2d(3, 1, 1), SqueezeExcite(2)),
]


def source(graph: Graph) -> str:
    head = (AdaptiveAvgPool2d(1), Flatten(), Linear(3))
    return generate_source(Network((Conv2d(8, 3, padding=1), graph), head), (3, 6, 6))


def random_edges(rng: random.Random, n_between: int) -> list[Edge]:
    """Edges of a graph that has a path from its input to its output."""
    last = n_between + 1
    pairs = [(a, b) for b in range(1, last + 1) for a in range(b)]
    chosen = [pair for pair in pairs if rng.random() < 0.5] + [(0, last)]
    return [(a, b, rng.choice(PARTS)) for a, b in dict.fromkeys(chosen)]


def renumbered(edges: list[Edge], rng: random.Random, n_between: int) -> list[Edge] | None:
    """The same graph with its nodes renumbered and its edges shuffled; None: an edge goes back."""
    between = list(range(1, n_between + 1))
    rng.shuffle(between)
    number = [0, *between, n_between + 1]
    found = [(number[a], number[b], layers) for a, b, layers in edges]
    rng.shuffle(found)
    return found if all(a < b for a, b, _ in found) else None


def test_fifty_pairs_of_isomorphic_graphs_have_one_source() -> None:
    rng = random.Random(0)
    pairs = 0
    while pairs < 50:
        n_between = rng.randint(1, 4)
        edges = random_edges(rng, n_between)
        same = renumbered(edges, rng, n_between)
        if same is None or same == edges:
            continue
        pairs += 1
        assert source(Graph(tuple(same))) == source(Graph(tuple(edges)))


def test_an_unused_branch_does_not_count() -> None:
    conv = PARTS[1]
    used: tuple[Edge, ...] = ((0, 1, conv), (1, 4, conv))
    unused: tuple[Edge, ...] = ((0, 2, conv), (3, 4, conv))  # to nowhere, from nowhere
    assert source(Graph(used + unused)) == source(Graph(used))
    assert Graph(used + unused).params(IMAGE) == Graph(used).params(IMAGE)
    assert source(Graph(((0, 1, conv), (1, 4, ())))) != source(Graph(used))


def test_a_node_is_the_sum_of_what_its_edges_bring() -> None:
    conv, norm = PARTS[1], PARTS[2]
    graph = Graph(((0, 1, conv), (0, 2, ()), (1, 2, norm), (2, 3, conv), (0, 3, ())))
    module = graph.call(IMAGE).make({})
    assert list(zip(module.sources, module.targets, strict=True)) == [
        (0, 1), (0, 2), (1, 2), (0, 3), (2, 3),
    ]  # fmt: skip
    first, _, second, _, third = module.edges
    x = torch.randn(2, *IMAGE)
    assert torch.equal(module(x), x + third(x + second(first(x))))
    assert graph.out_shape(IMAGE) == IMAGE
    assert graph.params(IMAGE) == count_params(module)
    assert graph.macs(IMAGE) == count_macs(module, IMAGE)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (((0, 1, ()), (0, 1, (MaxPool2d(2),))), r"node 1 gets \(8, 6, 6\) and \(8, 3, 3\)"),
        (((0, 1, ()), (2, 3, ())), "no path leads from the input to the output"),
        (((0, 1, (Conv2d(8, 9),)),), "9x9 kernel"),
        (((0, 1, (GroupNorm(3),)),), "groups of 3 do not divide 8 channels"),
        (((0, 1, (AvgPool2d(7),)),), "7x7 window does not fit into 6x6"),
    ],
)
def test_a_graph_that_is_no_network_is_invalid(edges: tuple[Edge, ...], message: str) -> None:
    with pytest.raises(InvalidPoint, match=message):
        Graph(edges).out_shape(IMAGE)


def test_wrong_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="must have edges"):
        Graph(())
    with pytest.raises(ValueError, match="must lead to a later node, got 2 to 1"):
        Graph(((2, 1, ()),))


def test_the_mean_of_a_window_leaves_out_what_is_beyond_the_image() -> None:
    module = AvgPool2d(3, 1, 1).call(IMAGE).make({})
    assert torch.equal(module(torch.ones(1, *IMAGE)), torch.ones(1, *IMAGE))


def test_the_cells_of_the_benchmark() -> None:
    """Those without a path are invalid, and fewer sources than cells are left."""
    rng = random.Random(0)
    start = hand_made_cell()
    n_valid, sources = 0, set()
    for _ in range(300):
        genes = {**start, "width": 8, **{f"edge{a}{b}": rng.choice(OPERATIONS) for a, b in EDGES}}
        reached = {0}
        for a, b in EDGES:
            if a in reached and genes[f"edge{a}{b}"] != "none":
                reached.add(b)
        try:
            network = cell_network(genes, 10)
            network.shapes((3, 32, 32))
        except InvalidPoint:
            assert 3 not in reached
            continue
        assert 3 in reached
        n_valid += 1
        sources.add(generate_source(network, (3, 32, 32)))
    assert 0.7 * n_valid < len(sources) < n_valid

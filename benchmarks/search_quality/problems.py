"""The problems: a table of trained networks, and three of other shapes, renumbered by seed."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

import evonas as en
from benchmarks.search_quality.cells import EDGES, OPERATIONS, cells_table
from benchmarks.search_quality.digits import digits_table
from benchmarks.search_quality.instance import Genes, Instance, renumbered
from benchmarks.search_quality.lcbench import TASKS, curve, lcbench_space, reach

__all__ = ["PROBLEMS", "cells", "digits", "layers", "lcbench", "macro", "mixed"]

MACRO_FILE = "nas-bench-macro_cifar10.json"
_N_GRID = 65  # places of a number at which the exact optimum of `mixed` is sought


# -- NAS-Bench-Macro ---------------------------------------------------------------------------


@cache
def _macro_table() -> dict[str, tuple[float, float]]:
    folder = os.environ.get("EVONAS_DATA")
    if folder is None:
        raise FileNotFoundError(f"set EVONAS_DATA to the folder that holds {MACRO_FILE}")
    entries = json.loads(Path(folder, MACRO_FILE).read_text())
    return {key: (entry["test_acc"][0], entry["mean_acc"]) for key, entry in entries.items()}


def macro(seed: int) -> Instance:
    """NAS-Bench-Macro: 8 layers of 3 blocks, each network trained three times on CIFAR-10.

    The search sees the first of the three test accuracies (percent).

    Source:
        Su et al. (2021), "Prioritized architecture sampling with Monto-Carlo tree search", CVPR.
    """
    table = _macro_table()
    blocks = en.SearchSpace({f"layer{i}": ["0", "1", "2"] for i in range(8)})

    def accuracy(which: int) -> Callable[[Genes], float]:
        return lambda genes: table["".join(genes[f"layer{i}"] for i in range(8))][which]

    scores = {"first": accuracy(0), "mean": accuracy(1)}
    best = {
        name: max(entry[i] for entry in table.values()) for i, name in enumerate(("first", "mean"))
    }
    return Instance(renumbered(blocks, random.Random(seed)), scores["first"], scores, best)


# -- Additive effects and interactions, 20 mixed genes, noise ------------------------------------


def mixed(seed: int, *, noise: float = 0.1) -> Instance:
    """20 genes of all types, additive effects of uneven size, interactions along a random tree.

    Another landscape for each seed. The truth has standard deviation 1 over the space; what the
    search sees has Gaussian noise of `noise`. Interactions form a tree, so that the optimum is
    known exactly (numbers on a grid of 65): found is what comes within 0.1 of it.
    """
    rng = np.random.default_rng(seed)
    space = _mixed_space(rng)
    names = list(space)
    effects = [_effect(gene, rng) for gene in space.gene_types]
    weights = rng.exponential(size=len(names))
    edges = [(int(rng.integers(child)), child) for child in range(1, len(names))]
    factors = [
        (_effect(space.gene_types[a], rng), _effect(space.gene_types[b], rng)) for a, b in edges
    ]
    strengths = 0.7 * rng.exponential(size=len(edges))

    def raw(genes: Genes) -> float:
        total = sum(w * effects[i](genes[names[i]]) for i, w in enumerate(weights))
        for (a, b), (left, right), strength in zip(edges, factors, strengths, strict=True):
            total += strength * left(genes[names[a]]) * right(genes[names[b]])
        return float(total)

    draws = random.Random(seed)
    sample = [raw(space.sample(draws)) for _ in range(2000)]
    scale = float(np.std(sample))
    grids = [_grid(gene) for gene in space.gene_types]
    best = _best_on_tree(grids, weights, effects, edges, factors, strengths) / scale

    def truth(genes: Genes) -> float:
        return raw(genes) / scale

    def seen(genes: Genes) -> float:
        return truth(genes) + noise * random.Random(f"{seed} {space.key(genes)}").gauss(0.0, 1.0)

    return Instance(space, seen, {"truth": truth}, {"truth": best}, tolerance=0.1)


def _mixed_space(rng: np.random.Generator) -> en.SearchSpace:
    genes: dict[str, en.Gene] = {}
    for i in range(20):
        kind = int(rng.integers(5)) if i >= 5 else i
        genes[f"g{i}"] = (
            en.Categorical([f"c{k}" for k in range(int(rng.integers(2, 7)))]),
            en.Boolean(),
            en.Integer(1, int(rng.integers(3, 12))),
            en.Float(0.0, 1.0),
            en.Float(1e-4, 1e-1, log=True),
        )[kind]
    return en.SearchSpace(genes)


def _effect(gene: en.Gene, rng: np.random.Generator) -> Callable[[object], float]:
    """Returns a random function of a gene: a wave over numbers, any value for each choice."""
    if isinstance(gene, en.Categorical | en.Boolean):
        table = rng.normal(size=int(gene.cardinality))
        table -= table.mean()
        return lambda value: float(table[_place(gene, value)])
    phase, waves = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.3, 1.0)
    return lambda value: (
        math.sqrt(2.0) * math.sin(phase + 2.0 * math.pi * waves * gene.encode(value)[0])
    )


def _place(gene: en.Gene, value: object) -> int:
    return gene.position(value) if isinstance(gene, en.Categorical) else int(bool(value))


def _grid(gene: en.Gene) -> list[object]:
    if isinstance(gene, en.Float):
        return [gene.decode([i / (_N_GRID - 1)]) for i in range(_N_GRID)]
    return list(gene.all_values())


def _best_on_tree(
    grids: list[list[object]],
    weights: np.ndarray,
    effects: list[Callable[[object], float]],
    edges: list[tuple[int, int]],
    factors: list[tuple[Callable[[object], float], Callable[[object], float]]],
    strengths: np.ndarray,
) -> float:
    """Returns the maximum, by messages from the leaves (children have the larger numbers)."""
    best = [
        weights[i] * np.array([effects[i](value) for value in grid]) for i, grid in enumerate(grids)
    ]
    for k in reversed(range(len(edges))):
        (parent, child), (left, right) = edges[k], factors[k]
        at_parent = np.array([left(value) for value in grids[parent]])
        at_child = np.array([right(value) for value in grids[child]])
        together = strengths[k] * np.outer(at_parent, at_child) + best[child]
        best[parent] = best[parent] + together.max(axis=1)
    return float(best[0].max())


# -- Layers: a conditional space of varying depth ------------------------------------------------

_MAX_DEPTH = 6
_KINDS = {"conv": ("kernel", [1, 3, 5, 7]), "attention": ("heads", [1, 2, 4, 8]), "skip": None}


def layers(seed: int) -> Instance:
    """Up to six layers of three kinds, each kind with genes of its own; deeper has its price.

    Another landscape for each seed: effects of each layer's genes, interactions of neighbouring
    kinds, and a learning rate whose best value falls with depth. The optimum is exact; found is
    what comes within 0.05 of it (the values' standard deviation is about 1).
    """
    rng = np.random.default_rng(seed + 10_000)
    space = renumbered(_layers_space(), random.Random(seed))
    kinds = list(_KINDS)
    own = rng.normal(size=(_MAX_DEPTH, 3))
    option = rng.normal(scale=0.6, size=(_MAX_DEPTH, 3, 4))
    width_best, width_weight = rng.random((_MAX_DEPTH, 3)), rng.exponential(1.0, (_MAX_DEPTH, 3))
    following = rng.normal(scale=0.6, size=(_MAX_DEPTH, 3, 3))
    by_depth = np.linspace(0.0, 2.5, _MAX_DEPTH) ** 0.5 + rng.normal(scale=0.3, size=_MAX_DEPTH)
    rate_best = 0.75 - 0.08 * np.arange(_MAX_DEPTH) + rng.normal(scale=0.05, size=_MAX_DEPTH)
    width = space["width1"]

    def layer(genes: Genes, at: int) -> float:
        k = kinds.index(genes[f"kind{at + 1}"])
        total = float(own[at, k])
        if kinds[k] != "skip":
            name, choices = _KINDS[kinds[k]]  # type: ignore[misc]
            total += option[at, k, choices.index(genes[f"{name}{at + 1}"])]
            place = width.encode(genes[f"width{at + 1}"])[0]
            total -= width_weight[at, k] * (place - width_best[at, k]) ** 2
        if at:
            total += following[at, kinds.index(genes[f"kind{at}"]), k]
        return total

    def truth(genes: Genes) -> float:
        depth = genes["depth"]
        mean = sum(layer(genes, at) for at in range(depth)) / math.sqrt(depth)
        rate = space["rate"].encode(genes["rate"])[0]
        return float(mean + by_depth[depth - 1] - 6.0 * (rate - rate_best[depth - 1]) ** 2)

    widths = [width.encode(value)[0] for value in width.all_values()]
    costs = width_weight[..., None] * (np.array(widths) - width_best[..., None]) ** 2
    each = own + np.where(np.arange(3) < 2, option.max(axis=2) - costs.min(axis=2), 0.0)
    best = -math.inf
    for depth in range(1, _MAX_DEPTH + 1):
        along = each[0]
        for at in range(1, depth):
            along = (along[:, None] + following[at]).max(axis=0) + each[at]
        best = max(best, float(along.max() / math.sqrt(depth) + by_depth[depth - 1]))
    return Instance(space, truth, {"truth": truth}, {"truth": best}, tolerance=0.05)


def _layers_space() -> en.SearchSpace:
    genes: dict[str, en.Gene] = {
        "depth": en.Integer(1, _MAX_DEPTH),
        "rate": en.Float(1e-4, 1.0, log=True),
    }
    conditions: dict[str, dict[str, list[object]]] = {}
    for at in range(1, _MAX_DEPTH + 1):
        deep = {"depth": list(range(at, _MAX_DEPTH + 1))} if at > 1 else {}
        genes[f"kind{at}"] = en.Categorical(list(_KINDS))
        genes[f"width{at}"] = en.Integer(16, 256, step=16, log=True)
        genes[f"kernel{at}"] = en.Categorical([1, 3, 5, 7])
        genes[f"heads{at}"] = en.Categorical([1, 2, 4, 8])
        if deep:
            conditions[f"kind{at}"] = {**deep}
        conditions[f"width{at}"] = {**deep, f"kind{at}": ["conv", "attention"]}
        conditions[f"kernel{at}"] = {**deep, f"kind{at}": ["conv"]}
        conditions[f"heads{at}"] = {**deep, f"kind{at}": ["attention"]}
    return en.SearchSpace(genes, conditions=conditions)


# -- Models of scikit-learn on digits ------------------------------------------------------------


def digits(seed: int) -> Instance:
    """A table of scikit-learn models on digits: four kinds of model with their own genes.

    The search sees the accuracy on 597 validation images, regret is measured on it and on the 900
    test images (percent).
    """
    space, table = digits_table()

    def accuracy(which: int) -> Callable[[Genes], float]:
        return lambda genes: table[space.key(genes)][which]

    scores = {"validation": accuracy(0), "test": accuracy(1)}
    best = {
        name: max(entry[i] for entry in table.values())
        for i, name in enumerate(("validation", "test"))
    }
    own = renumbered(space, random.Random(seed))
    return Instance(own, scores["validation"], scores, best)


# -- Cells trained on digits, and LCBench ----------------------------------------------------------


def cells(seed: int) -> Instance:
    """4,096 cells of four operations on six edges, each trained on digits.

    The search sees the accuracy on 700 validation images after 10 epochs, regret is measured on it
    and on the 797 test images (percent).
    """
    table = cells_table()
    names = ["".join(map(str, edge)) for edge in EDGES]
    space = en.SearchSpace({name: list(OPERATIONS) for name in names})

    def accuracy(which: int) -> Callable[[Genes], float]:
        return lambda genes: float(table[tuple(genes[name] for name in names)][which])

    scores = {"validation": accuracy(-2), "test": accuracy(-1)}
    best = {
        name: float(max(entry[which] for entry in table.values()))
        for name, which in (("validation", -2), ("test", -1))
    }
    return Instance(renumbered(space, random.Random(seed)), scores["validation"], scores, best)


def lcbench(seed: int) -> Instance:
    """LCBench, a surrogate of networks on 12 tabular tasks: seven numbers, another task each seed.

    Regret is in percent of the distance between a middling random point and the best one known;
    found is what comes within 1 % of it.
    """
    task = TASKS[seed % len(TASKS)]
    best, middling = reach(task)

    def accuracy(genes: Genes) -> float:
        return float(curve(task, genes)[0][-1])

    def score(genes: Genes) -> float:
        return 100.0 * accuracy(genes) / (best - middling)

    return Instance(lcbench_space(), accuracy, {"accuracy": score},
                    {"accuracy": 100.0 * best / (best - middling)}, tolerance=1.0)  # fmt: skip


PROBLEMS: dict[str, Callable[[int], Instance]] = {
    "macro": macro,
    "mixed": mixed,
    "layers": layers,
    "digits": digits,
    "cells": cells,
    "lcbench": lcbench,
}

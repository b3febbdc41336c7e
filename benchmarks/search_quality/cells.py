"""A table of cells, each trained on digits: six edges of four operations, as in NAS-Bench-201.

    python -m benchmarks.search_quality.cells     # trains them all again: half an hour on one core

Its accuracies after each epoch are in `cells.npz`, so that nobody has to.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["EDGES", "N_EPOCHS", "OPERATIONS", "cells_table", "simplified"]

OPERATIONS = ("none", "skip", "conv1", "conv3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
N_EPOCHS = 10
_FILE = Path(__file__).with_suffix(".npz")
_N_TRAIN, _N_VAL = 300, 700  # of 1,797 images; the others are the test images
_N_CHANNELS, _BATCH, _LR = 8, 50, 2e-2
_N_CELLS = 2

Cell = tuple[str, ...]


@cache
def cells_table() -> dict[Cell, NDArray[np.float64]]:
    """Returns for each cell its accuracies in percent: on validation after each epoch, on test.

    Each array is (N_EPOCHS + 1,), the last one being the test accuracy after all epochs.
    """
    with np.load(_FILE) as stored:
        counts = stored["counts"]
    out_of = np.array([_N_VAL] * N_EPOCHS + [1797 - _N_TRAIN - _N_VAL])
    return dict(zip(_all_cells(), 100.0 * counts / out_of, strict=True))


def simplified(cell: Cell) -> Cell:
    """Returns the cell without the edges that change nothing: from nowhere, or to nowhere."""
    edges = dict(zip(EDGES, cell, strict=True))
    for node in (1, 2):
        if all(edges[edge] == "none" for edge in EDGES if edge[1] == node):
            edges |= {edge: "none" for edge in EDGES if edge[0] == node}
    for node in (2, 1):
        if all(edges[edge] == "none" for edge in EDGES if edge[0] == node):
            edges |= {edge: "none" for edge in EDGES if edge[1] == node}
    return tuple(edges[edge] for edge in EDGES)


def _all_cells() -> list[Cell]:
    return list(itertools.product(OPERATIONS, repeat=len(EDGES)))


class _Cell(nn.Module):
    """Node 3 of the cell, (n, channels, 8, 8); a node is the sum of the edges that end at it."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self._into: list[list[tuple[int, str]]] = [[], [], []]
        self.edges = nn.ModuleDict()
        for (source, target), operation in zip(EDGES, cell, strict=True):
            if operation == "none":
                continue
            name = "" if operation == "skip" else f"{source}{target}"
            self._into[target - 1].append((source, name))
            if name:
                size = 3 if operation == "conv3" else 1
                self.edges[name] = nn.Sequential(
                    nn.ReLU(),
                    nn.Conv2d(_N_CHANNELS, _N_CHANNELS, size, padding="same", bias=False),
                    nn.BatchNorm2d(_N_CHANNELS),
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nodes: list[torch.Tensor] = [x]
        for incoming in self._into:
            parts = [self.edges[name](nodes[i]) if name else nodes[i] for i, name in incoming]
            nodes.append(torch.stack(parts).sum(0) if parts else torch.zeros_like(x))
        return nodes[-1]


@cache
def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images (1797, 1, 8, 8) and labels (1797,), in an order of chance."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    images = torch.from_numpy(x[order]).float().reshape(-1, 1, 8, 8) / 16.0 - 0.3
    return images, torch.from_numpy(y[order])


def _trained(cell: Cell) -> list[int]:
    """Returns the right answers on validation after each epoch, and at last those on test."""
    images, labels = _digits()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, _N_CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(_N_CHANNELS),
        *(_Cell(cell) for _ in range(_N_CELLS)),
        nn.BatchNorm2d(_N_CHANNELS), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(_N_CHANNELS, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, foreach=True)
    n_steps = N_EPOCHS * _N_TRAIN // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=n_steps + 1)
    parts = [slice(_N_TRAIN, _N_TRAIN + _N_VAL)] * N_EPOCHS
    parts[-1] = slice(_N_TRAIN, None)
    counts: list[int] = []
    for part in parts:
        model.train()
        for batch in torch.randperm(_N_TRAIN).split(_BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            right = model(images[part]).argmax(1) == labels[part]
        counts.append(int(right[:_N_VAL].sum()))
    return [*counts, int(right[_N_VAL:].sum())]


def main() -> None:
    """Trains every cell that is no other's equal and writes the table."""
    from tqdm import tqdm

    cells = _all_cells()
    different = sorted({simplified(cell) for cell in cells})
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        trained = pool.map(_trained, different, chunksize=20)
        counts = dict(
            zip(different, tqdm(trained, total=len(different), mininterval=30), strict=True)
        )
    rows = np.array([counts[simplified(cell)] for cell in cells], dtype=np.uint16)
    np.savez_compressed(_FILE, counts=rows)
    print(f"{len(cells):,} cells, {len(different):,} of them different: {_FILE}")


if __name__ == "__main__":
    main()

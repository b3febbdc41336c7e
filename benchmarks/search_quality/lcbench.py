"""LCBench as a surrogate: neural networks on tabular tasks, seven numbers and the epoch.

Source:
    Zimmer et al. (2021), "Auto-PyTorch Tabular"; the surrogate is YAHPO Gym's (Pfisterer et al.
    2022).
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import evonas as en
from benchmarks.search_quality.instance import Genes

__all__ = ["MAX_EPOCHS", "TASKS", "curve", "lcbench_space", "reach"]

TASKS = ("3945", "7593", "34539", "126025", "126026", "126029", "146212", "167104", "167149",
         "167152", "167161", "167181")  # fmt: skip
"""OpenML tasks that searches are compared on."""

MAX_EPOCHS = 52

_N_SAMPLED, _N_STEPS, _N_CLIMBED = 20_000, 40, 50  # what the best point of a task is sought with


def lcbench_space() -> en.SearchSpace:
    """Returns the seven hyperparameters; the epoch is no gene."""
    return en.SearchSpace({
        "batch_size": en.Integer(16, 512, log=True),
        "learning_rate": en.Float(1e-4, 1e-1, log=True),
        "momentum": en.Float(0.1, 0.99),
        "weight_decay": en.Float(1e-5, 1e-1),
        "num_layers": en.Integer(1, 5),
        "max_units": en.Integer(64, 1024, log=True),
        "max_dropout": en.Float(0.0, 1.0),
    })  # fmt: skip


def curve(task: str, genes: Genes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns accuracy in percent and seconds up to each epoch, (52,) each."""
    point = list(genes.values())
    rows = np.array([[epoch, *point] for epoch in range(1, MAX_EPOCHS + 1)], np.float32)
    found = _outputs(task, rows)
    return found[:, 1], found[:, 0]


@cache
def reach(task: str) -> tuple[float, float]:
    """Returns the accuracies in percent of the best point known and of a middling random one.

    The best of 20,000 random points and of 40 rounds of small steps from the best 50 of them.
    """
    space, rng = lcbench_space(), np.random.default_rng(0)
    low, high = (np.array([gene.decode([end]) for gene in space.gene_types], float)
                 for end in (0.0, 1.0))  # fmt: skip
    log = np.array([getattr(gene, "log", False) for gene in space.gene_types])
    whole = np.array([isinstance(gene, en.Integer) for gene in space.gene_types])
    low, high = (np.where(log, np.log(np.where(log, ends, 1.0)), ends) for ends in (low, high))

    def values(places: NDArray[np.float64]) -> NDArray[np.float64]:
        points = low + places * (high - low)
        points = np.where(log, np.exp(points), points)
        points = np.where(whole, np.round(points), points)
        epochs = np.full((len(points), 1), float(MAX_EPOCHS))
        return _outputs(task, np.hstack([epochs, points]).astype(np.float32))[:, 1]

    places = rng.random((_N_SAMPLED, len(low)))
    found = values(places)
    middling = float(np.median(found))
    kept = np.argsort(-found)[:_N_CLIMBED]
    places, found = places[kept], found[kept]
    for step in range(_N_STEPS):
        moves = rng.normal(scale=0.2 * 0.9**step, size=(20, *places.shape))
        moves *= rng.random(moves.shape) < 0.5
        tried = np.clip(places + moves, 0.0, 1.0)
        scores = values(tried.reshape(-1, len(low))).reshape(20, -1)
        best = scores.argmax(axis=0)
        columns = np.arange(len(places))
        better = scores[best, columns] > found
        places = np.where(better[:, None], tried[best, columns], places)
        found = np.maximum(found, scores[best, columns])
    return float(found.max()), middling


def _outputs(task: str, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    session, number = _session(), _numbers()[task]
    names = [each.name for each in session.get_inputs()]
    tasks = np.full((len(rows), 1), number, np.int32)
    (found,) = session.run(None, dict(zip(names, (tasks, rows), strict=True)))
    return np.asarray(found, np.float64)


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(_folder() / "model.onnx", options)


@cache
def _numbers() -> dict[str, int]:
    numbers: dict[str, int] = json.loads((_folder() / "encoding.json").read_text())[
        "OpenML_task_id"
    ]
    return numbers


def _folder() -> Path:
    folder = os.environ.get("EVONAS_DATA")
    if folder is None:
        raise FileNotFoundError("set EVONAS_DATA to the folder that holds lcbench/model.onnx")
    return Path(folder, "lcbench")

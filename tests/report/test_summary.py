"""What the report says of how a run was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import evonas as en
from evonas.report.answer import answer
from evonas.report.page import Pairs
from evonas.report.summary import reproduction
from evonas.training import ModelProblem


def settings_of(result: Any) -> dict[str, Any]:
    pairs = next(part for part in reproduction(result) if isinstance(part, Pairs))
    return dict(pairs.entries)


def test_settings_that_genes_give_are_not_listed(tmp_path: Path) -> None:
    x = torch.randn(32, 4)
    data = x, (x.sum(1) > 0).long()
    space = en.SearchSpace(
        {
            "lr": [0.01, 0.1],
            "optimizer": ["sgd", "adam"],
            "momentum": en.Float(0.0, 0.9),
            "batch_size": [8, 16],
            "n_epochs": [1, 2],
        },
        conditions={"momentum": {"optimizer": ["sgd"]}},
    )
    problem = ModelProblem(
        space, lambda genes: nn.Linear(4, 2), data, data, ema=0.5, precision="float32"
    )
    result = en.evolve(problem, max_evaluations=2, seed=0, run_dir=tmp_path / "run", progress=False)
    told = settings_of(result)
    assert not {"lr", "optimizer", "batch size", "n epochs"} & set(told)
    assert told["ema"] == "0.5"
    assert "epochs each" not in dict(answer(result))["Searched"]
    assert told["momentum"] == "0.9", "of points in which the gene is inactive"

"""What a model is made of, counted by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.execution.anatomy import anatomy, inputs_as_json
from evonas.execution.trial import TrialSettings


def test_layers_in_the_order_of_the_calls() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Sequential(shared, shared), nn.Dropout(), nn.Linear(8, 2),
    )  # fmt: skip
    model[6].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = anatomy(model, torch.randn(4, 3, 6, 6))
    assert found["inputs"] == {"dtype": "float32", "shape": [3, 6, 6]}
    rows = [(e["name"], e["type"], e["shape"], e["params"], e["macs"]) for e in found["layers"]]
    assert rows == [
        ("0", "Conv2d", [8, 6, 6], 8 * 28, 36 * 8 * 27),
        ("1", "BatchNorm2d", [8, 6, 6], 16, 0),
        ("2", "ReLU", [8, 6, 6], 0, 0),
        ("3", "AdaptiveAvgPool2d", [8, 1, 1], 0, 0),
        ("4", "Flatten", [8], 0, 0),
        ("5.0", "Linear", [8], 72, 64),
        ("5.0", "Linear", [8], 0, 64),
        ("6", "Dropout", [8], 0, 0),
        ("7", "Linear", [2], 18, 16),
    ]
    assert [module.training for module in model[:8]] == [True] * 6 + [False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_parts_and_outputs_of_several_tensors() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 4))

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return x @ self.weight, y

    found = anatomy(Alone(), (torch.ones(2, 3), torch.ones(2, 5)))
    assert found["layers"] == [
        {"name": "", "type": "Alone", "shape": None, "params": 12, "macs": 12}
    ]
    assert [entry["shape"] for entry in found["inputs"]["several"]] == [[3], [5]]
    assert inputs_as_json("text") is None


def test_a_model_that_cannot_take_the_example_keeps_its_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = en.Trial(TrialSettings(attachments=str(tmp_path)))
    with caplog.at_level(logging.WARNING):
        assert trial.save(nn.Linear(4, 2), torch.ones(2, 3))
    assert "the model could not take the example (RuntimeError" in caplog.text
    assert (tmp_path / "weights.pt").is_file()

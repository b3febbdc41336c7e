"""The drawing of a network, and what a stranger's file can make of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import evonas as en
from evonas.cli import main
from evonas.report import write_report
from evonas.report.network import MAX_LAYERS, draw, layer_rows, network_of


def searched(folder: Path, model: nn.Module) -> en.Result:
    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        trial.save(model, torch.randn(2, 3, 8, 8))
        return 1.0

    return en.evolve({"x": [1]}, fitness, max_evaluations=1, run_dir=folder, progress=False, seed=0)


def test_each_layer_is_a_block_with_its_shape_and_costs(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    result = searched(tmp_path, model)
    net = network_of(result.champion)
    assert net is not None
    assert (net.params, net.macs) == (448 + 5770, 36 * 16 * 27 + 5760)
    drawing = ElementTree.fromstring(draw(net))
    blocks = [element for element in drawing.iter() if element.tag.endswith("rect")]
    assert len(blocks) == 4 + 2, "the input and the sums too"
    text = " ".join("".join(drawing.itertext()).split())
    assert "Conv2d" in text
    assert "16×6×6" in text
    assert "448 weights, 15.6k multiply-adds" in text
    assert "6.22k weights, 21.3k multiply-adds" in text
    page = tmp_path / "report.html"
    write_report(tmp_path)
    assert draw(net) in page.read_text()


def test_a_deep_network_is_drawn_short(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(192, 192) for _ in range(200)))
    net = network_of(searched(tmp_path, model).champion)
    assert net is not None
    rows = layer_rows(net)
    assert len(rows) == MAX_LAYERS + 3
    assert ("", f"… {201 - MAX_LAYERS} more layers", "", "", "", "") in rows
    assert draw(net).count("<rect") == MAX_LAYERS + 3


def test_show_lists_the_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched(tmp_path, nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
    assert main(["show", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"112 +3\.89k +▇{10} +0 +Conv2d +4×6×6", printed)
    assert re.search(r"402 +4\.18k +together", printed)


HOSTILE: list[Any] = [
    {"layers": 3},
    {"layers": [3, None, {}]},
    {"layers": [{"name": "<script>", "type": "</svg>&", "shape": [1], "params": 1, "macs": 1}]},
    {"layers": [{"name": "a", "type": "b", "shape": ["<b>"], "params": 1, "macs": 1}]},
    {"layers": [{"name": "a", "type": "b", "shape": None, "params": -1, "macs": 1}]},
    {"layers": [{"name": "a", "type": "b", "shape": None, "params": 10**400, "macs": True}]},
    {
        "inputs": {"named": {"<img src=x>": {"shape": ["<i>"]}}},
        "layers": [{"name": [], "type": {}, "shape": None, "params": 0, "macs": 0}],
    },
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_strangers_file_is_text(tmp_path: Path, content: Any) -> None:
    result = searched(tmp_path, nn.Flatten())
    path = result.champion.files["network.json"]
    path.write_text(json.dumps(content))
    net = network_of(result.champion)
    if net is not None:
        drawn = draw(net)
        ElementTree.fromstring(drawn)
        assert not re.search(r"<(script|img|i|b)\b", drawn)
    write_report(tmp_path)


def test_a_damaged_file_is_named_and_the_rest_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    result = searched(tmp_path, nn.Flatten())
    result.champion.files["network.json"].write_text("{")
    assert network_of(result.champion) is None
    assert "network.json cannot be read" in caplog.text
    assert main(["show", str(tmp_path)]) == 0
    assert "champion" in capsys.readouterr().out
    write_report(tmp_path)

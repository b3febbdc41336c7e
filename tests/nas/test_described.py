"""A network as data: the same module in another process, and nothing but modules of torch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import evonas as en
from evonas.exceptions import WeightsError
from evonas.nas import alexnet_small_space, alexnet_space, plain_network
from evonas.nas.alexnet import alexnet_network
from evonas.nas.described import description, from_description
from evonas.nas.network import build
from evonas.training import seeded

PRM = {"dropout": 0.25}


@pytest.mark.parametrize(
    ("space", "network"),
    [(alexnet_small_space(), plain_network), (alexnet_space(), alexnet_network)],
)
def test_what_is_described_is_what_is_built(space: en.SearchSpace, network: Any) -> None:
    rng = random.Random(0)
    for _ in range(20):
        genes = space.sample(rng)
        try:
            found = description(network(genes, 10), (3, 64, 64), PRM)
        except en.InvalidPoint:
            continue
        with seeded(1):
            built = build(network(genes, 10), (3, 64, 64), prm=PRM)
        with seeded(1):
            again = from_description(json.loads(json.dumps(found)))
        assert repr(again) == repr(built)
        assert again.state_dict().keys() == built.state_dict().keys()
        for name, value in built.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)


def test_only_modules_of_torch_are_made() -> None:
    for name in ("Module.__init__", "init", "os", "Parameter", "ReLU6x"):
        with pytest.raises(WeightsError, match="is no module of torch"):
            from_description({"calls": [[name, [], {}]], "n_features": 0})


def test_the_champion_of_a_search_loads_in_a_process_without_its_script(
    make_problem: Any, tmp_path: Path
) -> None:
    problem = make_problem("alexnet-small")
    result = en.evolve(problem, population=4, generations=2, seed=0, run_dir=tmp_path)
    images = torch.rand(6, *problem.in_shape)
    torch.save(images, tmp_path / "images.pt")
    here = result.champion.load_model()
    program = f"""
import torch, evonas as en
champion = en.open_run({str(tmp_path)!r}).champion
images = torch.load({str(tmp_path / "images.pt")!r})
torch.save(champion.load_model()(images), {str(tmp_path / "outputs.pt")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    with torch.inference_mode():
        assert torch.equal(torch.load(tmp_path / "outputs.pt"), here(images))
    data = problem.data.subset(problem.splits[1])
    inputs, labels = next(iter(data.batches(1000)))
    share = float((here(inputs).argmax(1) == labels).float().mean())
    assert share == pytest.approx(result.champion.fitness)

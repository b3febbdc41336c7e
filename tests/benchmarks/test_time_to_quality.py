"""The benchmark of minutes to test accuracy, and what it holds our search against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import time_to_quality as benchmark
from benchmarks.rivals import RIVALS, Job, hand_made_within
from evonas.training import Examples
from evonas.training.cost import count_macs, count_params


def result(accuracy: float, minutes: float = 10.0) -> dict[str, Any]:
    return {"accuracy": accuracy, "trained": 7, "params": 1_000, "macs": 2_000, "minutes": minutes}


def job(folder: Path, **changed: Any) -> Job:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 2
    pixels = torch.randint(0, 120, (160, 3, 32, 32), generator=generator)
    pixels += 110 * labels.view(-1, 1, 1, 1)
    images = Examples(pixels.to(torch.uint8), labels, ("dark", "bright"))
    settings = {
        "train": images, "test": images, "seconds": 2.0, "flips": True, "max_macs": None,
        "max_params": 5_000, "precision": "float32", "threads": 1, "seed": 0, "folder": folder,
        **changed,
    }  # fmt: skip
    return Job(**settings)


def test_the_table() -> None:
    found = {
        ("evonas", 10.0): [result(0.5), result(0.7, 10.2)],
        ("hand-made", 10.0): [result(0.4), result(0.4)],
        ("evonas", 30.0): [result(0.8), result(0.8)],
        ("hand-made", 30.0): [result(0.9), result(0.7)],
    }
    lines = benchmark.table(found).splitlines()
    assert lines[1].split() == [
        "10", "minutes", "30", "minutes", "n", "networks", "weights", "multiply-adds", "took",
        "at", "most",
    ]  # fmt: skip
    assert lines[2].split() == [
        "evonas", "0.6000", "±", "0.1414", "0.8000", "±", "0.0000", "2", "7", "1,000", "2,000",
        "102%",
    ]  # fmt: skip
    assert "0.4000 ± 0.0000" in lines[3]
    assert "0.8000 ± 0.1414" in lines[3]
    assert "±" not in benchmark.table({("evonas", 1.0): [result(0.5)]}).splitlines()[2]


def test_what_is_done_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, name in enumerate(benchmark.CONTENDERS):
        file = benchmark._file(tmp_path, name, 0.5, 0)
        file.write_text(json.dumps(result(0.5 + place / 10, 0.5)))
    benchmark.main(["--out", str(tmp_path), "--seeds", "1"])
    text = capsys.readouterr().out
    assert "digits; no limits" in text
    assert [line.split("  ")[0] for line in text.splitlines()[8:13]] == list(benchmark.CONTENDERS)
    with pytest.raises(SystemExit, match="begun with --max-params None, here 10"):
        benchmark.main(["--out", str(tmp_path), "--max-params", "10"])


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install -e '.[bench]'")
    found = {
        (name, minutes): [result(0.5), result(0.6)]
        for name in ("evonas", "TPE")
        for minutes in (10.0, 30.0)
    }
    benchmark.plot(found, tmp_path / "table.svg")
    assert "</svg>" in (tmp_path / "table.svg").read_text()


def test_the_hand_made_network_keeps_to_the_limits(tmp_path: Path) -> None:
    whole = hand_made_within(job(tmp_path, max_params=None))
    assert count_macs(whole, (3, 32, 32)) == pytest.approx(71.7e6, rel=0.01)
    for limits in ({"max_params": 50_000}, {"max_params": None, "max_macs": 5_000_000}):
        model = hand_made_within(job(tmp_path, **limits))
        if limits.get("max_params"):
            assert 40_000 < count_params(model) <= 50_000
        else:
            assert 4e6 < count_macs(model, (3, 32, 32)) <= 5e6


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "hand-made")) for name in RIVALS],
)
def test_a_rival_learns_in_its_time(name: str, tmp_path: Path) -> None:
    if name == "TPE":
        pytest.importorskip("optuna", reason="pip install -e '.[bench]'")
    seconds = {"hand-made": 3.0, "published GA": 40.0, "TPE": 10.0}[name]
    limits = {"max_params": None} if name == "published GA" else {}
    outcome = RIVALS[name](job(tmp_path, seconds=seconds, **limits))
    # Its 40 million weights learn little in twenty seconds.
    assert outcome.accuracy >= (0.5 if name == "published GA" else 0.8)
    assert (outcome.trained > 0) == (name != "hand-made")


@pytest.mark.slow
def test_the_first_network_without_a_search(tmp_path: Path) -> None:
    outcome = benchmark._no_search(job(tmp_path))
    assert outcome.accuracy > 0.8
    assert outcome.params <= 5_000

"""Trainings that go on where a shorter one ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.execution.trial import Trial, TrialSettings
from evonas.nas import ImageClassificationProblem, alexnet_small_space, plain_network
from evonas.training import Examples, ModelProblem

torch.manual_seed(0)
X = torch.randn(96, 6)
DATA = X, (X.sum(1) > 0).long()


def model(genes: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, genes["width"]), nn.BatchNorm1d(genes["width"]), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(genes["width"], 2),
    )  # fmt: skip


SPACE = {"width": [4, 8, 16], "lr": en.Float(1e-3, 1e-1, log=True), "n_epochs": en.Integer(1, 4)}


def problem(**arguments: Any) -> ModelProblem:
    settings = {"ema": 0.9, "schedule": "one_cycle", "batch_size": 16, **arguments}
    return ModelProblem(
        SPACE, model, DATA, DATA, precision="float32", continue_trainings=True, **settings
    )


def trial(folder: Path | None, made: ModelProblem, genes: Any) -> Trial:
    return Trial(
        TrialSettings(
            key=made.key(genes),
            seed=5,
            checkpoints=None if folder is None else str(folder / "checkpoints"),
            attachments=None if folder is None else str(folder / str(genes["n_epochs"])),
        )
    )


def rows(of: Trial) -> list[Any]:
    return [row.metrics for row in of.history]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_ends_with_the_same_bits_as_a_training_from_the_start(
    tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = problem(optimizer=optimizer)
    genes = {"width": 8, "lr": 0.05}
    whole = trial(tmp_path / "whole", made, {**genes, "n_epochs": 4})
    value = made.evaluate({**genes, "n_epochs": 4}, whole)

    seen = []
    from evonas.training import loop

    run_epoch = loop.run_epoch
    monkeypatch.setattr(loop, "run_epoch", lambda *a, **k: seen.append(1) or run_epoch(*a, **k))
    for n_epochs, n_trained in ((1, 1), (3, 2), (4, 1)):
        seen.clear()
        part = trial(tmp_path / "parts", made, {**genes, "n_epochs": n_epochs})
        found = made.evaluate({**genes, "n_epochs": n_epochs}, part)
        assert len(seen) == n_trained
        assert rows(part) == rows(whole)[:n_epochs]
    assert found == value
    weights = [
        torch.load(tmp_path / kind / "4" / "weights.pt", weights_only=True)
        for kind in ("whole", "parts")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_shorter_training_begins_anew_and_keeps_the_longer_checkpoint(tmp_path: Path) -> None:
    made = problem()
    genes = {"width": 8, "lr": 0.05, "n_epochs": 2}
    made.evaluate({**genes, "n_epochs": 3}, trial(tmp_path, made, genes))
    (file,) = (tmp_path / "checkpoints").iterdir()
    content = file.read_bytes()
    short, alone = trial(tmp_path, made, genes), trial(None, made, genes)
    assert made.evaluate(genes, short) == made.evaluate(genes, alone)
    assert rows(short) == rows(alone)
    assert len(rows(short)) == 2
    assert file.read_bytes() == content


def test_a_damaged_checkpoint_is_said_and_changes_nothing(tmp_path: Path) -> None:
    made = problem()
    genes = {"width": 4, "lr": 0.02, "n_epochs": 2}
    whole = made.evaluate({**genes, "n_epochs": 4}, trial(None, made, genes))
    made.evaluate(genes, trial(tmp_path, made, genes))
    (file,) = (tmp_path / "checkpoints").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="not gone on from, because it is damaged: trained"):
        found = made.evaluate({**genes, "n_epochs": 4}, trial(tmp_path, made, genes))
    assert found == whole


def test_other_settings_do_not_go_on_from_it(tmp_path: Path) -> None:
    genes = {"width": 4, "lr": 0.02, "n_epochs": 2}
    made = problem()
    made.evaluate(genes, trial(tmp_path, made, genes))
    other = problem(batch_size=32)
    with pytest.warns(RuntimeWarning, match="it is of a training with other settings"):
        found = other.evaluate(genes, trial(tmp_path, other, genes))
    assert found == other.evaluate(genes, trial(None, other, genes))


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evonas.training import checkpoint

    made = problem()
    for place, width in enumerate([4, 8, 16]):
        genes = {"width": width, "lr": 0.02, "n_epochs": 1}
        made.evaluate(genes, trial(tmp_path, made, genes))
        if not place:
            (first,) = (tmp_path / "checkpoints").iterdir()
            monkeypatch.setattr(checkpoint, "_MAX_BYTES", int(2.9 * first.stat().st_size))
        time.sleep(0.02)
    left = list((tmp_path / "checkpoints").iterdir())
    assert first not in left
    assert left


def test_a_full_disk_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = problem()
    genes = {"width": 4, "lr": 0.02, "n_epochs": 2}
    (tmp_path / "checkpoints").write_text("not a folder")
    found = made.evaluate(genes, trial(tmp_path, made, genes))
    assert found == made.evaluate(genes, trial(None, made, genes))
    assert "will be trained anew" in caplog.text


def searched(folder: Path | None, **arguments: Any) -> en.Result:
    return en.evolve(
        problem(**arguments), strategy=en.Hyperband(reduction=2), max_evaluations=14, seed=3,
        run_dir=folder, workers=1,
    )  # fmt: skip


def test_a_search_that_continues_is_the_search_that_does_not(tmp_path: Path) -> None:
    one = searched(tmp_path / "one")
    assert list((tmp_path / "one" / "checkpoints").iterdir())
    other = searched(None)
    assert [e.fitness for e in one.evaluations] == [e.fitness for e in other.evaluations]
    assert {e.genes["n_epochs"] for e in one.evaluations} == {1, 2, 4}


def test_images_take_the_epochs_from_the_gene(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8)
    data = Examples(images, torch.arange(60) % 2, ("cat", "dog"))
    base = alexnet_small_space()
    space = en.SearchSpace(
        {**base, "n_epochs": en.Integer(1, 4)},
        conditions=base.conditions,
        constraints=base.constraints,
    )
    made = ImageClassificationProblem(
        space, plain_network, data, precision="float32", batch_size=16, continue_trainings=True
    )
    result = en.evolve(
        made, strategy=en.Hyperband(reduction=2), max_evaluations=9, seed=0, run_dir=tmp_path,
        workers=1,
    )  # fmt: skip
    assert (result.counts.evaluated, result.counts.failed) == (9, 0)
    for entry in result.evaluations:
        assert len(entry.epochs) == entry.genes["n_epochs"]
    by_genes: dict[str, set[int]] = {}
    for entry in result.evaluations:
        rest = str({k: v for k, v in entry.genes.items() if k != "n_epochs"})
        by_genes.setdefault(rest, set()).add(entry.seed)
    assert all(len(seeds) == 1 for seeds in by_genes.values())
    assert (
        f"after {result.champion.genes['n_epochs']} epochs"
        in (tmp_path / "ga-champ-alexnet.py").read_text()
    )


def test_it_needs_the_gene() -> None:
    with pytest.raises(ValueError, match="continue_trainings needs a gene n_epochs.*got none"):
        ModelProblem({"width": [4]}, model, DATA, DATA, continue_trainings=True)


SCRIPT = """
import sys, torch, evonas as en
sys.path.insert(0, {tests!r})
from training.test_continued import problem
import evonas.training.checkpoint as checkpoint
en.evolve(problem(), strategy=en.Hyperband(reduction=2), max_evaluations=14, seed=3,
          run_dir={run!r}, workers=1)
"""


@pytest.mark.slow
def test_kill_minus_nine_changes_nothing(tmp_path: Path) -> None:
    wanted = searched(tmp_path / "undisturbed")
    script = tmp_path / "script.py"
    tests = str(Path(__file__).parent.parent)
    script.write_text(SCRIPT.format(tests=tests, run=str(tmp_path / "killed")))
    for seconds in (2.2, 2.6, 3.0, 3.4):
        process = subprocess.Popen([sys.executable, str(script)])
        time.sleep(seconds)
        process.kill()
        process.wait()
    subprocess.run([sys.executable, str(script)], check=True)
    found = en.open_run(tmp_path / "killed")
    assert [e.fitness for e in found.evaluations] == [e.fitness for e in wanted.evaluations]

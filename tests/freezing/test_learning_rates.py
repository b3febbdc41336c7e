"""A mask search that chooses a learning rate for each mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.execution.trial import Trial, TrialSettings
from evonas.freezing import FreezingProblem, compare_masks, load_mask

torch.manual_seed(0)
X = torch.randn(96, 8)
DATA = X[:64], (X.sum(1) > 0).long()[:64]
VAL = X[64:], (X.sum(1) > 0).long()[64:]
RATES = [1e-5, 0.05, 1e-3]


def pretrained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 2))


def problem(lr: Any = RATES, **arguments: Any) -> FreezingProblem:
    settings = {"n_epochs": 2, "precision": "float32", **arguments}
    return FreezingProblem(pretrained, DATA, VAL, lr=lr, **settings)


def test_the_rate_is_a_gene_and_trains() -> None:
    made = problem()
    assert list(made.space) == ["0", "2", "lr"]
    assert made.rates == (1e-5, 1e-3, 0.05)
    assert made.genes_of([1, 0]) == {"0": True, "2": False, "lr": 1e-3}
    genes = made.genes_of([1, 0], 0.05)
    assert (made.mask_of(genes), made.lr_of(genes)) == ((1, 0), 0.05)
    model = pretrained()
    assert made.optimizer(model, genes).param_groups[0]["lr"] == 0.05
    # A training at a rate of the gene is that of a problem with this rate alone.
    for rate in RATES:
        settings = TrialSettings(seed=3)
        alone = problem(rate)
        assert list(alone.space) == ["0", "2"]
        ours = Trial(settings)
        theirs = Trial(settings)
        value = made.evaluate(made.genes_of([1, 0], rate), ours)
        assert value == alone.evaluate(alone.genes_of([1, 0]), theirs)
        rates = [row.metrics["lr"] for row in ours.history]
        assert rates == [row.metrics["lr"] for row in theirs.history]
        assert max(rates) <= rate
    assert made.fingerprint()["lr"] == [1e-5, 1e-3, 0.05]


def test_each_usual_mask_begins_at_each_rate() -> None:
    made = problem()
    points = made.initial_points(16)
    masks = [(made.mask_of(genes), made.lr_of(genes)) for genes in points]
    assert len(masks) == len(set(masks)) == 9  # full, head only, first one frozen
    assert {lr for mask, lr in masks if mask == (0, 0)} == set(RATES)
    assert {lr for mask, lr in masks if mask == (1, 1)} == set(RATES)
    assert len(made.initial_points(4)) == 3


def test_the_table_compares_each_mask_at_its_best_rate(tmp_path: Path) -> None:
    made = problem()
    result = en.evolve(
        made, strategy=en.Generational(16, elite=1), generations=1, seed=0, run_dir=tmp_path
    )
    best: dict[Any, Any] = {}
    for entry in result.evaluations:
        mask = made.mask_of(entry.genes)
        if mask not in best or entry.values[0] > best[mask][0]:
            best[mask] = (entry.values[0], made.lr_of(entry.genes))
    table = compare_masks(made, tmp_path, repeats=2, top=1, n_random=1)
    for label in ("full fine-tuning", "head only"):
        row = table.row(label)
        assert row is not None
        searched = [
            e.values[0]
            for e in result.evaluations
            if made.mask_of(e.genes) == row.mask and made.lr_of(e.genes) == row.lr
        ]
        assert searched == [best[row.mask][0]] == [row.searched]
    text = str(table)
    assert text.splitlines()[0].split()[-2:] == ["lr", "frozen"]
    assert table.to_json()["rows"][0]["lr"] in RATES
    saved = load_mask(tmp_path)
    assert saved.lr == table.champion.lr
    assert tuple(saved.values()) == table.champion.mask


def test_one_rate_prints_no_column_and_is_in_the_file(tmp_path: Path) -> None:
    made = problem([0.01])
    en.evolve(made, max_evaluations=3, seed=0, run_dir=tmp_path, workers=1)
    table = compare_masks(made, tmp_path, repeats=1, top=1, n_random=0)
    assert " lr " not in str(table).splitlines()[0]
    assert load_mask(tmp_path).lr == 0.01


def test_an_optimizer_of_ones_own_has_its_rate(tmp_path: Path) -> None:
    def sgd(groups: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=0.5)

    with pytest.raises(ValueError, match="lr of several rates would do nothing"):
        problem(optimizer=sgd)
    made = problem(0.1, optimizer=sgd)
    en.evolve(made, max_evaluations=2, seed=0, run_dir=tmp_path, workers=1)
    assert load_mask(tmp_path).lr is None


@pytest.mark.parametrize(
    ("lr", "error", "message"),
    [
        ("1e-3", TypeError, "lr must be a number or a list of numbers, got '1e-3' \\(str\\)"),
        ([], ValueError, "lr must be different learning rates, at least one"),
        ([0.1, 0.1], ValueError, "lr must be different learning rates"),
        ([0.1, 0.0], ValueError, "an entry of lr must be"),
        ([0.1, "fast"], TypeError, "an entry of lr must be"),
        ("fast", TypeError, "lr must be"),
        (0, ValueError, "lr must be"),
    ],
)
def test_a_wrong_rate_is_refused(lr: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        problem(lr)


def test_a_block_called_lr_is_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lr, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lr(x))

    with pytest.raises(ValueError, match="a block is called 'lr'"):
        FreezingProblem(Odd, DATA, VAL, lr=[0.1, 0.2], blocks=["lr", "head"], include_head=True)

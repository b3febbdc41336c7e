"""Genes that nothing reads are said to do nothing, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.training import ModelProblem
from evonas.training.unread_genes import ReadGenes, unread_genes

DATA = (torch.randn(16, 4), torch.arange(16) % 2)


def linear(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def problem(space: Any, model: Callable[[Any], nn.Module], **options: Any) -> ModelProblem:
    return ModelProblem(space, model, DATA, DATA, n_epochs=1, precision="float32", **options)


@pytest.mark.parametrize(
    ("name", "words"),
    [("learning_rate", "no setting of the training$"), ("batchsize", "did you mean 'batch_size'?"),
     ("dropuot", "did you mean 'dropout'|no setting")],
)  # fmt: skip
def test_a_gene_that_nothing_reads_is_warned_of(name: str, words: str) -> None:
    space = {"width": [4, 8], name: [0.1, 0.2]}
    with pytest.warns(RuntimeWarning, match=f"the gene {name!r} would do nothing: .*{words}"):
        problem(space, lambda genes: linear(genes["width"]))


READERS: list[Callable[[Any], Any]] = [
    lambda genes: genes["extra"],
    lambda genes: genes.get("extra"),
    lambda genes: genes.pop("extra"),
    lambda genes: (lambda extra, **others: extra)(**genes),
    lambda genes: dict(genes)["extra"],
    lambda genes: [value for _, value in genes.items()],
    lambda genes: list(genes.values()),
    lambda genes: {**genes},
    lambda genes: genes["width"] > 4 and genes["extra"],  # in some points only
]


@pytest.mark.parametrize("place", range(len(READERS)))
def test_whatever_reads_a_gene_counts(place: int) -> None:
    def model(genes: Any) -> nn.Module:
        width = genes["width"]
        READERS[place](genes)
        return linear(width)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem({"width": [4, 8], "extra": [1, 2], "lr": [0.1, 0.2]}, model)


def test_settings_and_what_conditions_are_about_are_read() -> None:
    space = en.SearchSpace(
        {"width": [4, 8], "wide": en.Boolean(), "extra": [1, 2], "n_epochs": [1, 2]},
        conditions={"extra": {"wide": [True]}},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem(space, lambda genes: linear(genes["width"] * genes.get("extra", 1)))


def test_functions_of_the_users_may_read_what_they_like() -> None:
    def optimizer(model: nn.Module, genes: Any) -> Any:
        return torch.optim.SGD(model.parameters(), lr=genes["learning_rate"])

    space = {"width": [4, 8], "learning_rate": [0.1, 0.2]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem(space, lambda genes: linear(genes["width"]), optimizer=optimizer)


def test_what_is_read_before_an_error_is_read() -> None:
    def build(genes: ReadGenes) -> None:
        if genes["width"] == 4:
            raise en.InvalidPoint("too narrow")
        if genes["depth"]:
            raise RuntimeError("too deep")

    space = en.SearchSpace({"width": [4, 8], "depth": [1, 2], "x": [1, 2], "only": [1]})
    assert unread_genes(space, build, set()) == ["x"]


@pytest.mark.parametrize(
    ("name", "gene", "message"),
    [
        ("schedule", ["cosin", "linear"], "the gene 'schedule': .*did you mean 'cosine'"),
        ("optimizer", ["nadam", "sgd"], "the gene 'optimizer': optimizer must be .*'nadam'"),
        ("n_epochs", [1.5, 2], "the gene 'n_epochs': n_epochs must be an int"),
        ("weight_decay", en.Float(-1.0, 0.0), "the gene 'weight_decay': .* at least 0"),
        ("lr", ["0.1", 0.1], "the gene 'lr': lr must be a number"),
        ("ema", en.Float(0.5, 1.5), "the gene 'ema': ema must be .* 1"),
    ],
)
def test_a_gene_of_a_setting_has_values_of_the_setting(name: str, gene: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        problem({"width": [4, 8], name: gene}, lambda genes: linear(genes["width"]))

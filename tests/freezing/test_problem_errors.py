"""What a freezing problem refuses, with the way out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Subset, TensorDataset

import evonas as en
from evonas.exceptions import DataError
from evonas.freezing import Examples, FreezingProblem, RecipeProblem
from evonas.training import seeded


def mlp() -> nn.Module:
    with seeded(3):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))


SHARED = mlp()


def vectors(n: int = 20, low: int = 0, high: int = 1) -> tuple[Tensor, Tensor]:
    return torch.zeros(n, 4), torch.arange(n) % (high - low + 1) + low


def test_a_model_instead_of_a_factory() -> None:
    with pytest.raises(TypeError, match=r"got Sequential: for a model, pass lambda: copy.deepcopy"):
        FreezingProblem(mlp(), vectors(), vectors())  # type: ignore[arg-type]
    shared = mlp()
    problem = FreezingProblem(lambda: copy.deepcopy(shared), vectors(), vectors())
    assert len(problem.blocks) == 2


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (lambda: SHARED, ValueError, "two calls share weights, so each training would"),
        (lambda: "bert", TypeError, "must return a torch.nn.Module, got str"),
        (
            lambda: nn.Sequential(nn.Linear(4, int(torch.randint(2, 90, ()))), nn.LazyLinear(2))[
                :1
            ],
            DataError,
            "returned two models of different parameters",
        ),
        (nn.ReLU, ValueError, "ReLU has no parameters, so nothing of it can be frozen"),
        (lambda: nn.Linear(4, 2), ValueError, "at least two blocks, got one in Linear"),
    ],
)
def test_a_wrong_factory(factory: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        FreezingProblem(factory, vectors(), vectors())


class WithUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with seeded(0):
            self.first, self.unused, self.head = (
                nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x))


def test_a_block_that_never_runs_is_named() -> None:
    with pytest.raises(
        ValueError, match="forward pass of the sample, but WithUnused never ran unused"
    ):
        FreezingProblem(WithUnused, vectors(), vectors())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": vectors(high=2)}, ValueError,
         r"labels of train must be from 0 to 1, since the model has 2 outputs; got 2: number"),
        ({"val": vectors(high=2)}, ValueError, "labels of val must be from 0 to 1"),
        ({"val": vectors(low=-1)}, ValueError, "labels of val must be .* got -1"),
        ({"val": (torch.empty(0, 4), torch.empty(0).long())}, ValueError,
         "val must hold at least one example, got none"),
        ({"train": (torch.empty(0, 4), [])}, ValueError, "train must hold at least one example"),
        ({"val": torch.zeros(3, 4)}, TypeError,
         r"val must be Examples or a tuple \(inputs, targets\), got Tensor"),
        ({"train": (torch.zeros(3, 4), [0, 1])}, ValueError,
         "inputs and targets must be as many, got 3 and 2"),
        ({"objectives": en.Objective("speed")}, ValueError,
         "objectives must be among accuracy, train_seconds, trainable_params, trainable_share, "
         "got 'speed'"),
        ({"n_epochs": 0}, ValueError, "n_epochs must be at least 1, got 0"),
        ({"precision": "float8"}, ValueError, "precision must be"),
        ({"prefix_memory_bytes": -1}, ValueError, "memory_bytes must be at least 0, got -1"),
        ({"blocks": ["layer9.*"]}, ValueError,
         r"freeze pattern 'layer9.\*' matches no block of Sequential; its blocks are: 0, 2, 4"),
    ],
)  # fmt: skip
def test_wrong_arguments(make_problem: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make_problem(**options)


THREE = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3), r"float32 \(N,\): pass labels.long\(\), or pass metric="),
        (torch.zeros(3, dtype=torch.bool), r"bool \(N,\): pass labels.long\(\)"),
        (torch.zeros(3, dtype=torch.int32), r"int32 \(N,\): pass labels.long\(\)"),
        (torch.zeros(3, 1).long(), r"int64 \(N, 1\): pass labels.squeeze\(1\),"),
        (torch.eye(2)[[0, 1, 0]], r"float32 \(N, 2\): pass labels.argmax\(1\)"),
    ],
)  # fmt: skip
def test_labels_that_are_no_class_numbers(make_problem: Any, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"the targets of val are {message}"):
        make_problem(val=(THREE, labels))
    make_problem(
        val=(THREE, labels), loss_function=lambda o, t: o.sum(), metric=lambda o, t: 0.0
    )  # what they mean there is the user's business


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((THREE, THREE, [0, 1, 0]),
         r'got a tuple of 3: for a model of several inputs pass Examples\({"ids": ids, "mask"'),
        (((THREE, THREE), torch.tensor([0, 1, 0])),
         r'got tuple: for several inputs pass Examples\({"ids": ids, "mask": mask}, targets\), by'),
        (TensorDataset(THREE, torch.arange(3)), r"got TensorDataset: pass its \.tensors"),
        (TensorDataset(THREE, THREE, torch.arange(3)), r'pass Examples\({"ids".* of its \.tensors'),
        (DataLoader(TensorDataset(THREE)), "got DataLoader: batches are made here; pass what"),
        (Subset(TensorDataset(THREE), [0]), "got Subset: stack its examples into tensors"),
    ],
)  # fmt: skip
def test_data_in_another_form(make_problem: Any, data: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_problem(val=data)


@pytest.mark.parametrize("mask", [[1, 0], [1, 0, 2, 0], {"9": 1}])
def test_no_mask_of_the_blocks(make_problem: Any, mask: Any) -> None:
    with pytest.raises(ValueError, match="freeze mask"):
        make_problem().genes_of(mask)


def test_labels_that_are_texts_are_named() -> None:
    with pytest.raises(
        TypeError, match=r"targets must be a tensor, or a list of numbers .*classes="
    ):
        Examples(torch.zeros(2, 4), ["cat", "dog"])  # type: ignore[arg-type]


def test_too_few_validation_examples_say_how_noisy_a_score_would_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    x, y = torch.randn(60, 4), torch.arange(60) % 2

    def problem(n: int, **options: Any) -> FreezingProblem:
        def factory() -> nn.Module:
            return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))

        return FreezingProblem(factory, (x, y), (x[:n], y[:n]), precision="float32", **options)

    with pytest.raises(ValueError, match="more than 9 validation examples.* up to 17 points"):
        problem(9)
    problem(9, metric=lambda outputs, targets: 0.5)  # nobody knows how noisy it is
    assert not [r for r in caplog.records if "standard error" in r.message]
    problem(25)
    assert "25 validation examples: an accuracy of theirs has a standard error of up to 10" in (
        caplog.text
    )
    caplog.clear()
    problem(50)
    assert "standard error" not in caplog.text


def test_an_optimizer_that_would_not_train_the_groups_is_refused() -> None:
    other = mlp()
    settings: dict[str, Any] = {"lr": 0.1, "precision": "float32"}
    data = vectors(), vectors()
    missing = (
        r"of its 6 parameters 6 are missing, which would not be trained \(the optimizer has 6 "
        r"others\): pass them on, as lambda groups"
    )
    with pytest.raises(ValueError, match=missing + ": "):
        FreezingProblem(mlp, *data, optimizer=lambda _: SGD(other.parameters(), 0.1), **settings)
    with pytest.raises(ValueError, match=missing + ", genes: "):
        RecipeProblem(mlp, *data, optimizer=lambda *_: SGD(other.parameters(), 0.1), **settings)
    with pytest.raises(ValueError, match=r"of its 6 parameters 3 are missing"):
        FreezingProblem(mlp, *data, optimizer=lambda groups: SGD(groups[:1], 0.1), **settings)
    with pytest.raises(TypeError, match="must return an optimizer, got None"):
        FreezingProblem(mlp, *data, optimizer=lambda groups: None, **settings)  # type: ignore[arg-type, return-value]
    FreezingProblem(mlp, *data, optimizer=lambda groups: SGD(groups, 0.1), **settings)

"""What a search over a model of the user's refuses before it begins, with the way out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

import evonas as en
from evonas.exceptions import DataError
from evonas.freezing import FreezingProblem, RecipeProblem
from evonas.training import Examples, FlipCrop, ModelProblem, Training, split

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = (2 * X[:, :1] + X[:, 1:2]).clone()
PAIRS = TensorDataset(X, Y)
LABELS = (X[:, 0] > 0).long()
ONCE: dict[str, Any] = {"n_epochs": 1, "precision": "float32"}


def regressor(genes: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 1))


def mean_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().mean())


class Plain(nn.Sequential):
    """Takes its sizes, as most classes do."""

    def __init__(self, width: int = 4, depth: int = 1) -> None:
        super().__init__(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 1))


class OfGenes(nn.Sequential):
    """Takes the genes, as a function of them does."""

    def __init__(self, genes: dict[str, Any]) -> None:
        super().__init__(nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 1))


def made(**changes: Any) -> ModelProblem:
    arguments: dict[str, Any] = {
        "space": {"width": [4, 8]}, "model": regressor, "train": (X, Y), "val": (X, Y),
        "loss": nn.MSELoss(), **ONCE,
    }  # fmt: skip
    return ModelProblem(**{**arguments, **changes})


SHARED = regressor({"width": 4})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": SHARED}, TypeError, "must be a function of the genes to a new module, got Seq"),
        ({"model": lambda genes: 3}, TypeError, r"must return a torch\.nn\.Module, got int"),
        ({"model": lambda genes: SHARED}, ValueError, r"two calls share 0\.weight"),
        ({"metric": mean_error}, ValueError, 'a metric needs a direction: pass direction="max"'),
        ({"metric": mean_error, "direction": "up"}, ValueError, "direction must be 'max' or 'min'"),
        ({"loss": None}, ValueError, r"accuracy, .*the model returns \(N, 1\): pass metric="),
        ({"train": (X[:, :3], Y)}, ValueError, r"inputs float32 \(2, 3\) and targets float32 \(2,"),
        ({"train": (X, Y[:, 0])}, ValueError, r"shapes \(2, 1\) and \(2,\), which torch broadcast"),
        ({"train": (X, {"a": Y})}, TypeError, "targets must be a tensor"),
        ({"train": 3}, TypeError, "train must be Examples"),
        ({"train": TensorDataset(X)}, DataError, "a batch must be .inputs, targets."),
        ({"unpack": lambda batch: batch[0], "train": TensorDataset(X, Y)}, DataError, "unpack="),
        ({"epochs": 3}, TypeError, "no argument 'epochs'; the settings .* n_epochs, batch_size"),
        ({"training": 3}, TypeError, "training must be a Training, got int"),
        ({"optimizer": "lion"}, ValueError, "optimizer must be 'sgd', 'nesterov', "),
        ({"n_epochs": 0}, ValueError, "n_epochs must be at least 1"),
        (
            {"space": {"width": [4], "label_smoothing": [0.1]}},
            ValueError,
            "the gene 'label_smoothing' would do nothing: .*loss= is given",
        ),
        (
            {"space": {"width": [4], "batch_size": [8]}, "train": DataLoader(TensorDataset(X, Y))},
            ValueError,
            "the gene 'batch_size' would do nothing: a DataLoader has its own",
        ),
        (
            {
                "space": {"width": [4], "batch_size": [8]},
                "train": DataLoader(
                    PAIRS, batch_sampler=BatchSampler(SequentialSampler(X), 4, False)
                ),
            },
            ValueError,
            "the gene 'batch_size' would do nothing: a DataLoader has its own",
        ),
        (
            {"batch_size": 16, "train": DataLoader(PAIRS, 8)},
            ValueError,
            "batch_size=16 would do nothing: .*makes batches of 8: .*pass the loader's .dataset",
        ),
        (
            {"batch_size": 32, "train": DataLoader(PAIRS, batch_sampler=[[0, 1], [2]])},
            ValueError,
            "batch_size=32 would do nothing: .*makes batches of its own: leave it out",
        ),
        (
            {"training": Training(batch_size=16), "train": DataLoader(PAIRS, 8)},
            ValueError,
            "batch_size=16 would do nothing",
        ),
        (
            {"space": {"width": [4], "momentum": [0.5]}, "optimizer": "adagrad"},
            ValueError,
            "the gene 'momentum' would do nothing: adagrad has none",
        ),
        ({"objectives": en.Objective("speed")}, ValueError, "objectives must be among latency"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_begins(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": Plain},
            "model must be a function of the genes to a new module, got the class Plain, .*: pass "
            r"lambda genes: Plain\(width=genes\['width'\]\)",
        ),
        (
            {"augment": FlipCrop},
            r"augment must be .* got the class FlipCrop: pass FlipCrop\(\), an",
        ),
        (
            {"loss": nn.MSELoss},
            r"loss must be .*, got the class MSELoss: pass MSELoss\(\), an inst",
        ),
        (
            {"optimizer": torch.optim.SGD},
            r"optimizer must be .* got the class SGD: pass lambda model, genes: "
            r"SGD\(model.parameters\(\), lr=genes\['lr'\]\), or a name",
        ),
        (
            {"schedule": torch.optim.lr_scheduler.CosineAnnealingLR},
            r"pass lambda optimizer, n_steps, genes: CosineAnnealingLR\(optimizer, n_steps\)",
        ),
    ],
)
def test_a_class_in_place_of_an_instance_or_a_function(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        made(**changes)


def test_a_metrics_class_is_not_taken_for_a_metric() -> None:
    class Streaming:
        def reset(self) -> None: ...
        def update(self, outputs: Tensor, targets: Tensor) -> None: ...
        def compute(self) -> float:
            return 0.0

    with pytest.raises(TypeError, match=r"metric must be .* got the class Streaming: pass Stream"):
        made(metric=Streaming, direction="max")


def test_a_class_whose_constructor_takes_the_genes_is_a_function_of_them() -> None:
    assert made(model=OfGenes).build({"width": 4})[0].out_features == 4  # type: ignore[index]


def test_freezing_problems_refuse_classes_too() -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))

    data = X, LABELS
    with pytest.raises(TypeError, match=r"loss_function .* pass CrossEntropyLoss\(\), an inst"):
        FreezingProblem(factory, data, data, loss_function=nn.CrossEntropyLoss, **ONCE)
    with pytest.raises(TypeError, match=r"optimizer .* pass lambda groups, genes: SGD\(groups\)"):
        RecipeProblem(factory, data, data, optimizer=torch.optim.SGD, **ONCE)
    FreezingProblem(factory, data, data, optimizer=torch.optim.AdamW, **ONCE)  # takes groups


def test_float_labels_name_the_argument_that_this_problem_has() -> None:
    data = X, LABELS.float()

    def model(genes: dict[str, Any]) -> nn.Module:
        return nn.Linear(6, 2)

    with pytest.raises(ValueError, match=re.escape("pass metric= (and loss=) for other targets")):
        made(model=model, train=data, val=data, loss=None)
    with pytest.raises(ValueError, match=r"metric= \(and loss_function=\)"):
        FreezingProblem(lambda: nn.Sequential(nn.Linear(6, 6), model({})), data, data, **ONCE)


BOTH = Examples(X, LABELS)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("imgs/train", r"got str: for a folder of images pass load_image_folder\('imgs/train'\)"),
        (list(zip(X, LABELS, strict=True)), r"got list: pass the pairs as \(torch.stack\(\[x for"),
        (
            split(BOTH, seed=0),
            r"got two lists of 77 and 19 numbers, as split returns: pass data.su",
        ),
        ((BOTH, BOTH), "got a tuple of two Examples: pass the first part as train=, the other as"),
        ((X, X, LABELS), r"got a tuple of 3: for a model of several inputs pass Examples\("),
    ],
)
def test_data_in_another_form_says_what_is_accepted(train: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        made(train=train)
    if "tuple of two" not in message and "two lists" not in message:
        assert "a tuple (inputs, targets), a Dataset, a DataLoader, or a function" in str(
            caught.value
        )


@pytest.mark.parametrize("metric", [None, mean_error])
def test_a_loss_for_each_example_is_not_one(metric: Any) -> None:
    """With a metric of the user's, too, where nothing else looks at the loss."""
    said = r"loss(_function)? must return one number.* got a tensor \(\d, 1\): .*mean"
    with pytest.raises(ValueError, match=said):
        made(loss=nn.MSELoss(reduction="none"), metric=metric, direction=metric and "min")
    with pytest.raises(ValueError, match=said):
        FreezingProblem(Plain, (X, Y), (X, Y), loss_function=nn.MSELoss(reduction="none"),
                        metric=mean_error, **ONCE)  # fmt: skip


def test_a_model_of_several_outputs_needs_loss_and_metric() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.head(x), x

    several: dict[str, Any] = {
        "model": lambda genes: Two(),
        "train": (X, LABELS),
        "val": (X, LABELS),
    }
    several["space"] = {"lr": [0.1, 0.2]}
    with pytest.raises(ValueError, match="the model returns tuple, no tensor: pass loss= and metr"):
        made(**several, loss=None)
    problem = made(
        **several, loss=lambda outputs, labels: nn.functional.cross_entropy(outputs[0], labels),
        metric=lambda outputs, labels: float((outputs[0].argmax(1) == labels).float().mean()),
        direction="max",
    )  # fmt: skip
    assert en.evolve(problem, max_evaluations=1, seed=0, progress=False).champion


def test_an_optimizer_of_another_model_is_refused() -> None:
    other = Plain()
    said = (
        r"of its 4 parameters 4 are missing, which would not be trained \(the optimizer has 4 oth"
    )
    with pytest.raises(ValueError, match=said):
        made(optimizer=lambda model, genes: torch.optim.SGD(other.parameters(), 0.1))
    made(optimizer=lambda model, genes: torch.optim.SGD(model[-1].parameters(), 0.1))  # the head's

"""A search over a model of the user's: any batches, settings as genes, what is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import evonas as en
from evonas.exceptions import DataError, RunMismatchError
from evonas.execution.trial import TrialSettings
from evonas.training import Examples, ModelProblem, Training

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = (2 * X[:, :1] + X[:, 1:2]).clone()
LABELS = (X[:, 0] > 0).long()
ONCE: dict[str, Any] = {"n_epochs": 1, "precision": "float32"}


def regressor(genes: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 1))


def classifier(genes: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2))


def mean_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().mean())


def search(problem: ModelProblem, n: int = 4, **settings: Any) -> en.Result:
    return en.evolve(problem, max_evaluations=n, seed=0, progress=False, **settings)


def test_a_model_of_the_users_learns_and_leaves_with_its_weights() -> None:
    space = {"width": [4, 16], "lr": [0.01, 0.1]}
    problem = ModelProblem(
        space, regressor, (X, Y), (X, Y), loss=nn.MSELoss(), n_epochs=20, precision="float32"
    )
    result = search(problem)
    assert [entry.name for entry in result.objectives] == ["val_loss"]
    assert result.objectives[0].direction == "min"
    assert set(result.champion.epochs[0].metrics) == {"val_loss", "train_loss", "lr"}
    assert len(result.champion.epochs) == 20
    with torch.inference_mode():
        loss = float(nn.functional.mse_loss(result.champion.load_model()(X), Y))
    assert loss == pytest.approx(result.champion.fitness, rel=1e-6)
    assert loss < 0.5 * float(Y.var())
    assert result.champion.metrics["params"] == sum(
        p.numel() for p in regressor(result.champion.genes).parameters()
    )


class Named(Dataset[dict[str, Tensor]]):
    """Batches of a mapping with `labels`."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"left": X[index, :3], "right": X[index, 3:], "labels": LABELS[index]}


@dataclasses.dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class TwoInputs(nn.Module):
    def __init__(self, width: int, answer: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, 2)
        self.answer = answer

    def forward(self, left: Tensor, right: Tensor) -> Any:
        hidden = self.body(torch.cat([left, right], 1)).relu()
        return self.answer(self.head(hidden), hidden)


ANSWERS: list[Callable[[Tensor, Tensor], Any]] = [
    lambda logits, hidden: logits,
    lambda logits, hidden: {"logits": logits, "hidden": hidden},
    Output,
]
PAIRS = TensorDataset(X[:, :3], X[:, 3:], LABELS)
DATA: dict[str, Callable[[], Any]] = {
    "mapping": lambda: ({"left": X[:, :3], "right": X[:, 3:]}, LABELS),
    "examples": lambda: Examples({"left": X[:, :3], "right": X[:, 3:]}, LABELS),
    "dataset": Named,
    "loader": lambda: DataLoader(Named(), batch_size=16, shuffle=True),
    "loader with workers": lambda: DataLoader(Named(), batch_size=48, num_workers=1),
    "several inputs": lambda: PAIRS,
    "opened later": lambda: Named,
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("answer", ANSWERS, ids=["tensor", "dict", "dataclass"])
def test_batches_and_outputs_of_any_structure(kind: str, answer: Any) -> None:
    if kind == "loader with workers" and answer is not Output:
        pytest.skip("once is enough")
    problem = ModelProblem(
        {"width": [8], "lr": [0.1]},
        lambda genes: TwoInputs(genes["width"], answer),
        DATA[kind](),
        DATA[kind](),
        n_epochs=5,
        precision="float32",
        **({} if kind.startswith("loader") else {"batch_size": 16}),
    )
    assert search(problem, 1).champion.fitness > 0.8


def test_all_that_a_model_returns_reaches_the_loss() -> None:
    """Images as targets, and several outputs, are no special case."""

    class AutoEncoder(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(6, width), nn.Linear(width, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            code = self.down(x)
            return self.up(code), code

    def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        return ((outputs[0] - targets) ** 2).mean() + 0.01 * outputs[1].abs().mean()

    def error(outputs: tuple[Tensor, Tensor], targets: Tensor) -> float:
        assert outputs[1].shape == (96, 6)
        return float(((outputs[0] - targets) ** 2).mean())

    problem = ModelProblem(
        {"lr": [0.05]}, lambda genes: AutoEncoder(6), (X, X), (X, X), loss=loss, metric=error,
        direction="min", n_epochs=10, precision="float32",
    )  # fmt: skip
    assert search(problem, 1).champion.fitness < 0.5


def test_a_streaming_metric_takes_batch_by_batch() -> None:
    class Largest:
        def reset(self) -> None:
            self.found: list[float] = []

        def update(self, outputs: Tensor, targets: Tensor) -> None:
            self.found.append(float((outputs - targets).abs().max()))

        def compute(self) -> float:
            return max(self.found)

    settings: dict[str, Any] = {"loss": nn.MSELoss(), "direction": "min", **ONCE}
    at_once = ModelProblem(
        {"width": [4]}, regressor, (X, Y), (X, Y),
        metric=lambda outputs, targets: float((outputs - targets).abs().max()), **settings,
    )  # fmt: skip
    streamed = ModelProblem({"width": [4]}, regressor, (X, Y), (X, Y), metric=Largest(), **settings)
    assert search(at_once, 1).champion.fitness == search(streamed, 1).champion.fitness


def test_every_setting_may_be_a_gene(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def fit(*args: Any, **settings: Any) -> float:
        seen.append(settings)
        return 0.5

    monkeypatch.setattr("evonas.training.problem.fit", fit)
    genes = {
        "width": 4, "lr": 0.25, "weight_decay": 0.5, "momentum": 0.75, "optimizer": "nesterov",
        "schedule": "cosine", "batch_size": 24, "n_epochs": 7, "label_smoothing": 0.125,
        "ema": 0.5, "grad_clip": 2.0,
    }  # fmt: skip
    problem = ModelProblem(
        {name: [value] for name, value in genes.items()}, classifier, (X, LABELS), (X, LABELS)
    )
    assert problem.evaluate(genes, en.Trial()) == 0.5
    (settings,) = seen
    assert {name: settings[name] for name in ("batch_size", "n_epochs", "ema", "grad_clip")} == {
        name: genes[name] for name in ("batch_size", "n_epochs", "ema", "grad_clip")
    }
    group = settings["optimizer"].param_groups[0]
    assert isinstance(settings["optimizer"], torch.optim.SGD)
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.75, True, 0.5)
    assert group["initial_lr"] == 0.25
    assert settings["loss_function"].label_smoothing == 0.125
    steps = 7 * 4
    rates = []
    for _ in range(steps):
        rates.append(group["lr"])
        settings["optimizer"].step()
        settings["scheduler"].step()
    assert rates == pytest.approx(
        [0.25 * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    )


def test_functions_of_the_genes_make_optimizer_and_schedule() -> None:
    made: list[Any] = []

    def optimizer(model: nn.Module, genes: dict[str, Any]) -> torch.optim.Optimizer:
        made.append(genes["rate"])
        return torch.optim.SGD(model.parameters(), lr=genes["rate"])

    def schedule(optimizer: Any, n_steps: int, genes: dict[str, Any]) -> Any:
        made.append(n_steps)
        return torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=n_steps)

    problem = ModelProblem(
        {"width": [4], "rate": [0.25]}, regressor, (X, Y), (X, Y), loss=nn.MSELoss(),
        optimizer=optimizer, schedule=schedule, batch_size=32, n_epochs=2, precision="float32",
    )  # fmt: skip
    made.clear()  # it was tried
    trial = en.Trial()
    problem.evaluate({"width": 4, "rate": 0.25}, trial)
    assert made == [0.25, 6]
    assert trial.history[1].metrics["lr"] > trial.history[0].metrics["lr"]
    assert problem.fingerprint()["optimizer"].startswith("optimizer py")


def test_averaged_weights_are_what_is_scored_and_kept(tmp_path: Path) -> None:
    def model(genes: dict[str, Any]) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def run(ema: float) -> tuple[float, nn.Module]:
        problem = ModelProblem(
            {"ema": [ema], "lr": [0.1]}, model, (X, Y), (X, Y), loss=nn.MSELoss(), n_epochs=2,
            precision="float32",
        )  # fmt: skip
        champion = search(problem, 1).champion
        return champion.fitness, champion.load_model()

    plain, averaged = run(0.0), run(0.9)
    assert plain[0] != averaged[0]
    with torch.inference_mode():
        for score, loaded in (plain, averaged):
            assert float(((loaded(X) - Y) ** 2).mean()) == pytest.approx(score, rel=1e-5)


def test_a_loop_of_the_users_own_is_one_method(tmp_path: Path) -> None:
    class Own(ModelProblem):
        def train_model(self, model: nn.Module, genes: Any, trial: en.Trial) -> float:
            train, _ = self.sources(trial)
            for _epoch in range(3):
                for inputs, targets in train.batches(32, seed=trial.seed, shuffle=True):
                    loss = ((model(inputs) - targets) ** 2).mean()
                    loss.backward()
                    with torch.no_grad():
                        for parameter in model.parameters():
                            parameter -= 0.05 * parameter.grad
                            parameter.grad = None
                trial.report(val_loss=loss.item())
            return loss.item()

    problem = Own({"width": [4, 8]}, regressor, (X, Y), (X, Y), loss=nn.MSELoss(), **ONCE)
    result = search(problem, 2, run_dir=tmp_path)
    assert [len(entry.epochs) for entry in result.evaluations] == [3, 3]
    loaded = en.open_run(tmp_path).champion.load_model(problem)
    assert mean_error(loaded(X).detach(), Y) < mean_error(torch.zeros_like(Y), Y)


def test_costs_may_be_objectives() -> None:
    objectives = [
        en.Objective("val_loss", "min"), en.Objective("macs", "min"), en.Objective("params", "min"),
    ]  # fmt: skip
    problem = ModelProblem(
        {"width": [2, 4, 8]}, regressor, (X, Y), (X, Y), loss=nn.MSELoss(), objectives=objectives,
        record=["latency", "train_seconds"], **ONCE,
    )  # fmt: skip
    for entry in search(problem, 3).evaluations:
        width = entry.genes["width"]
        assert entry.values[1:] == (6 * width + width, 6 * width + width + width + 1)
        assert entry.metrics["latency"] > 0 < entry.metrics["train_seconds"]


def test_lazy_layers_are_given_their_shapes(tmp_path: Path) -> None:
    def model(genes: dict[str, Any]) -> nn.Module:
        return nn.Sequential(nn.LazyLinear(genes["width"]), nn.ReLU(), nn.LazyLinear(2))

    problem = ModelProblem({"width": [4]}, model, (X, LABELS), (X, LABELS), **ONCE)
    result = search(problem, 1, run_dir=tmp_path)
    assert result.champion.metrics["params"] == 6 * 4 + 4 + 4 * 2 + 2
    assert en.open_run(tmp_path).champion.load_model(model)(X).shape == (96, 2)


@pytest.mark.parametrize("workers", [None, 2])
def test_workers_find_what_one_process_finds(workers: int | None, tmp_path: Path) -> None:
    loader = partial(DataLoader, Named(), batch_size=16, shuffle=True, num_workers=1)
    problem = ModelProblem(
        {"width": [4, 8], "lr": [0.01, 0.1]}, lambda genes: TwoInputs(genes["width"], Output),
        loader, Named(), **ONCE,
    )  # fmt: skip
    result = search(problem, 4, workers=workers, run_dir=tmp_path, strategy="random")
    alone = search(problem, 4, strategy="random", threads_per_trial=result.record.threads)
    assert [entry.values for entry in result.evaluations] == [
        entry.values for entry in alone.evaluations
    ]
    assert {entry.status for entry in result.evaluations} == {"ok"}


def test_looking_at_a_model_draws_no_random_number_of_the_callers() -> None:
    def model(genes: dict[str, Any]) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 2))

    torch.manual_seed(3)
    before = torch.get_rng_state()
    loader = DataLoader(TensorDataset(X, LABELS), 8, shuffle=True)
    ModelProblem({"width": [4]}, model, loader, loader, **ONCE)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_record_says_the_batch_size_of_a_loader() -> None:
    def problem(train: Any, **settings: Any) -> ModelProblem:
        return ModelProblem(
            {"width": [4]}, regressor, train, (X, Y), loss=nn.MSELoss(), n_epochs=1, **settings
        )

    data = TensorDataset(X, Y)
    pairs = [[0, 1, 2], [3]]
    for settings in ({}, {"batch_size": 9}, {"training": Training(lr=0.1)}):
        found = problem(DataLoader(data, 9), **settings)
        assert found.fingerprint()["batch_size"] == found.training.batch_size == 9
    assert problem(data).fingerprint()["batch_size"] == 32
    assert "batch_size" not in problem(DataLoader(data, batch_sampler=pairs)).fingerprint()


def test_a_schedule_has_the_steps_that_a_loader_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def schedule(optimizer: Any, n_steps: int, genes: dict[str, Any]) -> Any:
        asked.append(n_steps)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=n_steps)

    data = TensorDataset(X, Y)
    some = torch.utils.data.SubsetRandomSampler(range(10))
    for loader, n_batches in (
        (DataLoader(data, 3, sampler=some), 4),
        (DataLoader(data, 40, drop_last=True), 2),
    ):
        problem = ModelProblem(
            {"width": [4]}, regressor, loader, (X, Y), loss=nn.MSELoss(), schedule=schedule,
            n_epochs=3, precision="float32",
        )  # fmt: skip
        problem.evaluate({"width": 4}, en.Trial())
        assert asked.pop() == 3 * n_batches


SHARED = regressor({"width": 4})


def only_small(genes: dict[str, Any]) -> nn.Module:
    if genes["width"] > 4:
        raise RuntimeError("too wide")
    return regressor(genes)


def test_a_model_that_fails_for_some_genes_fails_there_and_says_which(tmp_path: Path) -> None:
    space = {"width": [2, 3, 4, 8]}
    problem = ModelProblem(space, only_small, (X, Y), (X, Y), loss=nn.MSELoss(), **ONCE)
    result = search(problem, 4)
    failed = [entry for entry in result.evaluations if entry.status == "failed"]
    assert [entry.genes for entry in failed] == [{"width": 8}]
    assert "model(genes) raised this for the genes {'width': 8}" in failed[0].error


def test_a_trained_model_is_not_trained_again() -> None:
    cache: dict[int, nn.Module] = {}
    calls: list[int] = []

    def cached(genes: dict[str, Any]) -> nn.Module:
        calls.append(1)
        if len(calls) < 4:  # while it is looked at, before the search
            return regressor(genes)
        return cache.setdefault(genes["width"], regressor(genes))

    space = {"width": [4], "lr": [0.1, 0.2]}
    problem = ModelProblem(space, cached, (X, Y), (X, Y), loss=nn.MSELoss(), **ONCE)
    first = [entry.status for entry in search(problem, 2).evaluations]
    assert first == ["ok", "failed"]
    with pytest.raises(ValueError, match=r"whose 0\.weight another trial has trained"):
        problem.evaluate({"width": 4, "lr": 0.1}, en.Trial())


def test_whatever_changes_a_fitness_changes_the_fingerprint() -> None:
    def fingerprint(**changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "space": {"width": [4]}, "model": regressor, "train": (X, Y), "val": (X, Y),
            "loss": nn.MSELoss(), **ONCE,
        }  # fmt: skip
        return ModelProblem(**{**arguments, **changes}).fingerprint()

    base = fingerprint()
    assert fingerprint() == base
    changes: list[dict[str, Any]] = [
        {"model": lambda genes: nn.Linear(6, 1)}, {"train": (X + 1, Y)}, {"val": (X + 1, Y)},
        {"loss": nn.L1Loss()}, {"metric": mean_error, "direction": "min"}, {"n_epochs": 2},
        {"lr": 0.5}, {"training": Training(schedule="cosine")}, {"precision": "bfloat16"},
        {"train": TensorDataset(X, Y), "unpack": lambda batch: (batch[0] * 2, batch[1])},
    ]  # fmt: skip
    assert all(fingerprint(**change) != base for change in changes)


class DiesInWorker(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if torch.utils.data.get_worker_info() is not None:
            import os

            os._exit(3)
        return X[index], Y[index]


def test_a_worker_of_a_loader_that_dies_is_named() -> None:
    problem = ModelProblem(
        {"width": [4]}, regressor, DiesInWorker(), (X, Y), loss=nn.MSELoss(), **ONCE
    )
    problem._data._opened["train"] = type(problem._data.on("cpu")[0])(
        DataLoader(DiesInWorker(), batch_size=4, num_workers=1)
    )
    problem._data._on.clear()
    trial = en.Trial(TrialSettings(problem={"precision": "float32"}))
    with pytest.raises(DataError, match="a worker process of the DataLoader died"):
        problem.evaluate({"width": 4}, trial)


def test_a_named_problem_goes_on_after_its_code_was_rewritten(tmp_path: Path) -> None:
    def first(genes: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(4, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2))

    def rewritten(genes: Any) -> nn.Module:
        width = genes["width"]
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    data = x, (x[:, 0] > 0).long()

    def searched(model: Any, n: int, **named: Any) -> en.Result:
        problem = ModelProblem(
            {"width": [4, 8, 16]}, model, data, data, n_epochs=1, precision="float32", **named
        )
        return en.evolve(problem, max_evaluations=n, seed=0, run_dir=tmp_path, progress=False)

    begun = searched(first, 1)
    with pytest.raises(RunMismatchError, match="first in the run.*pass problem_id='first'; else"):
        searched(rewritten, 2)
    result = searched(rewritten, 2, problem_id="first")
    assert result.evaluations[0] == begun.evaluations[0]
    assert len(result.evaluations) == 2
    with pytest.raises(RunMismatchError, match="problem_id"):
        searched(rewritten, 3, problem_id="other")

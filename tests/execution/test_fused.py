"""Trials that are trained at once are K ordinary trials: statuses, pruning, duplicates, resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.exceptions import InvalidPoint
from evonas.execution import Executor, FusedExecutor, SerialExecutor, Task, TrialSettings
from evonas.execution.choice import choose_executor
from evonas.records import Evaluation, Status
from evonas.testing import ExecutorConformance, onemax, onemax_space
from evonas.training import ModelProblem


class TestFused(ExecutorConformance):
    def make_executor(self) -> Executor:
        return FusedExecutor(2)


def data(n: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


def network(genes: dict[str, Any]) -> nn.Module:
    if genes["width"] == 5:
        raise InvalidPoint("five is not a width")
    layers = [nn.Linear(6, genes["width"]), nn.ReLU(), nn.Dropout(genes["p"])]
    return nn.Sequential(*layers, nn.Linear(genes["width"], 2))


def problem(**settings: Any) -> ModelProblem:
    space = {
        "width": settings.pop("widths", [4, 8]),
        "p": [0.0, 0.2],
        "lr": settings.pop("rates", [0.01, 0.03, 0.1]),
        "weight_decay": [0.0, 0.01],
    }
    settings = {"n_epochs": 3, "batch_size": 8, "precision": "float32", **settings}
    return ModelProblem(space, settings.pop("model", network), data(), data(24), **settings)


def searched(fused: int | None, /, problem: ModelProblem, **options: Any) -> list[Evaluation]:
    options = {"strategy": "random", "max_evaluations": 12, "seed": 1, **options}
    found = en.evolve(problem, fused=fused, progress=False, devices="cpu", threads_per_trial=1,
                      **options)  # fmt: skip
    return list(found.evaluations)


def same_records(found: list[Evaluation], expected: list[Evaluation]) -> None:
    assert [entry.number for entry in found] == [entry.number for entry in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.key, one.genes, one.seed) == (other.key, other.genes, other.seed)
        assert (one.status, len(one.epochs)) == (other.status, len(other.epochs))
        assert one.values == pytest.approx(other.values, abs=0.05)  # 24 are validated on
        for row, before in zip(one.epochs, other.epochs, strict=True):
            assert row.metrics["train_loss"] == pytest.approx(
                before.metrics["train_loss"], rel=1e-4
            )


def test_a_search_has_the_records_that_it_has_one_by_one() -> None:
    expected = searched(None, problem())
    found = searched(3, problem())
    same_records(found, expected)
    sizes = [entry.metrics.get("fused") for entry in found]
    assert set(sizes) <= {1, 2, 3, None}
    assert sizes.count(3) >= 6
    assert all(entry.seconds > 0 for entry in found)


@pytest.mark.parametrize("strategy", ["generational", "aging"])
def test_duplicates_are_reused_and_populations_filled(strategy: str) -> None:
    chosen: Any = {
        "generational": en.Generational(4, elite=2), "aging": en.AgingEvolution(4)
    }[strategy]  # fmt: skip
    found = searched(3, problem(widths=[4]), strategy=chosen, max_evaluations=10)
    assert len(found) == len({entry.key for entry in found}) == 10
    assert all(entry.status is Status.OK for entry in found)


def test_those_that_diverge_build_nothing_or_are_pruned_are_that_alone() -> None:
    options = {"pruner": en.MedianPruner()}
    settings = {"widths": [4, 5], "rates": [0.01, 0.1, 1e38], "optimizer": "sgd", "momentum": 0.9}
    found = searched(4, problem(**settings), **options)
    by_status = {status: sum(e.status is status for e in found) for status in Status}
    assert by_status[Status.INVALID] > 0
    assert by_status[Status.DIVERGED] > 0
    assert by_status[Status.OK] > 0
    assert all(e.error == "five is not a width" for e in found if e.status is Status.INVALID)
    assert all("nan" in (e.error or "") for e in found if e.status is Status.DIVERGED)
    expected = searched(None, problem(**settings))
    alone = {e.key: e for e in expected}
    for entry in found:
        if entry.status is Status.OK:
            assert entry.values == pytest.approx(alone[entry.key].values, abs=0.05)


def test_pruning_ends_one_of_a_group() -> None:
    made = problem(widths=[4])
    executor = FusedExecutor(3)
    executor.start(made)
    rates = (0.01, 0.03, 0.1)
    thresholds = [(), ((1, 2.0),), ()]  # an accuracy of 2 is out of reach
    tasks = [
        Task(
            {"width": 4, "p": 0.2, "lr": rate, "weight_decay": 0.0},
            TrialSettings(number=n, seed=n, metric="accuracy", thresholds=thresholds[n]),
        )
        for n, rate in enumerate(rates)
    ]
    futures = [executor.submit(task) for task in tasks]
    assert not any(future.done() for future in futures)
    outcomes = [future.result() for future in futures]
    executor.shutdown()
    assert [o.status for o in outcomes] == [Status.OK, Status.PRUNED, Status.OK]
    assert [len(o.epochs) for o in outcomes] == [3, 2, 3]
    assert (outcomes[1].error or "").startswith("pruned at epoch 1")


def test_a_search_is_continued_and_repeats_nothing(tmp_path: Path) -> None:
    first = searched(3, problem(), run_dir=tmp_path, max_evaluations=5)
    found = searched(3, problem(), run_dir=tmp_path, max_evaluations=12)
    assert found[: len(first)] == first
    same_records(found, searched(None, problem()))


def test_a_run_killed_by_ctrl_c_goes_on_one_by_one(tmp_path: Path) -> None:
    class Stop(en.Observer):
        def on_evaluation(self, evaluation: Any, best: Any) -> None:
            if evaluation.number == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(3, problem(), run_dir=tmp_path, callbacks=[Stop()])
    same_records(searched(None, problem(), run_dir=tmp_path), searched(None, problem()))


class Full(ModelProblem):
    """Has memory for two candidates at once."""

    def evaluate_fused(self, genes: Any, trials: Any) -> Any:
        sizes.append(len(genes))
        if len(genes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().evaluate_fused(genes, trials)


sizes: list[int] = []


def test_a_group_without_memory_is_run_one_by_one_and_the_next_is_smaller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = problem(widths=[4])
    made.__class__ = Full
    sizes.clear()
    with caplog.at_level(logging.WARNING):
        found = searched(5, made)
    assert sizes[0] == 5
    assert max(sizes[1:]) == 2
    assert all(entry.status is Status.OK for entry in found)
    assert [r.message for r in caplog.records if "one by one" in r.message] == [
        "5 candidates of one shape are trained one by one: cpu has too little memory for them at "
        "once"
    ]


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rand_like(x)


def test_a_model_that_cannot_be_is_trained_alone_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def own(genes: Any) -> nn.Module:
        return nn.Sequential(Random(), nn.Dropout(genes["p"]), nn.Linear(6, 2))

    with caplog.at_level(logging.WARNING):
        found = searched(4, problem(widths=[4], model=own))
    assert all(entry.status is Status.OK for entry in found)
    assert all("fused" not in entry.metrics for entry in found)
    said = [r.message for r in caplog.records if "one by one" in r.message]
    assert len(said) == 1
    assert "this model cannot be trained with others: vmap: called random operation" in said[0]


def test_an_error_of_one_is_that_ones() -> None:
    def odd(genes: Any) -> nn.Module:
        if genes["lr"] == 0.03 and genes["p"] == 0.2:
            raise RuntimeError("odd")
        return network(genes)

    found = searched(4, problem(model=odd))
    failed = [entry for entry in found if entry.status is Status.FAILED]
    assert failed
    assert all(entry.genes["lr"] == 0.03 and entry.genes["p"] == 0.2 for entry in failed)
    assert all("RuntimeError: odd" in (entry.error or "") for entry in failed)


def test_what_fusing_excludes_is_refused() -> None:
    with pytest.raises(ValueError, match="fused=4 needs a problem .*: evonas does not know how"):
        en.evolve(onemax_space(), onemax, fused=4)
    with pytest.raises(ValueError, match="workers is for worker processes, and fused=4 trains"):
        en.evolve(problem(), fused=4, workers=2, devices="cpu")
    with pytest.raises(ValueError, match="trial_timeout is for worker processes"):
        choose_executor(fused=4, trial_timeout=5)
    with pytest.raises(ValueError, match=r"trains on one device, got devices=\['cpu', 'cpu'\]"):
        choose_executor(fused=4, devices=["cpu", "cpu"])
    with pytest.raises(ValueError, match="not both: pass them to the executor"):
        choose_executor(SerialExecutor(), fused=4)
    for wrong in (1, 0, 2000):
        with pytest.raises(ValueError, match="most must be"):
            FusedExecutor(wrong)
    with pytest.raises(TypeError, match="fused must be an int"):
        en.evolve(problem(), fused="4", devices="cpu")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="this FusedExecutor is not started"):
        FusedExecutor(2).submit(Task({}, TrialSettings()))


def test_what_waits_at_the_end_is_cancelled() -> None:
    executor = FusedExecutor(2)
    executor.start(problem())
    future = executor.submit(Task({"width": 4, "p": 0.0, "lr": 0.1, "weight_decay": 0.0},
                                  TrialSettings()))  # fmt: skip
    executor.shutdown()
    assert future.cancelled()

"""An exported study is what Optuna loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main

pytestmark = pytest.mark.slow  # Optuna takes seconds to import and to make its tables


def loaded(result: en.Result, path: Path) -> Any:
    """The study of a run, exported to a file and loaded from it."""
    import optuna

    assert main(["export", str(result.run_dir), "--format", "optuna", "-o", str(path)]) == 0
    return optuna.load_study(study_name=None, storage=f"sqlite:///{path}")


def test_optuna_loads_the_study(ended: en.Result, tmp_path: Path) -> None:
    study = loaded(ended, tmp_path / "study.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.db"]
    assert study.direction.name == "MAXIMIZE"
    assert study.metric_names == ["fitness"]
    assert len(study.trials) == len(ended.evaluations)
    states = {"ok": "COMPLETE", "pruned": "PRUNED"}
    for trial, entry in zip(study.trials, ended.evaluations, strict=True):
        assert trial.state.name == states.get(entry.status.value, "FAIL")
        assert trial.user_attrs["status"] == entry.status.value
        assert trial.user_attrs["key"] == entry.key
        assert trial.params == entry.genes
        assert trial.value == entry.fitness
        if entry.status is not en.Status.INVALID:
            assert trial.duration.total_seconds() == pytest.approx(entry.seconds, abs=1e-3)
    assert study.best_trial.number == ended.champion.number
    assert study.best_params == ended.champion.genes


def test_optuna_gets_distributions_curves_and_several_objectives(tmp_path: Path) -> None:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    space = {
        "lr": en.Float(1e-4, 1e-1, log=True),
        "width": en.Integer(8, 63, step=8),
        "depth": en.Integer(1, 4, log=True),
        "norm": en.Boolean(),
        "shape": en.Categorical([[1, 2], [3], None]),
        "odd": en.Categorical([1, True, "a"]),
        "act": en.Categorical({"relu": max, "gelu": min}),
    }

    def fitness(genes: Any, trial: en.Trial) -> tuple[float, float]:
        for epoch in range(3):
            trial.report(loss=1.0, value=genes["width"] * (epoch + 1))
        return genes["width"] * 3, genes["lr"]

    result = en.evolve(
        space, fitness, objectives=[en.Objective("value"), en.Objective("lr", "min")],
        strategy=en.NSGA2(8), generations=2, seed=0, run_dir=tmp_path / "run",
    )  # fmt: skip
    study = loaded(result, tmp_path / "study.db")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    trial, entry = study.trials[5], result.evaluations[5]
    assert trial.values == list(entry.values)
    assert trial.intermediate_values == {e.epoch: e.metrics["value"] for e in entry.epochs}
    assert trial.distributions["lr"] == FloatDistribution(1e-4, 1e-1, log=True)
    assert trial.distributions["width"] == IntDistribution(8, 56, step=8)
    assert trial.distributions["depth"] == IntDistribution(1, 4, log=True)
    assert trial.distributions["norm"] == CategoricalDistribution((False, True))
    assert trial.distributions["shape"] == CategoricalDistribution(("[1,2]", "[3]", "null"))
    assert trial.distributions["odd"] == CategoricalDistribution(("1", "true", '"a"'))
    assert trial.distributions["act"] == CategoricalDistribution(("relu", "gelu"))
    plain = json.dumps(entry.genes["shape"], separators=(",", ":"))
    assert trial.params == {**entry.genes, "shape": plain, "odd": json.dumps(entry.genes["odd"])}
    assert {t.number for t in study.best_trials} >= {e.number for e in result.pareto_front[:1]}


def test_pruned_evaluations_are_pruned_trials(tmp_path: Path) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        for epoch in range(4):
            trial.report(fitness=genes["x"] * (epoch + 1))
        return genes["x"] * 4

    result = en.evolve(
        {"x": en.Float(0.0, 1.0)}, fitness, strategy=en.RandomSearch(), max_evaluations=30,
        seed=0, pruner=en.MedianPruner(), run_dir=tmp_path / "run",
    )  # fmt: skip
    n_pruned = result.counts.by_status["pruned"]
    assert n_pruned > 0
    study = loaded(result, tmp_path / "study.db")
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert len(pruned) == n_pruned
    assert all(trial.value == trial.intermediate_values[trial.last_step] for trial in pruned)

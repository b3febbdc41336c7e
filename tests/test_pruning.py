"""Trainings that a pruner ends early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import RunMismatchError
from evonas.objectives import Objective
from evonas.pruning import Pruner
from evonas.strategies import RandomSearch
from evonas.testing import trace

N_EPOCHS = 6
SPACE = {"x": en.Integer(0, 99), "y": en.Integer(0, 99)}


class Curved(en.FunctionProblem):
    """Reports a rising value; a point's end shows from its first epoch on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(en.SearchSpace(SPACE), self.train, **settings)
        self.n_epochs = 0

    def train(self, genes: Any, trial: en.Trial) -> float:
        best = 0.0
        for epoch in range(N_EPOCHS):
            self.n_epochs += 1
            best = (genes["x"] + genes["y"]) / 198 * (epoch + 1) / N_EPOCHS
            trial.report(fitness=best)
        return best


def search(run_dir: Any = None, problem: Any = None, **arguments: Any) -> en.Result:
    settings: dict[str, Any] = {
        # With poor children too.
        "strategy": en.Generational(12, tournament_size=2, gene_mutation_prob=0.5),
        "generations": 5, "seed": 3, "pruner": en.MedianPruner(),
    }  # fmt: skip
    return en.evolve(problem or Curved(), run_dir=run_dir, **settings | arguments)


def test_poor_trainings_end_early_and_rank_below_all_others() -> None:
    pruned_problem, whole_problem = Curved(), Curved()
    result = search(problem=pruned_problem)
    search(problem=whole_problem, pruner=None)
    pruned = [e for e in result.evaluations if e.status is en.Status.PRUNED]
    assert 1 < len(pruned) < len(result.evaluations) - 12
    assert pruned_problem.n_epochs < whole_problem.n_epochs
    first = result.evaluations[:12]
    assert all(entry.status is en.Status.OK for entry in first), "nothing to compare with yet"
    for entry in pruned:
        assert entry.fitness is None
        assert len(entry.epochs) < N_EPOCHS
        assert entry.values == (entry.epochs[-1].metrics["fitness"],)
        assert f"pruned at epoch {entry.epochs[-1].epoch}: reported" in str(entry.error)
    assert result.champion.status is en.Status.OK
    parents = {entry.key for entry in result.hall_of_fame}
    assert not parents & {entry.key for entry in pruned}
    assert result.counts.failed == 0


def test_what_is_minimised_is_pruned_above_the_threshold() -> None:
    class Loss(Curved):
        def train(self, genes: Any, trial: en.Trial) -> float:
            for _ in range(N_EPOCHS):
                trial.report(loss=float(genes["x"]))
            return float(genes["x"])

    problem = Loss(objectives=Objective("loss", "min"))
    result = search(problem=problem)
    worst = max(e.values[0] for e in result.evaluations if e.number >= 12 and e.fitness is not None)
    pruned = [e.values[0] for e in result.evaluations if e.status is en.Status.PRUNED]
    assert pruned
    assert max(pruned) > worst


def test_a_pruned_generational_run_is_exact_whatever_interrupts_it(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")

    class Stops(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            if evaluation.number % 5 == 4:
                raise KeyboardInterrupt

    for _ in range(30):
        try:
            resumed = search(tmp_path / "cut", callbacks=[Stops()])
            break
        except KeyboardInterrupt:
            continue
    assert trace(resumed) == trace(whole)
    assert [e.status for e in resumed.evaluations] == [e.status for e in whole.evaluations]


@pytest.mark.slow
def test_workers_prune_as_one_process_does() -> None:
    assert trace(search(workers=2)) == trace(search())


def test_an_asynchronous_search_prunes_from_what_is_there() -> None:
    result = search(strategy=RandomSearch(), generations=None, max_evaluations=30)
    statuses = [entry.status for entry in result.evaluations]
    assert en.Status.PRUNED in statuses[5:]
    assert en.Status.PRUNED not in statuses[:5]


def test_successive_halving_in_a_search() -> None:
    result = search(pruner=en.SuccessiveHalving(reduction=2))
    lengths = {len(e.epochs) for e in result.evaluations if e.status is en.Status.PRUNED}
    assert lengths
    assert lengths <= {1, 2, 4}


def test_ones_own_pruner() -> None:
    class AtTheThird(Pruner):
        def settings(self) -> dict[str, Any]:
            return {"name": "AtTheThird"}

        def thresholds(self, curves: Any, objective: Objective) -> dict[int, float]:
            return {2: 2.0}  # which nobody reaches

    result = search(pruner=AtTheThird())
    late = [e for e in result.evaluations if e.number >= 12]
    assert {(e.status, len(e.epochs)) for e in late} == {(en.Status.PRUNED, 3)}


def test_curves_and_thresholds() -> None:
    curves = [{0: 0.1, 1: 0.5, 2: 0.9}, {0: float("nan"), 1: 0.7}, {0: 0.3, 1: 0.6}]
    up, down = Objective("a"), Objective("a", "min")
    median = en.MedianPruner(min_curves=2)
    assert median.thresholds(curves, up) == {0: pytest.approx(0.2), 1: 0.6}
    assert en.MedianPruner(min_curves=3).thresholds(curves, up) == {1: 0.6}
    assert en.MedianPruner(min_curves=2, warmup_epochs=1).thresholds(curves, up) == {1: 0.6}
    assert median.thresholds([], up) == {}
    halving = en.SuccessiveHalving(min_epochs=2, reduction=3)
    assert halving.thresholds(curves, up) == {1: 0.7}
    assert halving.thresholds(curves, down) == {1: 0.5}


def test_a_pruner_without_reports(tmp_path: Path) -> None:
    problem = en.FunctionProblem(en.SearchSpace(SPACE), lambda genes, trial: 1.0)
    with pytest.raises(ValueError, match=r"needs trial.report\(fitness=...\) .* reported nothing"):
        search(tmp_path, problem)
    assert en.open_run(tmp_path).counts.evaluated == 1, "what was evaluated is kept"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: en.MedianPruner(min_curves=0), ValueError, "min_curves must be at least 1, got 0"),
        (lambda: en.SuccessiveHalving(reduction=1), ValueError, "reduction must be at least 2"),
        (lambda: en.SuccessiveHalving(min_epochs=1.5), TypeError, "min_epochs must be an int"),
        (
            lambda: search(pruner="median"),
            TypeError,
            "pruner must be a Pruner object, got 'median'",
        ),
    ],
)
def test_wrong_arguments(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_several_objectives_cannot_be_pruned() -> None:
    problem = Curved(objectives=[Objective("a"), Objective("b")])
    with pytest.raises(ValueError, match="a pruner judges by one objective, .* has a, b"):
        search(problem=problem)


def test_another_pruner_is_another_run(tmp_path: Path) -> None:
    search(tmp_path)
    with pytest.raises(RunMismatchError, match=r"another pruner \(min_curves: 5 in the run, 3"):
        search(tmp_path, pruner=en.MedianPruner(min_curves=3))
    with pytest.raises(RunMismatchError, match="another pruner"):
        search(tmp_path, pruner=None)

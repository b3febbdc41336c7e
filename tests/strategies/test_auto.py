"""What is searched with where the user names no strategy."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.callbacks import ProgressBar
from evonas.exceptions import RunMismatchError
from evonas.strategies.auto import choose_strategy, rebuild_strategy
from evonas.testing import onemax, onemax_space

ONE = (en.Objective("score"),)
TWO = (*ONE, en.Objective("size", "min"))


def search(run_dir: Path | None = None, **changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"max_evaluations": 15, "seed": 1, "run_dir": run_dir}
    return en.evolve(onemax_space(8), onemax, **arguments | changes)


@pytest.mark.parametrize(
    ("n_genes", "objectives", "n_evaluations", "expected"),
    [
        (8, ONE, 100, en.SurrogateEvolution),
        (8, ONE, None, en.SurrogateEvolution),
        (8, TWO, 100, en.SurrogateEvolution),
        (20, ONE, 20_000, en.Generational),
        (20, TWO, 20_000, en.NSGA2),
        (8, ONE, 20_000, en.SurrogateEvolution),  # its 256 points are searched whole
        (300, ONE, 100, en.Generational),
        (300, TWO, 100, en.NSGA2),
    ],
)
def test_space_budget_and_objectives_decide(
    n_genes: int, objectives: Any, n_evaluations: int | None, expected: type
) -> None:
    strategy, why = choose_strategy(onemax_space(n_genes), objectives, n_evaluations)
    assert type(strategy) is expected
    assert f"{n_genes} genes" in why
    again = rebuild_strategy(strategy.settings())
    assert type(again) is expected
    assert again.settings() == strategy.settings()


def test_it_is_the_default_where_no_argument_of_the_ga_is_given(tmp_path: Path) -> None:
    assert search().record.strategy_name == "SurrogateEvolution"
    assert search(strategy="auto").record.strategy_name == "SurrogateEvolution"
    for argument in ({"population": 5}, {"generations": 2}, {"elite": 1}):
        result = search(**argument)
        assert result.record.strategy_name == "Generational"
        assert result.record.chosen_for is None


def test_the_choice_is_kept_when_the_budget_grows(tmp_path: Path) -> None:
    """With the larger budget alone it would have been another strategy."""
    search(tmp_path / "run", max_evaluations=12)
    result = search(tmp_path / "run", max_evaluations=14)
    assert result.counts.evaluated == 14
    en.evolve(onemax_space(30), onemax, max_evaluations=6, run_dir=tmp_path / "wide", seed=1)
    larger: dict[str, Any] = {"max_evaluations": 20_000, "target_fitness": 15, "seed": 1}
    result = en.evolve(onemax_space(30), onemax, run_dir=tmp_path / "wide", **larger)
    assert result.record.strategy_name == "SurrogateEvolution"
    assert result.record.chosen_for == "30 genes, 1 objective, 6 evaluations"


def test_a_run_with_a_strategy_of_the_users_is_not_taken_over(tmp_path: Path) -> None:
    search(tmp_path, population=5, generations=2)
    with pytest.raises(RunMismatchError, match="Generational in the run, SurrogateEvolution here"):
        search(tmp_path)


def test_progress_says_what_was_chosen() -> None:
    lines = io.StringIO()
    search(callbacks=[ProgressBar(bar=False, rows=lines)])
    said = "evonas: SurrogateEvolution, chosen for 8 genes, 1 objective, 15 evaluations; at most 15"
    assert lines.getvalue().startswith(said)
    lines = io.StringIO()
    search(callbacks=[ProgressBar(bar=False, rows=lines)], population=5)
    assert "chosen" not in lines.getvalue()


def test_wrong_uses() -> None:
    with pytest.raises(ValueError, match="either strategy or population"):
        search(strategy="auto", population=5)
    with pytest.raises(ValueError, match="a Strategy object or 'auto', .*, got 'annealing'"):
        search(strategy="annealing")
    with pytest.raises(ValueError, match="auto never chose 'LocalSearch'"):
        rebuild_strategy(en.LocalSearch().settings())


def test_what_it_chooses_needs_numpy_alone() -> None:
    program = (
        "import sys, evonas as en; en.evolve({'x': en.Float(0, 1), 'y': [1, 2]},"
        " lambda genes, trial: genes['x'], max_evaluations=14, seed=0);"
        " print([name for name in ('torch', 'scipy', 'sklearn', 'pandas') if name in sys.modules])"
    )
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert output.strip() == "[]"

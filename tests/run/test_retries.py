"""A search that came to nothing goes on, by the same command, once its cause is fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.testing import onemax, onemax_space

STRATEGIES = [en.SurrogateEvolution, en.Generational, en.LocalSearch, en.AgingEvolution]


@pytest.mark.parametrize("make", STRATEGIES)
def test_where_all_failed_within_a_small_budget(make: Any, tmp_path: Path) -> None:
    broken = [True]

    def fitness(genes: Any, trial: en.Trial) -> float:
        if broken[0]:
            raise FileNotFoundError("data/train.bin")
        return onemax(genes, trial)

    def search() -> en.Result:
        return en.evolve(
            onemax_space(), fitness, strategy=make(), max_evaluations=8, seed=0, run_dir=tmp_path
        )

    for n_starts in (1, 2):
        with pytest.raises(en.TooManyFailures, match="all .* evaluations failed"):
            search()
        result = en.open_run(tmp_path)
        assert result.outcome == "failures"
        assert result.counts.by_status["failed"] == 8 * n_starts
    broken[0] = False
    result = search()
    assert result.outcome == "finished"
    assert result.counts.by_status["ok"] == 8, "what failed took its place in the budget"
    assert search().counts.evaluated == result.counts.evaluated, "it is finished"


def test_a_tuple_of_two_numbers_is_neither_a_range_nor_choices() -> None:
    message = r"gene 'lr': \(0.001, 0.1\) may mean a range or two choices; give Float\(0.001, 0.1\)"
    with pytest.raises(TypeError, match=message):
        en.SearchSpace({"lr": (1e-3, 1e-1)})
    assert en.SearchSpace({"lr": [1e-3, 1e-1]}).cardinality == 2
    with pytest.raises(TypeError, match=r"give Integer\(0, 1\) or Float\(0, 1\) for .*\[0, 1\]"):
        en.SearchSpace({"a": (0, 1)})
    assert en.SearchSpace({"kind": ("a", "b"), "n": (3, 4, 5)}).cardinality == 6

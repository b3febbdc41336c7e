"""What a search is refused for before it has a directory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import evonas as en

SPACE = en.SearchSpace({"x": [1, 2, 3, 4]}, constraints={"no4": lambda genes: genes["x"] != 4})
TWO = [en.Objective("a"), en.Objective("c", "min")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"objectives": TWO, "pruner": en.MedianPruner()}, "a pruner judges by one objective"),
        ({"objectives": TWO, "population": 4}, "Generational optimises one objective, got 2"),
        ({"objectives": TWO, "strategy": "local"}, "LocalSearch optimises one objective, got 2"),
        ({"strategy": en.Hyperband()}, "Hyperband needs a gene 'n_epochs'"),
        ({"initial": [{"x": 4}]}, r"initial point {'x': 4} is invalid \(violates no4\)"),
        ({"population": 2, "initial": [{"x": 1}] * 3}, "initial has 3 points, more than popula"),
    ],
)
def test_a_refused_search_leaves_no_directory(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    run_dir = tmp_path / "runs" / "one"
    with pytest.raises(ValueError, match=words):
        en.evolve(
            SPACE, lambda genes, trial: genes["x"], max_evaluations=2, run_dir=run_dir, **arguments
        )
    assert not (tmp_path / "runs").exists()


def test_a_strategy_that_cannot_be_copied_searches(tmp_path: Path) -> None:
    strategy: Any = en.RandomSearch()
    strategy.lock = threading.Lock()
    result = en.evolve(
        SPACE, lambda genes, trial: genes["x"], strategy=strategy, max_evaluations=3, seed=0,
        run_dir=tmp_path,
    )  # fmt: skip
    assert result.champion.genes == {"x": 3}
